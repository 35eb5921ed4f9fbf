"""Constrained decoding: outputs that match a regular expression, a choice or a character set."""
