"""Attention of one fused projection, with Q and K rotated: one launch for both rotations, one buffer for all gradients.

    q, k, v = qkv        O = attention(turn(q), turn(k), v)        dqkv = [turn⁻¹(dq), turn⁻¹(dk), dv]

Shapes: qkv, dqkv (T, 3, N, H); cos, sin (T, H/2), or None for no rotation. The backward's kernels write dq, dk and dv
where the projection's backward reads them; without this op PyTorch copies the three into one tensor.
Bytes:  beside attention's own, 4·e·T·N·H for the rotation, forward and backward each.

Reference: Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021.
"""

import torch
from torch import Tensor

from fastbert.kernels import eager
from fastbert.kernels.attention import op
from fastbert.kernels.launch import within_31_bits
from fastbert.kernels.rotary import turn_into


def _inputs(qkv: Tensor, turned: Tensor) -> tuple[Tensor, ...]:
    """What attention reads: (T, N, H) each."""
    return (*turned.unbind(1), qkv.select(1, 2)) if turned.numel() else qkv.unbind(1)


def forward(
    qkv: Tensor, cos: Tensor | None, sin: Tensor | None, cu_seqlens: Tensor | None, key_mask: Tensor | None,
    bias: Tensor | None, seed: Tensor | None, max_seqlen: int, window: int, scale: float, dropout_p: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """O (T, N, H), the log-sum-exp (N, T), and the rotated Q and K (T, 2, N, H), (0,) without a rotation."""
    total, _, num_heads, head_dim = qkv.shape
    turned = qkv.new_empty((0,))
    if cos is not None and sin is not None:
        turned = qkv.new_empty((total, 2, num_heads, head_dim))
        turn_into(turned.flatten(1, 2), qkv[:, :2].flatten(1, 2), cos, sin, False)
    o, lse = op.forward(*_inputs(qkv, turned), cu_seqlens, key_mask, bias, seed, max_seqlen, window, scale, dropout_p)
    return o, lse, turned


def backward(
    grad_out: Tensor, qkv: Tensor, turned: Tensor, o: Tensor, lse: Tensor, cos: Tensor | None, sin: Tensor | None,
    cu_seqlens: Tensor | None, key_mask: Tensor | None, bias: Tensor | None, seed: Tensor | None, max_seqlen: int,
    window: int, scale: float, dropout_p: float, bias_needs_grad: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """dqkv (T, 3, N, H), contiguous, and dbias as in :func:`op.backward`."""
    dqkv = torch.empty(qkv.shape, dtype=qkv.dtype, device=qkv.device)
    rest = cu_seqlens, key_mask, bias, seed, max_seqlen, window, scale, dropout_p, bias_needs_grad
    dbias = op.backward_into(dqkv.unbind(1), grad_out, *_inputs(qkv, turned), o, lse, *rest)
    if cos is not None and sin is not None:
        both = dqkv[:, :2].flatten(1, 2)
        turn_into(both, both, cos, sin, True)
    return dqkv, dbias


_forward = torch.library.custom_op("fastbert::qkv_attention", forward, mutates_args=())
_backward = torch.library.custom_op("fastbert::qkv_attention_backward", backward, mutates_args=())


@_forward.register_fake
def _(qkv, cos, sin, cu_seqlens, key_mask, bias, seed, max_seqlen, window, scale, dropout_p):
    total, _, num_heads, head_dim = qkv.shape
    return (
        qkv.new_empty((total, num_heads, head_dim)), qkv.new_empty((num_heads, total), dtype=torch.float32),
        qkv.new_empty((0,) if cos is None else (total, 2, num_heads, head_dim)),
    )  # fmt: skip


@_backward.register_fake
def _(
    grad_out, qkv, turned, o, lse, cos, sin, cu_seqlens, key_mask, bias, seed, max_seqlen, window, scale, dropout_p,
    bias_needs_grad,
):  # fmt: skip
    shape = bias.shape if bias is not None and bias_needs_grad else (0,)
    return torch.empty(qkv.shape, dtype=qkv.dtype, device=qkv.device), qkv.new_empty(shape, dtype=torch.float32)


def _setup_context(ctx, inputs, output) -> None:
    qkv, cos, sin, cu_seqlens, key_mask, bias, seed, *ctx.numbers = inputs
    o, lse, turned = output
    ctx.save_for_backward(qkv, turned, o, lse, cos, sin, cu_seqlens, key_mask, bias, seed)
    ctx.mark_non_differentiable(lse, turned)
    ctx.set_materialize_grads(False)


def _gradients(ctx, grad_out, *_):
    wanted = ctx.needs_input_grad[5]
    dqkv, dbias = eager.call(ctx, _backward, backward, grad_out, *ctx.saved_tensors, *ctx.numbers, wanted)
    bias = ctx.saved_tensors[8]
    return dqkv, None, None, None, None, dbias.to(bias.dtype) if wanted else None, None, None, None, None, None


_forward.register_autograd(_gradients, setup_context=_setup_context)
_run = eager.direct(_forward, forward, _setup_context, _gradients)


def qkv_attention(
    qkv: Tensor,
    cu_seqlens: Tensor | None = None,
    max_seqlen: int | None = None,
    *,
    rotary: tuple[Tensor, Tensor] | None = None,
    attention_mask: Tensor | None = None,
    window: int | None = None,
    bias: Tensor | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    seed: int | None = None,
) -> Tensor:
    """Rotary positions and attention in Triton; semantics of :func:`fastbert.ops.qkv_attention`."""
    leading, heads = qkv.shape[:-3], qkv.shape[-2:]
    if cu_seqlens is None:
        max_seqlen = qkv.shape[1]
        qkv = qkv.flatten(0, 1)
    assert max_seqlen is not None
    qkv = within_31_bits(qkv, 0, 2, sizes=(max_seqlen, heads[0]))
    half = heads[1] // 2
    cos, sin = (None, None) if rotary is None else (x.expand(*leading, half).reshape(-1, half) for x in rotary)
    rest = op.call_arguments(qkv.select(1, 0), max_seqlen, attention_mask, window, bias, scale, dropout_p, seed)
    o, *_ = _run(qkv, cos, sin, cu_seqlens, *rest)
    return o.view(*leading, *heads)
