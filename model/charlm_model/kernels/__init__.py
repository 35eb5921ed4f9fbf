"""Kernels with a fixed order of operations: for CPUs, for training, and in Triton."""
