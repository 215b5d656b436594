"""Dropout by counter: csrc/cpu/dropout.h.

    out = (x + bias) · z,   z = 0 with probability p, else 1 / (1 − p)

Whether an element is dropped is a function of (seed, row, column), so the backward draws again and keeps no mask.
Probabilities are taken to the next of 65,536ths, and 1 / (1 − p) is of that one.

Reference: Srivastava et al., Dropout, 2014; Salmon et al., Parallel Random Numbers, 2011 (Philox).
"""

import torch
from torch import Tensor

from fastbert.ops.cpu import rows
from fastbert.ops.cpu.second_order import under_create_graph
from fastbert.system.native import compute


def draw_seed() -> int:
    """The next seed of torch's generator: ``torch.manual_seed`` makes everything that is dropped repeatable."""
    return int(torch.randint(0, 2**63 - 1, (), dtype=torch.int64))


def drop(x: Tensor, bias: Tensor | None, dropout_p: float, seed: int, in_place: bool = False) -> Tensor:
    """(T, D) of contiguous x (T, D)."""
    out = x if in_place else torch.empty_like(x)
    compute().cpu_dropout(
        x.dtype == rows.BF16, bias is not None and bias.dtype == rows.BF16, x.shape[0], x.shape[1], x.data_ptr(),
        rows.address(bias), out.data_ptr(), dropout_p, seed, torch.get_num_threads(),
    )  # fmt: skip
    return out


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, dropout_p, seed):
        ctx.how = dropout_p, seed
        return drop(x, None, dropout_p, seed)

    @staticmethod
    @under_create_graph(lambda ctx, grad: (_Dropout.apply(grad.contiguous(), *ctx.how), None, None))
    def backward(ctx, grad):
        return drop(grad.contiguous(), None, *ctx.how), None, None


def dropout(x: Tensor, dropout_p: float) -> Tensor:
    """x (…, D) · z; semantics of :func:`torch.nn.functional.dropout` in training."""
    return _Dropout.apply(rows.flat(x), dropout_p, draw_seed()).view(x.shape)


def add_layer_norm(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    eps: float,
    *,
    dropout_p: float = 0.0,
    return_sum: bool = False,
):
    """LayerNorm(residual + dropout(x)); semantics of :func:`fastbert.reference.add_layer_norm`."""
    x = dropout(x, dropout_p) if dropout_p else x
    return rows.add_layer_norm(x, residual, weight, bias, eps, return_sum=return_sum)
