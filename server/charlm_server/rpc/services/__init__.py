"""One servicer a proto service: convert, call, convert."""
