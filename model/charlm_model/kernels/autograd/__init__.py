"""Layers whose forward and backward pass are kernels."""
