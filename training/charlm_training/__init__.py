"""Fits a character-level language model to a person's own text and says how good it is."""
