"""Inference on a GPU: Triton kernels that sum in a fixed order, captured as CUDA graphs.

All modules but `placement` need Triton, which comes with torch's builds for CUDA. Kernels read and
write whole tiles: rows and columns are padded with zeros, so that few accesses need a mask.
"""
