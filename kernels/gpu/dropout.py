"""Dropout from a counter: factors depend on (seed, place) alone, so a backward draws what its forward drew.

Reference: Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, 2011.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def row_dropout(seed, row, threshold, inverse_keep, BLOCK: tl.constexpr):
    """(BLOCK,) factors, 0 or 1/(1-p), of one row; Philox returns four numbers per call, for columns 4g … 4g+3."""
    group = tl.arange(0, BLOCK // 4)
    zero = tl.zeros_like(group)
    r0, r1, r2, r3 = tl.philox(seed, zero + tl.cast(row, tl.int32), group, zero, zero)
    # (BLOCK/4, 2, 2), the last two axes counting 0 1 2 3
    r = tl.reshape(tl.join(tl.join(r0, r2), tl.join(r1, r3)), (BLOCK,)).to(tl.int32, bitcast=True)
    return tl.where(r >= threshold, inverse_keep, 0.0)


@triton.jit
def tile_dropout(seed, bh, i, j0, threshold, inverse_keep, COLUMNS: tl.constexpr):
    """(rows, COLUMNS) factors of one attention head: query positions ``i`` (rows,), keys j0 … j0 + COLUMNS."""
    group = j0 // 4 + tl.arange(0, COLUMNS // 4)
    i = i[:, None] + tl.zeros_like(group)[None, :]
    group = group[None, :] + tl.zeros_like(i)
    r0, r1, r2, r3 = tl.philox(seed, i, group, tl.zeros_like(i) + bh, tl.zeros_like(i))
    r = tl.join(tl.join(r0, r2), tl.join(r1, r3))
    r = tl.reshape(r, (i.shape[0], COLUMNS)).to(tl.int32, bitcast=True)
    return tl.where(r >= threshold, inverse_keep, 0.0)


def threshold_of(p: float) -> int:
    """The signed 32-bit number that a uniform one falls below with probability ``p``."""
    return min(int(p * 2**32), 2**32 - 1) - 2**31


def seed_tensor(seed: int | None, device: torch.device) -> Tensor:
    """(1,) int64 on the device: no wait for the device, and torch.compile and checkpointing see the generator."""
    if seed is None:
        return torch.randint(0, 2**62, (1,), device=device)
    # every seed of 64 bits has a number of its own, the upper half the negative ones
    return torch.full((1,), (seed + 2**63) % 2**64 - 2**63, dtype=torch.int64, device=device)
