"""Inference algorithms: the sampling loop, top continuations, gap filling, batched steps."""
