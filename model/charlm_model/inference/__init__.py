"""Sampling, top continuations and gap filling, by batched steps of a model."""
