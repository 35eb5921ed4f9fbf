"""Kernels for training on a CPU, most of them in bfloat16."""
