"""Parts of the client, one file a group of calls."""
