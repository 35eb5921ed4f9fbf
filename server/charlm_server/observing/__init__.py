"""Telemetry of a running server: metrics, traces and logs, without texts and secrets."""
