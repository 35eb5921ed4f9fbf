"""What can be asked of a server, a file a group of calls."""
