"""Between the client and gRPC: the channel, messages, and status codes as errors."""
