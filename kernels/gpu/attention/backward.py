"""Attention, backward, recomputing the probabilities P = exp2(S - LSE) tile by tile; no atomics.

With Z the dropout factors (0 or 1/(1-p)), dP = (dO Vᵀ) ∘ Z and delta = rowsum(O ∘ dO):
    dV = (P ∘ Z)ᵀ dO      dS = P ∘ (dP - delta)      dK = scale · dSᵀ Q      dQ = scale · dS K      dbias = dS

Sequences up to 128 tokens take one launch, one program a (sequence, head): five matrix products and nothing read twice.
Longer ones take three: delta; dK and dV by blocks of keys; dQ by blocks of queries (seven products, no shared writes).

Shapes: as the forward; dQ, dK, dV (T, N, H) contiguous.
Bytes:  one-block 2·8·T·N·H + 4·T·N at 2 bytes an element. FLOPs: 10·N·H·Σ length² (one-block), 14 otherwise.

Reference: Dao, FlashAttention-2, 2023, algorithm 2.
"""

import triton
import triton.language as tl

from fastbert.kernels.attention.config_table import config_of
from fastbert.kernels.attention.device import bias_tile, live_pairs, sequence_bounds
from fastbert.kernels.dropout import tile_dropout
from fastbert.kernels.launch import Config, arch_of, cdiv, launch


@triton.jit
def _transposed_scores_gradient(
    q, k, v, do, lse, delta, KEY_MASK, BIAS, seed, bh, i, j, j0, length, window, scale_log2, threshold, inverse_keep,
    stride_bi, HAS_MASK: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr, MASK_TAIL: tl.constexpr,
):  # fmt: skip
    """(P ∘ Z)ᵀ and dSᵀ of a tile, keys down and queries across."""
    s = tl.dot(k, tl.trans(q), input_precision=PRECISION) * scale_log2  # (BLOCK_N, BLOCK_M)
    if HAS_BIAS:
        s += bias_tile(BIAS, i[None, :], j[:, None], length, stride_bi)
    p = tl.exp2(s - lse[None, :])
    if MASK_TAIL or HAS_MASK or HAS_WINDOW:
        p = tl.where(live_pairs(i[None, :], j[:, None], length, KEY_MASK, window, HAS_MASK, HAS_WINDOW), p, 0.0)
    dp = tl.dot(v, tl.trans(do), input_precision=PRECISION)
    dropped = p
    if DROPOUT:
        z = tl.trans(tile_dropout(seed, bh, i, j0, threshold, inverse_keep, j.shape[0]))
        dropped = p * z
        dp = dp * z
    return dropped, p * (dp - delta[None, :])


@triton.jit
def scores_gradient(
    q, k, v, do, lse, delta, KEY_MASK, BIAS, seed, bh, i, j, j0, length, window, scale_log2, threshold, inverse_keep,
    stride_bi, HAS_MASK: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """dS of a tile, queries down and keys across."""
    s = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale_log2  # (BLOCK_M, BLOCK_N)
    if HAS_BIAS:
        s += bias_tile(BIAS, i[:, None], j[None, :], length, stride_bi)
    # keys past the end have score 0, and exp2(0 - lse) may overflow: inf · 0 in the product with K would be NaN
    live = live_pairs(i[:, None], j[None, :], length, KEY_MASK, window, HAS_MASK, HAS_WINDOW)
    p = tl.exp2(tl.where(live, s, -float("inf")) - lse[:, None])
    dp = tl.dot(do, tl.trans(v), input_precision=PRECISION)
    if DROPOUT:
        dp = dp * tile_dropout(seed, bh, i, j0, threshold, inverse_keep, j.shape[0])
    return p * (dp - delta[:, None])


@triton.jit(do_not_specialize=["T", "num_tiles"])
def attention_delta_kernel(
    OUT, DO, DELTA, N, T, num_tiles, stride_ot, stride_on, stride_dt, stride_dn, H: tl.constexpr, BLOCK_M: tl.constexpr
):
    """delta (N, T) = rowsum(O ∘ dO), which is what the softmax subtracts from dP."""
    pid = tl.program_id(0)
    n = pid // num_tiles
    t = (pid % num_tiles).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    h = tl.arange(0, H)
    live = t[:, None] < T
    o = tl.load(OUT + t[:, None] * stride_ot + n * stride_on + h[None, :], mask=live, other=0.0).to(tl.float32)
    do = tl.load(DO + t[:, None] * stride_dt + n * stride_dn + h[None, :], mask=live, other=0.0).to(tl.float32)
    tl.store(DELTA + n.to(tl.int64) * T + t, tl.sum(o * do, 1), mask=t < T)


@triton.jit(do_not_specialize=["L", "T", "num_tiles"])
def attention_backward_keys_kernel(
    Q, K, V, DO, LSE, DELTA, DK, DV, CU_SEQLENS, KEY_MASK, BIAS, SEED, L, N, T, num_tiles, window, scale, scale_log2,
    threshold, inverse_keep, stride_qt, stride_qn, stride_kt, stride_kn, stride_vt, stride_vn, stride_dt, stride_dn,
    stride_gt, stride_gn, stride_bb, stride_bn, stride_bi,
    H: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PACKED: tl.constexpr, HAS_MASK: tl.constexpr,
    HAS_WINDOW: tl.constexpr, HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dK and dV of one block of keys: walks the queries."""
    pid = tl.program_id(0)
    tile = pid % num_tiles
    bh = pid // num_tiles
    b = bh // N
    n = bh % N
    start, length = sequence_bounds(CU_SEQLENS, b, L, T, PACKED)
    j0 = tile * BLOCK_N
    if j0 >= length:
        return
    j = j0 + tl.arange(0, BLOCK_N)
    h = tl.arange(0, H)
    real = j[:, None] < length
    k = tl.load(K + (start + j[:, None]) * stride_kt + n * stride_kn + h[None, :], mask=real, other=0.0)
    v = tl.load(V + (start + j[:, None]) * stride_vt + n * stride_vn + h[None, :], mask=real, other=0.0)
    Q += start * stride_qt + n * stride_qn
    DO += start * stride_dt + n * stride_dn
    LSE += n.to(tl.int64) * T + start
    DELTA += n.to(tl.int64) * T + start
    if HAS_MASK:
        KEY_MASK += start
    if HAS_BIAS:
        BIAS += b.to(tl.int64) * stride_bb + n.to(tl.int64) * stride_bn
    seed = 0
    if DROPOUT:
        seed = tl.load(SEED)
    first = 0
    end = length
    if HAS_WINDOW:
        first = tl.maximum(j0 - window, 0) // BLOCK_M * BLOCK_M
        end = tl.minimum(j0 + BLOCK_N + window, length)
    dk = tl.zeros([BLOCK_N, H], tl.float32)
    dv = tl.zeros([BLOCK_N, H], tl.float32)
    for i0 in range(first, end, BLOCK_M):
        i = i0 + tl.arange(0, BLOCK_M)
        q = tl.load(Q + i[:, None] * stride_qt + h[None, :], mask=i[:, None] < length, other=0.0)
        do = tl.load(DO + i[:, None] * stride_dt + h[None, :], mask=i[:, None] < length, other=0.0)
        # +inf: a query past the end has probability 0 everywhere
        lse = tl.load(LSE + i, mask=i < length, other=float("inf"))
        delta = tl.load(DELTA + i, mask=i < length, other=0.0)
        p, ds = _transposed_scores_gradient(
            q, k, v, do, lse, delta, KEY_MASK, BIAS, seed, bh, i, j, j0, length, window, scale_log2, threshold,
            inverse_keep, stride_bi, HAS_MASK, HAS_WINDOW, HAS_BIAS, DROPOUT, PRECISION, False,
        )  # fmt: skip
        dv = tl.dot(p.to(do.dtype), do, dv, input_precision=PRECISION)
        dk = tl.dot(ds.to(q.dtype), q, dk, input_precision=PRECISION)
    grad = (start + j[:, None]) * stride_gt + n * stride_gn + h[None, :]
    tl.store(DK + grad, (dk * scale).to(DK.dtype.element_ty), mask=real)
    tl.store(DV + grad, dv.to(DV.dtype.element_ty), mask=real)


@triton.jit(do_not_specialize=["L", "T", "num_tiles"])
def attention_backward_queries_kernel(
    Q, K, V, DO, LSE, DELTA, DQ, CU_SEQLENS, KEY_MASK, BIAS, SEED, L, N, T, num_tiles, window, scale, scale_log2,
    threshold, inverse_keep, stride_qt, stride_qn, stride_kt, stride_kn, stride_vt, stride_vn, stride_dt, stride_dn,
    stride_gt, stride_gn, stride_bb, stride_bn, stride_bi,
    H: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PACKED: tl.constexpr, HAS_MASK: tl.constexpr,
    HAS_WINDOW: tl.constexpr, HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dQ of one block of queries: walks the keys."""
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
    real = i[:, None] < length
    q = tl.load(Q + (start + i[:, None]) * stride_qt + n * stride_qn + h[None, :], mask=real, other=0.0)
    do = tl.load(DO + (start + i[:, None]) * stride_dt + n * stride_dn + h[None, :], mask=real, other=0.0)
    row = n.to(tl.int64) * T + start + i
    lse = tl.load(LSE + row, mask=i < length, other=float("inf"))
    delta = tl.load(DELTA + row, mask=i < length, other=0.0)
    K += start * stride_kt + n * stride_kn
    V += start * stride_vt + n * stride_vn
    if HAS_MASK:
        KEY_MASK += start
    if HAS_BIAS:
        BIAS += b.to(tl.int64) * stride_bb + n.to(tl.int64) * stride_bn
    seed = 0
    if DROPOUT:
        seed = tl.load(SEED)
    first = 0
    end = length
    if HAS_WINDOW:
        first = tl.maximum(i0 - window, 0) // BLOCK_N * BLOCK_N
        end = tl.minimum(i0 + BLOCK_M + window, length)
    dq = tl.zeros([BLOCK_M, H], tl.float32)
    for j0 in range(first, end, BLOCK_N):
        j = j0 + tl.arange(0, BLOCK_N)
        k = tl.load(K + j[:, None] * stride_kt + h[None, :], mask=j[:, None] < length, other=0.0)
        v = tl.load(V + j[:, None] * stride_vt + h[None, :], mask=j[:, None] < length, other=0.0)
        ds = scores_gradient(
            q, k, v, do, lse, delta, KEY_MASK, BIAS, seed, bh, i, j, j0, length, window, scale_log2, threshold,
            inverse_keep, stride_bi, HAS_MASK, HAS_WINDOW, HAS_BIAS, DROPOUT, PRECISION,
        )  # fmt: skip
        dq = tl.dot(ds.to(k.dtype), k, dq, input_precision=PRECISION)
    grad = (start + i[:, None]) * stride_gt + n * stride_gn + h[None, :]
    tl.store(DQ + grad, (dq * scale).to(DQ.dtype.element_ty), mask=real)


@triton.jit(do_not_specialize=["L", "T"])
def attention_backward_one_block_kernel(
    Q, K, V, OUT, DO, LSE, DQ, DK, DV, CU_SEQLENS, KEY_MASK, BIAS, SEED, L, N, T, window, scale, scale_log2, threshold,
    inverse_keep, stride_qt, stride_qn, stride_kt, stride_kn, stride_vt, stride_vn, stride_ot, stride_on, stride_dt,
    stride_dn, stride_gt, stride_gn, stride_bb, stride_bn, stride_bi,
    H: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PACKED: tl.constexpr, HAS_MASK: tl.constexpr,
    HAS_WINDOW: tl.constexpr, HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dQ, dK, dV of one whole sequence and head: all its keys are one block."""
    bh = tl.program_id(0)
    b = bh // N
    n = bh % N
    start, length = sequence_bounds(CU_SEQLENS, b, L, T, PACKED)
    j = tl.arange(0, BLOCK_N)
    h = tl.arange(0, H)
    real = j[:, None] < length
    k = tl.load(K + (start + j[:, None]) * stride_kt + n * stride_kn + h[None, :], mask=real, other=0.0)
    v = tl.load(V + (start + j[:, None]) * stride_vt + n * stride_vn + h[None, :], mask=real, other=0.0)
    Q += start * stride_qt + n * stride_qn
    OUT += start * stride_ot + n * stride_on
    DO += start * stride_dt + n * stride_dn
    DQ += start * stride_gt + n * stride_gn
    LSE += n.to(tl.int64) * T + start
    if HAS_MASK:
        KEY_MASK += start
    if HAS_BIAS:
        BIAS += b.to(tl.int64) * stride_bb + n.to(tl.int64) * stride_bn
    seed = 0
    if DROPOUT:
        seed = tl.load(SEED)
    dk = tl.zeros([BLOCK_N, H], tl.float32)
    dv = tl.zeros([BLOCK_N, H], tl.float32)
    for i0 in range(0, length, BLOCK_M):
        i = i0 + tl.arange(0, BLOCK_M)
        there = i[:, None] < length
        q = tl.load(Q + i[:, None] * stride_qt + h[None, :], mask=there, other=0.0)
        o = tl.load(OUT + i[:, None] * stride_ot + h[None, :], mask=there, other=0.0)
        do = tl.load(DO + i[:, None] * stride_dt + h[None, :], mask=there, other=0.0)
        lse = tl.load(LSE + i, mask=i < length, other=float("inf"))
        delta = tl.sum(o.to(tl.float32) * do.to(tl.float32), 1)
        p, ds = _transposed_scores_gradient(
            q, k, v, do, lse, delta, KEY_MASK, BIAS, seed, bh, i, j, 0, length, window, scale_log2, threshold,
            inverse_keep, stride_bi, HAS_MASK, HAS_WINDOW, HAS_BIAS, DROPOUT, PRECISION, True,
        )  # fmt: skip
        ds = ds.to(q.dtype)
        dv = tl.dot(p.to(do.dtype), do, dv, input_precision=PRECISION)
        dk = tl.dot(ds, q, dk, input_precision=PRECISION)
        dq = tl.dot(tl.trans(ds), k, input_precision=PRECISION) * scale
        tl.store(DQ + i[:, None] * stride_gt + h[None, :], dq.to(DQ.dtype.element_ty), mask=there)
    grad = (start + j[:, None]) * stride_gt + n * stride_gn + h[None, :]
    tl.store(DK + grad, (dk * scale).to(DK.dtype.element_ty), mask=real)
    tl.store(DV + grad, dv.to(DV.dtype.element_ty), mask=real)


def launch_delta(o, grad_out, delta) -> None:
    """Fill ``delta`` (N, T) from two (T, N, H) tensors."""
    total, num_heads, head_dim = o.shape
    config = Config({"BLOCK_M": 64})
    num_tiles = cdiv(total, 64)
    launch(
        attention_delta_kernel, num_tiles * num_heads, config,
        OUT=o, DO=grad_out, DELTA=delta, N=num_heads, T=total, num_tiles=num_tiles,
        stride_ot=o.stride(0), stride_on=o.stride(1), stride_dt=grad_out.stride(0), stride_dn=grad_out.stride(1),
        H=head_dim,
    )  # fmt: skip


def needs_delta(q, geometry, options) -> bool:
    """Whether :func:`launch_backward` is several launches, with delta between them."""
    return config_of("one_block", arch_of(q), q.element_size(), q.shape[2], geometry["max_seqlen"], options) is None


def launch_backward(q, k, v, o, grad_out, lse, grads, delta, geometry, options) -> None:
    """Fill ``grads`` = (dq, dk, dv), which share their strides, and ``delta`` (N, T) where :func:`needs_delta`.

    ``options`` are the forward's; see :func:`fastbert.kernels.attention.op.launch_options`.
    """
    arch, itemsize, head_dim = arch_of(q), q.element_size(), q.shape[2]
    max_seqlen, num_programs = geometry["max_seqlen"], geometry["num_sequences"] * q.shape[1]
    dq, dk, dv = grads
    shared = {
        **options, "Q": q, "K": k, "V": v, "DO": grad_out, "LSE": lse, "scale": geometry["scale"],
        "stride_dt": grad_out.stride(0), "stride_dn": grad_out.stride(1),
        "stride_gt": dq.stride(0), "stride_gn": dq.stride(1),
    }  # fmt: skip
    shape = (arch, itemsize, head_dim, max_seqlen, options)
    if delta is None:
        config = config_of("one_block", *shape)
        assert config is not None
        launch(
            attention_backward_one_block_kernel, num_programs, config,
            OUT=o, DQ=dq, DK=dk, DV=dv, stride_ot=o.stride(0), stride_on=o.stride(1), **shared,
        )  # fmt: skip
        return
    launch_delta(o, grad_out, delta)
    config = config_of("keys", *shape)
    assert config is not None
    num_tiles = cdiv(max_seqlen, config.blocks["BLOCK_N"])
    launch(
        attention_backward_keys_kernel, num_tiles * num_programs, config,
        DELTA=delta, DK=dk, DV=dv, num_tiles=num_tiles, **shared,
    )  # fmt: skip
    config = config_of("queries", *shape)
    assert config is not None
    num_tiles = cdiv(max_seqlen, config.blocks["BLOCK_M"])
    launch(
        attention_backward_queries_kernel, num_tiles * num_programs, config,
        DELTA=delta, DQ=dq, num_tiles=num_tiles, **shared,
    )  # fmt: skip
