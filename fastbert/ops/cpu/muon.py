"""Muon's update of every matrix in one call: momentum, iteration, decay, step and the bfloat16 copys; csrc/cpu/muon.h.

PyTorch's form reads and writes each matrix some thirty times between products that know nothing of symmetry; here a
matrix stays in one core's cache from its gradient to its weights, and the cores share the matrices out.

Reference: Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fastbert.ops.cpu import bf16_copies
from fastbert.system.native import compute


def step(
    parameters: Sequence[Tensor], gradients: Sequence[Tensor], momenta: Sequence[Tensor], parts: Sequence[int], *,
    lr: float, momentum: float, weight_decay: float, coefficients: tuple[float, float, float], iterations: int,
    narrow: bool, owner: object,
) -> None:  # fmt: skip
    """Update parameters and momenta in place; all (R, C) float32 in one piece, as :func:`adamw.supports` says.

    Args:
        parts: how many separate maps each parameter stacks along its rows.
        narrow: iterate in bfloat16 where the machine multiplies it, else in float32.
        owner: who will take the next step too; the copys of the weights hold while it lives.
    """
    gradients = [g.float().contiguous() for g in gradients]
    table, steps = [], []
    for p, grad, buffer, count in zip(parameters, gradients, momenta, parts, strict=True):
        copy = bf16_copies.cached_copy(p)
        rows, columns = p.shape[0] // count, p.shape[1]
        for first in range(0, p.shape[0] if columns else 0, max(rows, 1)):
            at = first * columns
            table.append(
                (grad.data_ptr() + 4 * at, p.data_ptr() + 4 * at, buffer.data_ptr() + 4 * at,
                 0 if copy is None else copy.data_ptr() + 2 * at, rows, columns)
            )  # fmt: skip
            steps.append(-lr * max(1.0, rows / columns) ** 0.5)
    compute().cpu_muon(
        np.array(table, dtype=np.int64).reshape(-1, 6), steps, momentum, 1.0 - lr * weight_decay, coefficients,
        iterations, narrow, torch.get_num_threads(),
    )  # fmt: skip
    bf16_copies.mark_updated(parameters, owner)
