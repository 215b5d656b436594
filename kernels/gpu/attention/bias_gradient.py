"""The gradient of attention's additive bias: dbias[b, n, i, j] = dS, summed over b where the bias is shared.

One program takes one (i, j) tile of one head and walks the sequences that share it, so that every element is written
once, in one order. Costs two matrix products a tile and sequence; only run when the bias asks for a gradient.

Shapes: DBIAS (1 or B, N, L, L) contiguous float32. FLOPs: 4·N·H·Σ length².
"""

import triton
import triton.language as tl

from fastbert.kernels import configs
from fastbert.kernels.attention.backward import scores_gradient
from fastbert.kernels.attention.device import sequence_bounds
from fastbert.kernels.launch import BIG_SHARED_MEMORY, arch_of, cdiv, launch


@triton.jit(do_not_specialize=["L", "T", "B", "num_tiles", "bias_length"])
def attention_bias_gradient_kernel(
    Q, K, V, DO, LSE, DELTA, DBIAS, CU_SEQLENS, KEY_MASK, BIAS, SEED, L, N, T, B, num_tiles, bias_length, window,
    scale_log2, threshold, inverse_keep, stride_qt, stride_qn, stride_kt, stride_kn, stride_vt, stride_vn, stride_dt,
    stride_dn, stride_bb, stride_bn, stride_bi,
    H: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PACKED: tl.constexpr, HAS_MASK: tl.constexpr,
    HAS_WINDOW: tl.constexpr, HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
    SHARED: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    tile = pid % (num_tiles * num_tiles)
    n = pid // (num_tiles * num_tiles) % N
    group = pid // (num_tiles * num_tiles) // N  # the one sequence, or 0 for all of them
    i0 = tile // num_tiles * BLOCK_M
    j0 = tile % num_tiles * BLOCK_N
    i = i0 + tl.arange(0, BLOCK_M)
    j = j0 + tl.arange(0, BLOCK_N)
    h = tl.arange(0, H)
    seed = 0
    if DROPOUT:
        seed = tl.load(SEED)
    first = group
    end = group + 1
    if SHARED:
        end = B
    acc = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for b in range(first, end):
        start, length = sequence_bounds(CU_SEQLENS, b, L, T, PACKED)
        real_i = i[:, None] < length
        real_j = j[:, None] < length
        q = tl.load(Q + (start + i[:, None]) * stride_qt + n * stride_qn + h[None, :], mask=real_i, other=0.0)
        do = tl.load(DO + (start + i[:, None]) * stride_dt + n * stride_dn + h[None, :], mask=real_i, other=0.0)
        k = tl.load(K + (start + j[:, None]) * stride_kt + n * stride_kn + h[None, :], mask=real_j, other=0.0)
        v = tl.load(V + (start + j[:, None]) * stride_vt + n * stride_vn + h[None, :], mask=real_j, other=0.0)
        row = n.to(tl.int64) * T + start + i
        lse = tl.load(LSE + row, mask=i < length, other=float("inf"))
        delta = tl.load(DELTA + row, mask=i < length, other=0.0)
        keys = KEY_MASK
        if HAS_MASK:
            keys = KEY_MASK + start
        bias = BIAS + tl.cast(b, tl.int64) * stride_bb + n.to(tl.int64) * stride_bn
        acc += scores_gradient(
            q, k, v, do, lse, delta, keys, bias, seed, b * N + n, i, j, j0, length, window, scale_log2, threshold,
            inverse_keep, stride_bi, HAS_MASK, HAS_WINDOW, HAS_BIAS, DROPOUT, PRECISION,
        )  # fmt: skip
    out = DBIAS + (group * N + n).to(tl.int64) * bias_length * bias_length + i[:, None] * bias_length + j[None, :]
    tl.store(out, acc, mask=(i[:, None] < bias_length) & (j[None, :] < bias_length))


def launch_bias_gradient(q, k, v, grad_out, lse, delta, dbias, geometry, options) -> None:
    """Fill ``dbias`` (1 or B, N, L, L) float32; ``delta`` from :func:`.launch_delta`."""
    arch = arch_of(q)
    if arch == "interpreter" or q.element_size() == 4:
        tile = (16, 16, 4, 1)
    else:
        tile = (64, 64, 8, 2) if arch in BIG_SHARED_MEMORY else (32, 32, 8, 2)
    static = configs.tile(*tile)
    config = configs.pick("attention_bias_gradient", arch, q.element_size(), q.shape[2], static)
    groups, num_heads, bias_length, _ = dbias.shape
    num_tiles = cdiv(bias_length, config.blocks["BLOCK_M"])
    launch(
        attention_bias_gradient_kernel,
        num_tiles * num_tiles * num_heads * groups,
        config,
        Q=q,
        K=k,
        V=v,
        DO=grad_out,
        LSE=lse,
        DELTA=delta,
        DBIAS=dbias,
        B=geometry["num_sequences"],
        num_tiles=num_tiles,
        bias_length=bias_length,
        stride_dt=grad_out.stride(0),
        stride_dn=grad_out.stride(1),
        SHARED=groups == 1,
        **options,
    )
