"""Entropy coding by a language model."""
