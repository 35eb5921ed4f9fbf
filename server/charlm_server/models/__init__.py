"""What is served: the registry, loading, hot swap."""
