"""How kernels share their work among threads."""
