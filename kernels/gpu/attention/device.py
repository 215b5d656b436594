"""What the attention kernels share: where a sequence lies, which pairs are live, a tile of bias.

Legend: B sequences, L padded length, T packed tokens, N heads, H head_dim; i query positions, j key positions, both
counted from the start of their sequence.
"""

import triton
import triton.language as tl

# exp(x) = exp2(x · log2 e): the hardware has exp2 only, and the factor folds into the scale of the scores
LOG2_E = 1.4426950408889634


@triton.jit
def sequence_bounds(CU_SEQLENS, b, L, T, PACKED: tl.constexpr):
    """First token and length of sequence ``b``: packed by its cumulative lengths, padded by arithmetic.

    Cumulative lengths that exceed the T tokens are clamped: a wrong argument gives a wrong result, never an
    access outside a tensor, and needs no wait for the device to find out. (A length above L needs no cut: it lies
    within T, and cutting it too cost the backward 7 % more instructions.)
    """
    if PACKED:
        start = tl.maximum(tl.load(CU_SEQLENS + b), 0)
        length = tl.minimum(tl.load(CU_SEQLENS + b + 1), T) - start
    else:
        start = b * L
        length = L
    return start.to(tl.int64), length


@triton.jit
def live_pairs(i, j, length, KEY_MASK, window, HAS_MASK: tl.constexpr, HAS_WINDOW: tl.constexpr):
    """True where query i may look at key j. i and j broadcast to the tile; KEY_MASK starts at the sequence."""
    live = j < length
    if HAS_MASK:
        live = tl.load(KEY_MASK + j, mask=live, other=0) != 0
    if HAS_WINDOW:
        live = live & (i - j <= window) & (j - i <= window)
    return live


@triton.jit
def bias_tile(BIAS, i, j, length, stride_bi):
    """The additive bias of a tile in log2 units; BIAS starts at the (sequence, head)."""
    live = (i < length) & (j < length)
    return tl.load(BIAS + i * stride_bi + j, mask=live, other=0.0).to(tl.float32) * 1.4426950408889634
