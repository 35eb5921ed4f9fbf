"""What an operator sees of a running server: metrics, traces and logs. No texts, no secrets."""
