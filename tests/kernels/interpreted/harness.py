"""How an op is held against its reference: one hostile run, three answers, one rule.

The rule: max |kernel - exact| ≤ 2 · max |PyTorch in the same dtype - exact| + one rounding of the largest value, with
``exact`` from the reference in float64. The last term serves results that PyTorch happens to get exactly (a softmax
over one key, a sum of one term), where twice nothing would be nothing. A kernel that keeps a logarithm in float32 says
so with ``roundings``: exp2(s - lse) turns half a unit in the last place of an lse near 8 into 3 of the result's.

The hostile run: float inputs lie inside NaN (guard bands), every allocation is poisoned with NaN and fenced by a
sentinel, and the programs of each grid run in a shuffled order.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from triton.runtime import interpreter

GUARD = 128  # elements on either side
SENTINEL = 12345.0


def guarded(tensor: Tensor) -> Tensor:
    """The same values and strides, with NaN before and after them in memory."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return tensor
    extent = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    buffer = torch.full((extent + 2 * GUARD,), float("nan"), dtype=tensor.dtype)
    view = buffer.as_strided(tensor.shape, tensor.stride(), GUARD)
    view.copy_(tensor)
    return view


@contextlib.contextmanager
def fenced_allocations() -> Iterator[None]:
    """torch.empty gives NaN between two fences; leaving the block checks that the fences stand."""
    stock, stock_like = torch.empty, torch.empty_like
    fences: list[tuple[Tensor, int]] = []

    def empty(*shape: Any, dtype=None, device=None, **rest: Any) -> Tensor:
        size = torch.Size(shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)
        dtype = dtype or torch.get_default_dtype()
        if rest or not dtype.is_floating_point or str(device or "cpu") != "cpu":
            return stock(*shape, dtype=dtype, device=device, **rest)
        buffer = stock(size.numel() + 2 * GUARD, dtype=dtype).fill_(SENTINEL)
        fences.append((buffer, size.numel()))
        return buffer[GUARD : GUARD + size.numel()].view(size).fill_(float("nan"))

    torch.empty = empty
    torch.empty_like = lambda like: empty(like.shape, dtype=like.dtype, device=like.device)
    try:
        yield
    finally:
        torch.empty, torch.empty_like = stock, stock_like
    for buffer, size in fences:
        sentinel = torch.full((GUARD,), SENTINEL, dtype=buffer.dtype)
        assert torch.equal(buffer[:GUARD], sentinel), "a kernel wrote before its output"
        assert torch.equal(buffer[GUARD + size :], sentinel), "a kernel wrote past its output"


@contextlib.contextmanager
def shuffled_programs(seed: int = 0) -> Iterator[None]:
    """Run each grid's programs in an order of its own: a result that depends on it is a race."""
    builder = interpreter.interpreter_builder
    stock = builder.set_grid_idx

    def set_grid_idx(x: int, y: int, z: int) -> None:
        order = np.random.default_rng(seed).permutation(builder.grid_dim[0])
        stock(int(order[x]), y, z)

    builder.set_grid_idx = set_grid_idx
    try:
        yield
    finally:
        del builder.set_grid_idx


def run(
    op: Callable, inputs: dict[str, Any], dtype: torch.dtype | None = None
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Outputs of ``op(**inputs)`` and the gradients of its float tensors, for a fixed random output gradient."""
    leaves = {}
    for name, value in inputs.items():
        if isinstance(value, Tensor) and value.is_floating_point():
            # contiguous() would undo the strides under test
            leaf = (value if dtype is None else value.to(dtype)).detach().requires_grad_()
            leaves[name] = leaf
    outputs = op(**{**inputs, **leaves})
    outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
    generator = torch.Generator().manual_seed(7)
    grads = [torch.randn(out.shape, generator=generator).to(out.dtype) for out in outputs]
    if dtype is not None:  # the exact answer is for the very gradient that the others were given
        low = next(v.dtype for v in inputs.values() if isinstance(v, Tensor) and v.is_floating_point())
        generator.manual_seed(7)
        grads = [torch.randn(out.shape, generator=generator).to(low).to(out.dtype) for out in outputs]
    torch.autograd.backward(outputs, grads)
    return [out.detach() for out in outputs], {n: x.grad for n, x in leaves.items() if x.grad is not None}


def hold(name: str, ours: Tensor, torchs: Tensor, exact: Tensor, roundings: int = 1) -> None:
    """Assert the rule."""
    assert ours.shape == exact.shape, f"{name}: shape {tuple(ours.shape)}, expected {tuple(exact.shape)}"
    if not exact.numel():
        return
    error = (ours.double() - exact).abs().max().item()
    theirs = (torchs.double() - exact).abs().max().item()
    allowed = 2 * theirs + roundings * torch.finfo(torchs.dtype).eps * exact.abs().max().item()
    assert error <= allowed, f"{name}: error {error:.3g}, allowed {allowed:.3g} (PyTorch's own {theirs:.3g})"


def check_parity(kernel: Callable, reference: Callable, inputs: dict[str, Any], roundings: int = 1) -> None:
    """Hold outputs and every gradient of a hostile run against the reference in float64."""
    with fenced_allocations(), shuffled_programs():
        ours, our_grads = run(kernel, {k: guarded(v) if isinstance(v, Tensor) else v for k, v in inputs.items()})
    torchs, torch_grads = run(reference, inputs)
    exact, exact_grads = run(reference, inputs, torch.float64)
    assert our_grads.keys() == exact_grads.keys()
    for index, triple in enumerate(zip(ours, torchs, exact, strict=True)):
        hold(f"output {index}", *triple, roundings)
    for name in exact_grads:
        hold(f"gradient of {name}", our_grads[name], torch_grads[name], exact_grads[name], roundings)
