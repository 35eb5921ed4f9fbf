"""A run from its corpus to its checkpoint."""
