"""The exact path on CPUs: compiled kernels with the same bits in any batch, machine or thread.

Kernels consist of additions, products, quotients and fused multiply-adds in a fixed order, each
exactly specified by IEEE 754, and the compiler may not reassociate them. Each row is computed by
itself, so its bits do not depend on the rest of the batch (batch invariance). Kernels release the
interpreter's lock while they run.
"""

ARITHMETIC = 3
"""Version of the arithmetic: raised with every change to the bits that the same weights give."""
