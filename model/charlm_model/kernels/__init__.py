"""Kernels: compiled for CPUs, for training, and in Triton; autograd functions; threads."""
