"""Layers of the neural families, and the precision they train in."""
