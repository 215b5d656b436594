"""AdamW in one pass: clipping, moments, decay, update and the bfloat16 copys of the weights.

PyTorch's clipping reads and writes every gradient once more, its fused AdamW writes no copy: together three more
passes over memory, which is all that an optimizer step costs on a CPU.

Reference: Loshchilov & Hutter, Decoupled Weight Decay Regularization, 2019.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fastbert.ops.cpu import bf16_copies
from fastbert.system.native import compute

_DTYPES = (torch.float32, torch.bfloat16)


def supports(parameters: Sequence[Tensor]) -> bool:
    """Whether every one is a plain float32 tensor on the CPU, in one piece."""
    return all(type(p.data) is Tensor and p.device.type == "cpu" and p.dtype == torch.float32 and p.is_contiguous()
               for p in parameters)  # fmt: skip


def _table(parameters, gradients, means, squares, kept) -> np.ndarray:
    """A row for each parameter; csrc/bindings/rows.cpp knows the columns."""
    rows = []
    for p, grad, mean, square, index in zip(parameters, gradients, means, squares, kept, strict=True):
        copy = bf16_copies.cached_copy(p)
        rows.append(
            (grad.data_ptr(), grad.dtype == torch.bfloat16, p.data_ptr(), mean.data_ptr(), square.data_ptr(),
             0 if copy is None else copy.data_ptr(), p.numel(), index)
        )  # fmt: skip
    return np.array(rows, dtype=np.int64).reshape(-1, 8)


def gradient_norm(gradients: Sequence[Tensor]) -> Tensor:
    """√ of the sum of all squares, summed in an order that does not depend on the threads."""
    gradients = [g.contiguous() for g in gradients]
    table = np.array([(g.data_ptr(), g.dtype == torch.bfloat16, 0, 0, 0, 0, g.numel(), 0) for g in gradients], np.int64)
    norm = compute().cpu_gradient_norm(table.reshape(-1, 8), torch.get_num_threads())
    return torch.tensor(norm, dtype=torch.float32)


def step(
    parameters: Sequence[Tensor], gradients: Sequence[Tensor], means: Sequence[Tensor], squares: Sequence[Tensor],
    decays: Sequence[float], *, lr: float, betas: tuple[float, float], eps: float, count: int, grad_scale: float = 1.0,
    owner: object,
) -> None:  # fmt: skip
    """Update parameters and both moments in place; ``count`` is the number of this step, from 1.

    Args:
        decays: decoupled weight decay of each parameter.
        grad_scale: multiplies every gradient, for clipping.
        owner: who will take the next step too; the copys of the weights hold while it lives.
    """
    gradients = [g.contiguous() for g in gradients]
    different = sorted(set(decays))
    table = _table(parameters, gradients, means, squares, [different.index(d) for d in decays])
    first, second = 1.0 - betas[0] ** count, 1.0 - betas[1] ** count
    compute().cpu_adamw(
        table, [1.0 - lr * d for d in different], grad_scale, *betas, lr / first, second**-0.5, eps,
        torch.get_num_threads(),
    )  # fmt: skip
    bf16_copies.mark_updated(parameters, owner)
