"""A layer in eager mode as two autograd functions, which call the launchers and cuBLAS directly.

    attend:  s = x + residual    inner = LayerNorm(s)    out = attention(turn(inner Wᵀ + b)) W'ᵀ + b'
    feed:    s = x + residual    inner = LayerNorm(s)    out = act(inner W₁ᵀ + b₁) W₂ᵀ + b₂
    and for a layer with its norms after, in ``feed``, y = LayerNorm(out + inner)

Each op of its own costs the host a choice of implementation, an autograd node and its arguments' binding; here a half
has one of each. The values are those of the separate ops.

Shapes: x, residual, s, out (T, D); the products in autocast's dtype, or x's.

Reference: Vaswani et al., Attention Is All You Need, 2017; Xiong et al., On Layer Normalization in the Transformer
Architecture, 2020.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastbert.kernels import gelu
from fastbert.kernels import norm as layer_norm
from fastbert.kernels.attention import op, qkv
from fastbert.kernels.dropout import seed_tensor

Linear = tuple[Tensor, Tensor | None]  # weight and bias
Norm = tuple[Tensor, Tensor | None, float]  # weight, bias and eps


def _product_dtype(x: Tensor) -> torch.dtype:
    return torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x Wᵀ + b, all of x's dtype but b."""
    return F.linear(x, weight, None if bias is None else bias.to(x.dtype))


def _linear_gradients(
    ctx: Any, position: int, grad: Tensor, x: Tensor, weight: Tensor, dtypes: tuple[torch.dtype, torch.dtype | None]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """dx, dW and db of :func:`_linear`; W is argument ``position`` and b the next."""
    dweight = torch.mm(grad.t(), x).to(dtypes[0]) if ctx.needs_input_grad[position] else None
    dbias = None
    if dtypes[1] is not None and ctx.needs_input_grad[position + 1]:
        dbias = grad.sum(0, dtype=torch.float32).to(dtypes[1])
    return torch.mm(grad, weight), dweight, dbias


def _dtype(x: Tensor | None) -> torch.dtype | None:
    return None if x is None else x.dtype


def _norm_gradients(
    grad: Tensor, grad_sum: Tensor | None, saved: tuple, dropout_p: float, dtypes: tuple
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """dx, dresidual, dweight, dbias of an ``add_layer_norm``."""
    total, weight, mean, rstd, seed = saved
    x_dtype, residual_dtype, bias_dtype = dtypes
    if grad_sum is not None and not grad_sum.numel():
        grad_sum = None
    dx, dresidual, (dweight, dbias) = layer_norm.backward(
        grad, grad_sum, total, weight, mean, rstd, seed, dropout_p, x_dtype, residual_dtype
    )
    if residual_dtype is None:
        dresidual = None
    elif not dresidual.numel():
        dresidual = dx
    return dx, dresidual, dweight.to(weight.dtype), None if bias_dtype is None else dbias.to(bias_dtype)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, x, residual, norm_weight, norm_bias, qkv_weight, qkv_bias, out_weight, out_bias, cos, sin, cu_seqlens,
        seed, attention_seed, eps, dropout_p, attention_p, num_heads, max_seqlen, window, dtype,
    ):  # fmt: skip
        total = mean = rstd = None
        inner, summed = x, x.new_empty((0,))
        if norm_weight is not None:
            keep = residual is not None
            inner, summed, mean, rstd = layer_norm.forward(
                x, residual, norm_weight, norm_bias, seed, eps, dropout_p, keep, dtype
            )
            total = summed if keep else x
        inner = inner.to(dtype)
        into, out_of = qkv_weight.to(dtype), out_weight.to(dtype)
        heads = _linear(inner, into, qkv_bias).view(x.shape[0], 3, num_heads, -1)
        ctx.numbers = max_seqlen, window, heads.shape[-1] ** -0.5, attention_p
        o, lse, turned = qkv.forward(heads, cos, sin, cu_seqlens, None, None, attention_seed, *ctx.numbers)
        out = _linear(o.view(x.shape), out_of, out_bias)
        ctx.save_for_backward(
            total, norm_weight, mean, rstd, seed, inner, into, heads, turned, o, lse, cos, sin, cu_seqlens,
            attention_seed, out_of,
        )  # fmt: skip
        ctx.dropout_p = dropout_p
        ctx.norm_dtypes = x.dtype, _dtype(residual), _dtype(norm_bias)
        ctx.dtypes = (qkv_weight.dtype, _dtype(qkv_bias)), (out_weight.dtype, _dtype(out_bias))
        ctx.set_materialize_grads(False)
        return out, summed

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, grad_sum):
        (
            total, norm_weight, mean, rstd, seed, inner, into, heads, turned, o, lse, cos, sin, cu_seqlens,
            attention_seed, out_of,
        ) = ctx.saved_tensors  # fmt: skip
        grad = torch.zeros_like(inner) if grad is None else grad
        d, dout_weight, dout_bias = _linear_gradients(ctx, 6, grad, o.view(inner.shape), out_of, ctx.dtypes[1])
        dheads, _ = qkv.backward(
            d.view(o.shape), heads, turned, o, lse, cos, sin, cu_seqlens, None, None, attention_seed, *ctx.numbers,
            False,
        )  # fmt: skip
        d, dqkv_weight, dqkv_bias = _linear_gradients(ctx, 4, dheads.flatten(1), inner, into, ctx.dtypes[0])
        norm = (d.to(ctx.norm_dtypes[0]), None, None, None)
        if norm_weight is not None:
            norm = _norm_gradients(d, grad_sum, (total, norm_weight, mean, rstd, seed), ctx.dropout_p, ctx.norm_dtypes)
        return *norm, dqkv_weight, dqkv_bias, dout_weight, dout_bias, *(None,) * 12


class _Feed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, x, residual, norm_weight, norm_bias, up_weight, up_bias, down_weight, down_bias, after_weight, after_bias,
        seed, after_seed, eps, after_eps, dropout_p, exact, gated, dtype,
    ):  # fmt: skip
        after = after_weight is not None
        normed, summed, mean, rstd = layer_norm.forward(
            x, residual, norm_weight, norm_bias, seed, eps, dropout_p, True, None if after else dtype
        )
        inner = normed.to(dtype)
        up, down = up_weight.to(dtype), down_weight.to(dtype)
        pre = _linear(inner, up, None)
        active = gelu.forward(pre, up_bias, exact, gated)
        out = _linear(active, down, down_bias)
        more: tuple[Tensor | None, ...] = (None,) * 5
        ctx.after_dtypes = out.dtype, normed.dtype, _dtype(after_bias)
        second = summed
        if after:
            out, second, *moments = layer_norm.forward(
                out, normed, after_weight, after_bias, after_seed, after_eps, dropout_p, True
            )
            more = second, after_weight, *moments, after_seed
        ctx.save_for_backward(
            summed, norm_weight, mean, rstd, seed, inner, up, up_bias, pre, active, down, *more
        )  # fmt: skip
        ctx.numbers = dropout_p, exact, gated
        ctx.norm_dtypes = x.dtype, residual.dtype, _dtype(norm_bias)
        ctx.dtypes = (up_weight.dtype, _dtype(up_bias)), (down_weight.dtype, _dtype(down_bias))
        ctx.set_materialize_grads(False)
        return (out, summed.new_empty((0,))) if after else (out, summed)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, grad_sum):
        summed, norm_weight, mean, rstd, seed, inner, up, up_bias, pre, active, down, *after = ctx.saved_tensors
        dropout_p, exact, gated = ctx.numbers
        dnormed, dafter = None, (None, None)
        if after[0] is not None:
            grad, dnormed, *dafter = _norm_gradients(grad, None, tuple(after), dropout_p, ctx.after_dtypes)
        grad = torch.zeros_like(inner) if grad is None else grad
        d, ddown_weight, ddown_bias = _linear_gradients(ctx, 6, grad, active, down, ctx.dtypes[1])
        wanted = up_bias is not None and ctx.needs_input_grad[5]
        dpre, dup_bias = gelu.backward(d, pre, up_bias, exact, gated, wanted)
        d, dup_weight, _ = _linear_gradients(ctx, 4, dpre, inner, up, (ctx.dtypes[0][0], None))
        d = d if dnormed is None else dnormed + d
        norm = _norm_gradients(d, grad_sum, (summed, norm_weight, mean, rstd, seed), dropout_p, ctx.norm_dtypes)
        dup_bias = dup_bias.to(ctx.dtypes[0][1]) if wanted else None
        return *norm, dup_weight, dup_bias, ddown_weight, ddown_bias, *dafter, *(None,) * 8


class _NoContext:
    """Stands for an autograd function's context where nothing asks for a gradient."""

    def save_for_backward(self, *tensors: Tensor | None) -> None: ...

    def set_materialize_grads(self, value: bool) -> None: ...


def _call(function: type[torch.autograd.Function], *arguments: Any) -> tuple[Tensor, Tensor]:
    if torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in arguments):
        return function.apply(*arguments)
    return function.forward(_NoContext(), *arguments)


def attend(
    x: Tensor, residual: Tensor | None, norm: Norm | None, into: Linear, out_of: Linear, cu_seqlens: Tensor,
    max_seqlen: int, *, num_heads: int, rotary: tuple[Tensor, Tensor] | None, window: int | None, dropout_p: float,
    attention_p: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The attention half of packed x (T, D): its output, and s, or (0,) where nothing is added.

    Args:
        into, out_of: the projections to queries, keys and values, and of the context.
        rotary: (cos, sin), each (T, H / 2).
        dropout_p, attention_p: of x before it is added, and of the attention's weights; 0 for none.
    """
    cos, sin = rotary or (None, None)
    weight, bias, eps = norm or (None, None, 0.0)
    window = op.NO_WINDOW if window is None or window >= max_seqlen - 1 else window
    seed = seed_tensor(None, x.device) if dropout_p and residual is not None else None
    return _call(
        _Attend, x, residual, weight, bias, *into, *out_of, cos, sin, cu_seqlens, seed,
        seed_tensor(None, x.device) if attention_p else None, eps, dropout_p if residual is not None else 0.0,
        attention_p, num_heads, max_seqlen, window, _product_dtype(x),
    )  # fmt: skip


def feed(
    x: Tensor, residual: Tensor, norm: Norm, up: Linear, down: Linear, *, after: Norm | None, dropout_p: float,
    exact: bool, gated: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The feed-forward half of x (T, D): its output and s; with ``after``, the layer's output and (0,)."""
    seeds = [seed_tensor(None, x.device) if dropout_p else None for _ in range(2 if after is not None else 1)]
    weight, bias, eps = after or (None, None, 0.0)
    return _call(
        _Feed, x, residual, *norm[:2], *up, *down, weight, bias, seeds[0], seeds[-1], norm[2], eps, dropout_p,
        exact, gated, _product_dtype(x),
    )  # fmt: skip
