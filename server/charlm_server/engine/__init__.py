"""Continuous batching in one thread: prefill, decoding, placement, scoring, search."""
