"""gRPC: interceptors, TLS, services, and messages to values and back."""
