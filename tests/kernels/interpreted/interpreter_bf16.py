"""Repairs bfloat16 in Triton's interpreter, for tests only.

The interpreter keeps a bf16 tensor as NumPy uint16 bit patterns. Up to Triton 3.9 it multiplies those patterns as
integers in ``tl.dot`` and in arithmetic (silently wrong results), and truncates float32 → bf16 where a GPU rounds to
nearest even. The repair widens to float32 before any arithmetic and rounds on the way back.
``test_interpreter_bf16.py`` fails when Triton changes these names, or no longer needs the repair.
"""

import contextlib
from collections.abc import Iterator

import numpy as np
import triton.language as tl
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

PATCHED = ("create_dot", "cast_impl", "create_fp_to_fp", "binary_op", "create_fp_trunc", "create_fp_ext")


def _is_bf16(dtype) -> bool:
    return dtype.scalar == tl.bfloat16


def widen(handle: TensorHandle) -> TensorHandle:
    """bf16 → float32, exactly; anything else as it is."""
    if not _is_bf16(handle.dtype):
        return handle
    return TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)


def narrow(values: np.ndarray) -> TensorHandle:
    """float32 → bf16, to nearest, ties to even."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return TensorHandle(np.where(np.isnan(values), np.uint16(0x7FC0), rounded), tl.bfloat16)


def _replacements() -> dict:
    stock = {name: getattr(InterpreterBuilder, name) for name in PATCHED}

    def create_dot(self, a, b, accumulator, *rest):
        return stock["create_dot"](self, widen(a), widen(b), accumulator, *rest)

    def cast_impl(self, source, target):
        if source.dtype.scalar == tl.float32 and _is_bf16(target):
            return narrow(source.data)
        if _is_bf16(source.dtype) and target.scalar == tl.float32:
            return widen(source)
        return stock["cast_impl"](self, source, target)

    def create_fp_to_fp(self, source, target, mode):
        if source.dtype.scalar == tl.float32 and _is_bf16(target):
            return narrow(source.data)
        return stock["create_fp_to_fp"](self, source, target, mode)

    def binary_op(self, left, right, op):
        if not _is_bf16(left.dtype):
            return stock["binary_op"](self, left, right, op)
        values = op(widen(left).data, widen(right).data)
        return narrow(values) if values.dtype.kind == "f" else TensorHandle(values, left.dtype.scalar)

    def cast(self, source, target):
        return self.cast_impl(source, target)

    return dict(zip(PATCHED, (create_dot, cast_impl, create_fp_to_fp, binary_op, cast, cast), strict=True))


@contextlib.contextmanager
def repaired() -> Iterator[None]:
    """The interpreter with working bf16, inside the with block."""
    stock = {name: getattr(InterpreterBuilder, name) for name in PATCHED}
    for name, replacement in _replacements().items():
        setattr(InterpreterBuilder, name, replacement)
    try:
        yield
    finally:
        for name, original in stock.items():
            setattr(InterpreterBuilder, name, original)
