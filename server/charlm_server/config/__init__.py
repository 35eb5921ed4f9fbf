"""Settings and limits of a server, and how its command names them."""
