"""Who calls, and the record of one call."""
