"""Figures and samples of a model."""
