"""Kernels in Triton. They get their types from their first call, or run in its interpreter."""
