"""Attention in Triton: the op, its forward and backward kernels, their configurations."""
