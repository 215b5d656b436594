"""Attention, forward: O = softmax(scale · Q Kᵀ + bias) V for each sequence and head, scores never in memory.

Shapes: Q, K, V (T, N, H) read through their strides; O (T, N, H) contiguous; LSE (N, T) float32, log2 units,
+inf for a query that may look nowhere.
Bytes:  2·e·T·N·H·2 + 4·T·N, with e bytes an element (Q, K, V read, O and LSE written; K and V come again from L2).
FLOPs:  4·N·H·Σ length² (two matrix products).

One program takes BLOCK_M queries of one (sequence, head) and walks the keys BLOCK_N at a time with a running maximum
and sum. The last, ragged key block is peeled off, so that the blocks before it carry no masks: on sm_90 that takes the
inner loop from 682 to 479 instructions.

Reference: Milakov & Gimelshein, Online normalizer calculation for softmax, 2018; Dao, FlashAttention-2, 2023.
"""

import triton
import triton.language as tl

from fastbert.kernels.attention.config_table import config_of
from fastbert.kernels.attention.device import bias_tile, live_pairs, sequence_bounds
from fastbert.kernels.dropout import tile_dropout
from fastbert.kernels.launch import arch_of, cdiv, launch


@triton.jit
def _forward_block(
    q, K, V, KEY_MASK, BIAS, seed, bh, i, j0, length, window, m, norm, acc, scale_log2, threshold, inverse_keep,
    stride_kt, stride_vt, stride_bi,
    H: tl.constexpr, BLOCK_N: tl.constexpr, HAS_MASK: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_BIAS: tl.constexpr,
    DROPOUT: tl.constexpr, PRECISION: tl.constexpr, FULL: tl.constexpr,
):  # fmt: skip
    """One block of keys. FULL: every key of it exists and is live, so that no mask is needed."""
    j = j0 + tl.arange(0, BLOCK_N)
    h = tl.arange(0, H)
    if FULL:
        k = tl.load(K + j[:, None] * stride_kt + h[None, :])
        v = tl.load(V + j[:, None] * stride_vt + h[None, :])
    else:
        k = tl.load(K + j[:, None] * stride_kt + h[None, :], mask=j[:, None] < length, other=0.0)
        v = tl.load(V + j[:, None] * stride_vt + h[None, :], mask=j[:, None] < length, other=0.0)
    s = tl.dot(q, tl.trans(k), input_precision=PRECISION)  # (BLOCK_M, BLOCK_N)
    if HAS_BIAS:
        s = s * scale_log2 + bias_tile(BIAS, i[:, None], j[None, :], length, stride_bi)
        unit = 1.0
    else:
        unit = scale_log2
    if not FULL:
        s = tl.where(
            live_pairs(i[:, None], j[None, :], length, KEY_MASK, window, HAS_MASK, HAS_WINDOW), s, -float("inf")
        )
    m_new = tl.maximum(m, tl.max(s, 1))
    m_unit = m_new * unit
    if HAS_MASK or HAS_WINDOW or HAS_BIAS:
        # a row with nothing live yet has m = -inf, and -inf - -inf is NaN
        m_unit = tl.where(m_new == -float("inf"), 0.0, m_unit)
    p = tl.exp2(s * unit - m_unit[:, None])  # one fused multiply-add an element
    shrink = tl.exp2(m * unit - m_unit)
    norm = norm * shrink + tl.sum(p, 1)
    if DROPOUT:
        p = p * tile_dropout(seed, bh, i, j0, threshold, inverse_keep, BLOCK_N)
    acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision=PRECISION)
    return m_new, norm, acc


@triton.jit(do_not_specialize=["L", "T", "num_tiles"])
def attention_forward_kernel(
    Q, K, V, OUT, LSE, CU_SEQLENS, KEY_MASK, BIAS, SEED, L, N, T, num_tiles, window, scale_log2, threshold,
    inverse_keep, stride_qt, stride_qn, stride_kt, stride_kn, stride_vt, stride_vn, stride_ot, stride_on,
    stride_bb, stride_bn, stride_bi,
    H: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PACKED: tl.constexpr, HAS_MASK: tl.constexpr,
    HAS_WINDOW: tl.constexpr, HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
    PEEL: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    tile = pid % num_tiles
    bh = pid // num_tiles
    b = bh // N
    n = bh % N
    start, length = sequence_bounds(CU_SEQLENS, b, L, T, PACKED)
    i0 = tile * BLOCK_M
    if i0 >= length:
        return
    i = i0 + tl.arange(0, BLOCK_M)
    h = tl.arange(0, H)
    q = tl.load(Q + (start + i[:, None]) * stride_qt + n * stride_qn + h[None, :], mask=i[:, None] < length, other=0.0)
    K += start * stride_kt + n * stride_kn
    V += start * stride_vt + n * stride_vn
    if HAS_MASK:
        KEY_MASK += start
    if HAS_BIAS:
        BIAS += b.to(tl.int64) * stride_bb + n.to(tl.int64) * stride_bn
    seed = 0
    if DROPOUT:
        seed = tl.load(SEED)
    m = tl.full([BLOCK_M], -float("inf"), tl.float32)
    norm = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, H], tl.float32)

    first = 0
    end = length
    if HAS_WINDOW:
        first = tl.maximum(i0 - window, 0) // BLOCK_N * BLOCK_N
        end = tl.minimum(i0 + BLOCK_M + window, length)
    if PEEL:
        first = length // BLOCK_N * BLOCK_N
        for j0 in range(0, first, BLOCK_N):
            m, norm, acc = _forward_block(
                q, K, V, KEY_MASK, BIAS, seed, bh, i, j0, length, window, m, norm, acc, scale_log2, threshold,
                inverse_keep, stride_kt, stride_vt, stride_bi,
                H, BLOCK_N, HAS_MASK, HAS_WINDOW, HAS_BIAS, DROPOUT, PRECISION, True,
            )  # fmt: skip
        if first < end:
            m, norm, acc = _forward_block(
                q, K, V, KEY_MASK, BIAS, seed, bh, i, first, length, window, m, norm, acc, scale_log2, threshold,
                inverse_keep, stride_kt, stride_vt, stride_bi,
                H, BLOCK_N, HAS_MASK, HAS_WINDOW, HAS_BIAS, DROPOUT, PRECISION, False,
            )  # fmt: skip
    else:
        for j0 in range(first, end, BLOCK_N):
            m, norm, acc = _forward_block(
                q, K, V, KEY_MASK, BIAS, seed, bh, i, j0, length, window, m, norm, acc, scale_log2, threshold,
                inverse_keep, stride_kt, stride_vt, stride_bi,
                H, BLOCK_N, HAS_MASK, HAS_WINDOW, HAS_BIAS, DROPOUT, PRECISION, False,
            )  # fmt: skip

    seen = norm > 0
    acc = acc * tl.where(seen, 1.0 / norm, 0.0)[:, None]
    if not HAS_BIAS:
        m = m * scale_log2
    lse = tl.where(seen, m + tl.log2(norm), float("inf"))
    tl.store(LSE + n.to(tl.int64) * T + start + i, lse, mask=i < length)
    o = OUT + (start + i[:, None]) * stride_ot + n * stride_on + h[None, :]
    tl.store(o, acc.to(OUT.dtype.element_ty), mask=i[:, None] < length)


def launch_forward(q, k, v, o, lse, geometry, options) -> None:
    """Fill ``o`` (T, N, H) and ``lse`` (N, T); geometry and options as op.py makes them."""
    config = config_of("forward", arch_of(q), q.element_size(), q.shape[2], geometry["max_seqlen"], options)
    assert config is not None
    num_tiles = cdiv(geometry["max_seqlen"], config.blocks["BLOCK_M"])
    # both loops of a peeled kernel hold Q in registers, float32 as three tf32 parts: at 128 that spills
    crowded = q.element_size() == 4 and q.shape[2] > 64
    peel = not (options["HAS_MASK"] or options["HAS_WINDOW"] or crowded)
    launch(
        attention_forward_kernel, num_tiles * geometry["num_sequences"] * q.shape[1], config,
        Q=q, K=k, V=v, OUT=o, LSE=lse, num_tiles=num_tiles, stride_ot=o.stride(0), stride_on=o.stride(1), PEEL=peel,
        **options,
    )  # fmt: skip
