"""Attention over sequences of any length, forward and backward: csrc/cpu/attention.h.

    out_i = Σ_j softmax_j(scale · q_i·k_j) v_j        |i − j| <= window, j among the sequence's first `keys` tokens

Packed q, k, v, out: (T, N, H), any token and head strides, float32 or bfloat16, summed in float32. lse (N, T)
float32 is kept for the backward, which draws the dropped weights again (dropout.py). The fused op takes the projection
(T, 3, N, H) as it is, turns q and k by their angles on the way into the kernel, and gives its gradient as one tensor,
without a copy on either way.

Reference: Vaswani et al., Attention Is All You Need, 2017; Dao et al., FlashAttention, 2022; Su et al., RoFormer, 2021.
"""

import math
from typing import Any

import torch
from torch import Tensor

from fastbert import reference
from fastbert.ops.cpu.dropout import draw_seed
from fastbert.ops.cpu.second_order import gradients_of, refuse_dropout, under_create_graph
from fastbert.system.native import compute


def _rows(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _run(
    backward: bool, inputs: list[Tensor], outputs: list[Tensor], lse: Tensor, cu_seqlens: Tensor, keys: Tensor | None,
    angles: tuple[Tensor | None, Tensor | None], window: int, scale: float, dropout_p: float, seed: int,
) -> None:  # fmt: skip
    """inputs q, k, v (and the gradient of out) → outputs out, or dq, dk, dv; all (T, N, H)."""
    inputs = [_rows(x) for x in inputs]
    num_tokens, num_heads, head_dim = inputs[0].shape
    compute().cpu_attention(
        backward,
        inputs[0].dtype == torch.bfloat16,
        [(x.data_ptr(), x.stride(0), x.stride(1)) for x in inputs],
        [(x.data_ptr(), x.stride(0), x.stride(1)) for x in outputs],
        lse.data_ptr(),
        tuple(0 if x is None else x.data_ptr() for x in angles),
        cu_seqlens.data_ptr(),
        0 if keys is None else keys.data_ptr(),
        (cu_seqlens.shape[0] - 1, num_heads, num_tokens, head_dim),
        window,
        scale,
        torch.get_num_threads(),
        dropout_p,
        seed,
    )


def _reference(
    q: Tensor, k: Tensor, v: Tensor, angles: tuple[Tensor, Tensor] | None, cu_seqlens: Tensor, keys: Tensor | None,
    window: int, scale: float,
) -> Tensor:  # fmt: skip
    """The same in PyTorch's operations, for second derivatives."""
    if angles is not None:
        q, k = (reference.rotary(x, *angles) for x in (q, k))
    length = int(cu_seqlens.diff().max()) if cu_seqlens.shape[0] > 1 else 0
    options: dict[str, Any] = {"window": None if window < 0 else window, "scale": scale}
    if keys is None:
        return reference.attention(q, k, v, cu_seqlens, length, **options)
    shape = (keys.shape[0], length)  # padded
    real = torch.arange(length) < keys[:, None]
    padded = (x.unflatten(0, shape) for x in (q, k, v))
    return reference.attention(*padded, attention_mask=real, **options).flatten(0, 1)


# ---- separate q, k, v ----
@torch.library.custom_op("fastbert::cpu_attention", mutates_args=())
def _forward(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, keys: Tensor | None, window: int, scale: float,
    dropout_p: float, seed: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    out, lse = q.new_empty(q.shape), q.new_empty((q.shape[1], q.shape[0]), dtype=torch.float32)
    _run(False, [q, k, v], [out], lse, cu_seqlens, keys, (None, None), window, scale, dropout_p, seed)
    return out, lse


@_forward.register_fake
def _(q, k, v, cu_seqlens, keys, window, scale, dropout_p, seed):
    return q.new_empty(q.shape), q.new_empty((q.shape[1], q.shape[0]), dtype=torch.float32)


@torch.library.custom_op("fastbert::cpu_attention_backward", mutates_args=())
def _backward(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, lse: Tensor, cu_seqlens: Tensor, keys: Tensor | None,
    window: int, scale: float, dropout_p: float, seed: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    grads = [x.new_empty(x.shape) for x in (q, k, v)]
    _run(True, [q, k, v, grad_out], grads, lse, cu_seqlens, keys, (None, None), window, scale, dropout_p, seed)
    return grads[0], grads[1], grads[2]


@_backward.register_fake
def _(grad_out, q, k, v, lse, cu_seqlens, keys, window, scale, dropout_p, seed):
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _keep(ctx, inputs, output):
    q, k, v, cu_seqlens, keys, *ctx.options = inputs
    ctx.save_for_backward(q, k, v, output[1], cu_seqlens, keys)


def _again(ctx, grad_out, _grad_lse):
    q, k, v, _, cu_seqlens, keys = ctx.saved_tensors
    window, scale, dropout_p, _ = ctx.options
    refuse_dropout(dropout_p)
    again = gradients_of(
        lambda q, k, v: _reference(q, k, v, None, cu_seqlens, keys, window, scale), [q, k, v], (grad_out,)
    )
    return *again, *[None] * 6


@under_create_graph(_again)
def _gradients(ctx, grad_out, _grad_lse):
    return *_backward(grad_out, *ctx.saved_tensors, *ctx.options), *[None] * 6


_forward.register_autograd(_gradients, setup_context=_keep)


# ---- the fused projection ----
@torch.library.custom_op("fastbert::cpu_qkv_attention", mutates_args=())
def _qkv_forward(
    qkv: Tensor, cos: Tensor | None, sin: Tensor | None, cu_seqlens: Tensor, keys: Tensor | None, window: int,
    scale: float, dropout_p: float, seed: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    q, k, v = qkv.unbind(1)
    out, lse = q.new_empty(q.shape), q.new_empty((q.shape[1], q.shape[0]), dtype=torch.float32)
    _run(False, [q, k, v], [out], lse, cu_seqlens, keys, (cos, sin), window, scale, dropout_p, seed)
    return out, lse


@_qkv_forward.register_fake
def _(qkv, cos, sin, cu_seqlens, keys, window, scale, dropout_p, seed):
    tokens, _, heads, head_dim = qkv.shape
    return qkv.new_empty((tokens, heads, head_dim)), qkv.new_empty((heads, tokens), dtype=torch.float32)


@torch.library.custom_op("fastbert::cpu_qkv_attention_backward", mutates_args=())
def _qkv_backward(
    grad_out: Tensor, qkv: Tensor, cos: Tensor | None, sin: Tensor | None, lse: Tensor, cu_seqlens: Tensor,
    keys: Tensor | None, window: int, scale: float, dropout_p: float, seed: int,
) -> Tensor:  # fmt: skip
    grad = qkv.new_empty(qkv.shape)
    grads = list(grad.unbind(1))
    _run(
        True, [*qkv.unbind(1), grad_out], grads, lse, cu_seqlens, keys, (cos, sin), window, scale, dropout_p, seed
    )  # fmt: skip
    return grad


@_qkv_backward.register_fake
def _(grad_out, qkv, cos, sin, lse, cu_seqlens, keys, window, scale, dropout_p, seed):
    return qkv.new_empty(qkv.shape)


def _qkv_keep(ctx, inputs, output):
    qkv, cos, sin, cu_seqlens, keys, *ctx.options = inputs
    ctx.save_for_backward(qkv, cos, sin, output[1], cu_seqlens, keys)


def _qkv_again(ctx, grad_out, _grad_lse):
    qkv, cos, sin, _, cu_seqlens, keys = ctx.saved_tensors
    window, scale, dropout_p, _ = ctx.options
    refuse_dropout(dropout_p)
    angles = None if cos is None else (cos, sin)
    again = gradients_of(
        lambda qkv: _reference(*qkv.unbind(1), angles, cu_seqlens, keys, window, scale), [qkv], (grad_out,)
    )
    return *again, *[None] * 8


@under_create_graph(_qkv_again)
def _qkv_gradients(ctx, grad_out, _grad_lse):
    return _qkv_backward(grad_out, *ctx.saved_tensors, *ctx.options), *[None] * 8


_qkv_forward.register_autograd(_qkv_gradients, setup_context=_qkv_keep)


# ---- public ----
def _seed(dropout_p: float, seed: int | None) -> int:
    """The caller's seed, or where something is to be dropped the next of torch's generator."""
    if not dropout_p:
        return 0
    return draw_seed() if seed is None else seed % 2**63


def _sequences(
    shape: torch.Size, cu_seqlens: Tensor | None, attention_mask: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """cu_seqlens (B + 1,) int32, and how many tokens of each sequence may be seen, (B,) int32, or None: all."""
    if cu_seqlens is not None:
        return cu_seqlens.to(torch.int32).contiguous(), None
    batch, length = shape[:2]
    cu_seqlens = (
        torch.arange(0, (batch + 1) * length, length, dtype=torch.int32)
        if length
        else torch.zeros(batch + 1, dtype=torch.int32)
    )
    keys = None if attention_mask is None else (attention_mask != 0).sum(1, dtype=torch.int32)
    return cu_seqlens, keys


def attention(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None = None, max_seqlen: int | None = None, *,
    attention_mask: Tensor | None = None, window: int | None = None, bias: Tensor | None = None,
    scale: float | None = None, dropout_p: float = 0.0, seed: int | None = None,
) -> Tensor:  # fmt: skip
    """See :func:`fastbert.ops.attention`, which has proven the arguments (:mod:`.dispatch`)."""
    bounds, keys = _sequences(q.shape, cu_seqlens, attention_mask)
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale
    packed = (x if cu_seqlens is not None else x.flatten(0, 1) for x in (q, k, v))
    options = (-1 if window is None else window, scale, dropout_p, _seed(dropout_p, seed))
    return _forward(*packed, bounds, keys, *options)[0].view(q.shape)


def qkv_attention(
    qkv: Tensor, cu_seqlens: Tensor | None = None, max_seqlen: int | None = None, *,
    rotary: tuple[Tensor, Tensor] | None = None, attention_mask: Tensor | None = None, window: int | None = None,
    bias: Tensor | None = None, scale: float | None = None, dropout_p: float = 0.0, seed: int | None = None,
) -> Tensor:  # fmt: skip
    """The same of qkv (T, 3, N, H) or (B, L, 3, N, H); rotary: (cos, sin), each (…, H / 2)."""
    padded = cu_seqlens is None
    bounds, keys = _sequences(qkv.shape, cu_seqlens, attention_mask)
    scale = 1.0 / math.sqrt(qkv.shape[-1]) if scale is None else scale
    cos, sin = rotary or (None, None)
    if cos is not None and sin is not None:
        shape = qkv.shape[: 2 if padded else 1]
        cos, sin = (x.expand(*shape, -1).reshape(-1, x.shape[-1]).float().contiguous() for x in (cos, sin))
    flat = qkv.flatten(0, 1) if padded else qkv
    options = (-1 if window is None else window, scale, dropout_p, _seed(dropout_p, seed))
    out = _qkv_forward(flat, cos, sin, bounds, keys, *options)[0]
    return out.unflatten(0, qkv.shape[:2]) if padded else out
