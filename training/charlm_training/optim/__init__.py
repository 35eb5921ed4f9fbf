"""Optimizers, the learning rate, and the mean of weights."""
