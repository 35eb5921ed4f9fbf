"""Languages that a continuation can be held to."""
