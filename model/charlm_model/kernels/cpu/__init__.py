"""The exact path, compiled: every result has one value, whatever the batch, machine or thread.

Kernels are made of additions, products, quotients and fused multiply-adds in a fixed order, each
exactly specified by IEEE 754, and nothing is reassociated. A row is computed alone, so its bits
cannot depend on its company. They release the interpreter's lock while they run.
"""

ARITHMETIC = 3
"""Counts the changes after which the same weights gave other bits."""
