"""Lossless text compression: a range coder driven by a language model."""
