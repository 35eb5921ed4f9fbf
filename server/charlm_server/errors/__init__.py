"""What can go wrong in a server."""
