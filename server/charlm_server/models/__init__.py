"""Served models: registry, loading, hot swap."""
