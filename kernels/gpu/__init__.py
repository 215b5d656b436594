"""Triton kernels, imported as ``fastbert.kernels`` (see kernels/README.md for why the folder has this shape)."""
