"""The canary of the bf16 repair: right with it, wrong without it, and on the names it replaces."""

import interpreter_bf16
import pytest
import torch
import triton
import triton.language as tl
from triton.runtime.interpreter import InterpreterBuilder


@triton.jit
def dot_kernel(A, B, C):
    i = tl.arange(0, 16)
    at = i[:, None] * 16 + i[None, :]
    tl.store(C + at, tl.dot(tl.load(A + at), tl.load(B + at)))


@triton.jit
def round_kernel(A, C):
    i = tl.arange(0, 1024)
    tl.store(C + i, tl.load(A + i).to(C.dtype.element_ty))


@triton.jit
def arithmetic_kernel(A, B, C):
    i = tl.arange(0, 256)
    tl.store(C + i, tl.load(A + i) * tl.load(B + i) + tl.load(A + i))


def _dot() -> bool:
    a, b = torch.randn(2, 16, 16).bfloat16()
    c = torch.empty(16, 16)
    dot_kernel[(1,)](a, b, c)
    return torch.allclose(c, a.float() @ b.float(), rtol=1e-5, atol=1e-5)


def _round() -> bool:
    a = torch.randn(1024)
    a[:2] = torch.tensor([float("inf"), float("nan")])
    c = torch.empty(1024, dtype=torch.bfloat16)
    round_kernel[(1,)](a, c)
    return torch.equal(c.nan_to_num(7.0), a.bfloat16().nan_to_num(7.0))


def _arithmetic() -> bool:
    a, b = torch.randn(2, 256).bfloat16()
    c = torch.empty(256, dtype=torch.bfloat16)
    arithmetic_kernel[(1,)](a, b, c)
    return torch.equal(c, a * b + a)


@pytest.mark.parametrize("works", [_dot, _round, _arithmetic])
def test_the_repair_makes_bfloat16_exact(works):
    torch.manual_seed(0)
    assert works()


def test_the_interpreter_still_needs_the_repair():
    """When this fails, Triton has mended its interpreter: drop the part of the repair that is no longer needed."""
    torch.manual_seed(0)
    broken = {name: getattr(InterpreterBuilder, name) for name in interpreter_bf16.PATCHED}
    try:
        for name, stock in STOCK.items():
            setattr(InterpreterBuilder, name, stock)
        still_wrong = [not works() for works in (_dot, _round, _arithmetic)]
    finally:
        for name, repaired in broken.items():
            setattr(InterpreterBuilder, name, repaired)
    assert still_wrong == [True, True, True]


# taken at import, before the fixture repairs anything
STOCK = {name: getattr(InterpreterBuilder, name) for name in interpreter_bf16.PATCHED}
