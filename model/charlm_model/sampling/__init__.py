"""Sampling: parameters, logits processors, random numbers and the draw."""
