"""Triton kernels for GPUs; Triton's interpreter runs them on a CPU in tests."""
