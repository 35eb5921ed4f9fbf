"""Messages to engine values and back, a file a proto file."""
