"""Rotary position embedding: pairs (i, i + H/2) of each head turned by their token's angle.

    y₁ = x₁ cos − x₂ sin        y₂ = x₂ cos + x₁ sin          the backward is the same turn with −sin

Shapes: x, y (T, N, H), x at any token and head stride; cos, sin (T, H/2), shared by the heads.
Bytes:  2·e·T·N·H + 2·e·T·H/2. FLOPs: 3·T·N·H. cos and sin are tables and get no gradient.

Reference: Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastbert.kernels import configs
from fastbert.kernels.launch import Config, arch_of, cdiv, launch, within_31_bits


@triton.jit
def rotary_kernel(
    X, COS, SIN, Y, T, N, stride_xt, stride_xn, stride_ct, stride_st,
    HALF: tl.constexpr, BLOCK_T: tl.constexpr, BACKWARD: tl.constexpr,
):  # fmt: skip
    t = tl.program_id(0).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    h = tl.arange(0, HALF)
    mask = t[:, None] < T
    cos = tl.load(COS + t[:, None] * stride_ct + h[None, :], mask=mask, other=0.0).to(tl.float32)
    sin = tl.load(SIN + t[:, None] * stride_st + h[None, :], mask=mask, other=0.0).to(tl.float32)
    if BACKWARD:
        sin = -sin
    for n in range(0, N):
        x = X + t[:, None] * stride_xt + n * stride_xn + h[None, :]
        first = tl.load(x, mask=mask, other=0.0).to(tl.float32)
        second = tl.load(x + HALF, mask=mask, other=0.0).to(tl.float32)
        y = Y + (t[:, None] * N + n) * (2 * HALF) + h[None, :]
        tl.store(y, (first * cos - second * sin).to(Y.dtype.element_ty), mask=mask)
        tl.store(y + HALF, (second * cos + first * sin).to(Y.dtype.element_ty), mask=mask)


def turn(x: Tensor, cos: Tensor, sin: Tensor, backward: bool) -> Tensor:
    """x (T, N, H) turned, or turned back; contiguous."""
    total, num_heads, head_dim = x.shape
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    x, cos, sin = (z if z.stride(-1) == 1 else z.contiguous() for z in (x, cos, sin))
    x = within_31_bits(x, 1)
    arch = arch_of(x)
    block_t = 16 if arch == "interpreter" else max(2048 // head_dim, 1)  # eight elements, 16 bytes, a thread
    config = configs.pick("rotary", arch, x.element_size(), head_dim, Config({"BLOCK_T": block_t}, 4, 2))
    launch(
        rotary_kernel, cdiv(total, config.blocks["BLOCK_T"]), config,
        X=x, COS=cos, SIN=sin, Y=y, T=total, N=num_heads, stride_xt=x.stride(0), stride_xn=x.stride(1),
        stride_ct=cos.stride(0), stride_st=sin.stride(0), HALF=head_dim // 2, BACKWARD=backward,
    )  # fmt: skip
    return y


_turn = torch.library.custom_op("fastbert::rotary", turn, mutates_args=())


@_turn.register_fake
def _(x, cos, sin, backward):
    return x.new_empty(x.shape)


def _setup_context(ctx, inputs, output) -> None:
    _x, cos, sin, ctx.backward = inputs
    ctx.save_for_backward(cos, sin)


def _gradients(ctx, grad_y):
    return torch.ops.fastbert.rotary(grad_y, *ctx.saved_tensors, not ctx.backward), None, None, None


_turn.register_autograd(_gradients, setup_context=_setup_context)


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x (…, N, H) by cos and sin (…, H / 2) in Triton, float32 inside; gradients for x only."""
    half = x.shape[-1] // 2
    leading = x.shape[:-2]
    cos, sin = (table.expand(*leading, half).reshape(-1, half) for table in (cos, sin))
    return torch.ops.fastbert.rotary(x.reshape(-1, *x.shape[-2:]), cos, sin, False).view(x.shape)
