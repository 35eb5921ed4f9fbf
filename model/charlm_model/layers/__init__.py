"""Layers of the neural families, and their precision in training."""
