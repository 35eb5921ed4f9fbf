"""Calls that are made of many engine jobs."""
