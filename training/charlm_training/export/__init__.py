"""Exports a trained model for other runtimes."""
