"""Callers, and the record of one call."""
