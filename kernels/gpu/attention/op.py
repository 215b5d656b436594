"""Bidirectional attention for packed or padded batches, as custom ops with gradients.

    O = dropout(softmax(scale · Q Kᵀ + bias, over live keys)) V        for each sequence and head

Shapes: packed Q, K, V (T, N, H) with cu_seqlens (B + 1,), or padded (B, L, N, H) with a key mask (B, L); a padded batch
is a packed one whose sequences all have length L. Views of one (T, 3, N, H) projection are read in place.
Saved for the backward: Q, K, V, O and the log-sum-exp of each row, LSE (N, T) float32 in log2 units.
The kernels are in forward.py, backward.py and bias_gradient.py; bytes and FLOPs are documented there.

Reference: Dao, FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning, 2023.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastbert.kernels import eager
from fastbert.kernels.attention.backward import launch_backward, launch_delta, needs_delta
from fastbert.kernels.attention.bias_gradient import launch_bias_gradient
from fastbert.kernels.attention.device import LOG2_E
from fastbert.kernels.attention.forward import launch_forward
from fastbert.kernels.dropout import seed_tensor, threshold_of
from fastbert.kernels.launch import within_31_bits

NO_WINDOW = -1


def launch_options(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None, key_mask: Tensor | None, bias: Tensor | None,
    seed: Tensor | None, max_seqlen: int, window: int, scale: float, dropout_p: float,
) -> tuple[dict[str, Any], dict[str, Any]]:  # fmt: skip
    """What every attention kernel takes: ``(geometry, arguments)``."""
    total, num_heads, head_dim = q.shape
    num_sequences = total // max(max_seqlen, 1) if cu_seqlens is None else cu_seqlens.shape[0] - 1
    precision = "ieee"
    if q.dtype == torch.float32 and q.is_cuda and not torch.version.hip:
        # three tf32 products are about as exact as one float32 product, and run on the tensor cores
        # (allow_tf32 is not asked: it raises once a program has set any fp32_precision)
        precision = "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "tf32x3"
    arguments = {
        "CU_SEQLENS": cu_seqlens, "KEY_MASK": key_mask, "BIAS": bias, "SEED": seed,
        "L": max_seqlen, "N": num_heads, "T": total, "window": window, "scale_log2": scale * LOG2_E,
        "threshold": threshold_of(dropout_p), "inverse_keep": 1.0 / (1.0 - dropout_p),
        "stride_qt": q.stride(0), "stride_qn": q.stride(1), "stride_kt": k.stride(0), "stride_kn": k.stride(1),
        "stride_vt": v.stride(0), "stride_vn": v.stride(1),
        "stride_bb": 0 if bias is None or bias.shape[0] == 1 else bias.stride(0),
        "stride_bn": 0 if bias is None else bias.stride(1), "stride_bi": 0 if bias is None else bias.stride(2),
        "H": head_dim, "PACKED": cu_seqlens is not None, "HAS_MASK": key_mask is not None,
        "HAS_WINDOW": window != NO_WINDOW, "HAS_BIAS": bias is not None, "DROPOUT": dropout_p > 0.0,
        "PRECISION": precision,
    }  # fmt: skip
    return {"max_seqlen": max_seqlen, "num_sequences": num_sequences, "scale": scale}, arguments


def forward(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None, key_mask: Tensor | None, bias: Tensor | None,
    seed: Tensor | None, max_seqlen: int, window: int, scale: float, dropout_p: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    o = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty((q.shape[1], q.shape[0]), dtype=torch.float32, device=q.device)
    if q.numel():
        options = launch_options(q, k, v, cu_seqlens, key_mask, bias, seed, max_seqlen, window, scale, dropout_p)
        launch_forward(q, k, v, o, lse, *options)
    return o, lse


_attention = torch.library.custom_op("fastbert::attention", forward, mutates_args=())


@_attention.register_fake
def _(q, k, v, cu_seqlens, key_mask, bias, seed, max_seqlen, window, scale, dropout_p):
    o = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    return o, torch.empty((q.shape[1], q.shape[0]), dtype=torch.float32, device=q.device)


def backward(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, cu_seqlens: Tensor | None,
    key_mask: Tensor | None, bias: Tensor | None, seed: Tensor | None, max_seqlen: int, window: int, scale: float,
    dropout_p: float, bias_needs_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """dq, dk, dv (T, N, H) and dbias, float32 in the bias's shape, or (0,) where none is wanted."""
    grads = [torch.empty(q.shape, dtype=q.dtype, device=q.device) for _ in range(3)]
    rest = cu_seqlens, key_mask, bias, seed, max_seqlen, window, scale, dropout_p
    return *grads, backward_into(grads, grad_out, q, k, v, o, lse, *rest, bias_needs_grad)


def backward_into(
    grads: Sequence[Tensor], grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor,
    cu_seqlens: Tensor | None, key_mask: Tensor | None, bias: Tensor | None, seed: Tensor | None, max_seqlen: int,
    window: int, scale: float, dropout_p: float, bias_needs_grad: bool,
) -> Tensor:  # fmt: skip
    """Fill dq, dk, dv, which share their strides; returns dbias."""
    dbias = torch.empty(
        bias.shape if bias is not None and bias_needs_grad else (0,), dtype=torch.float32, device=q.device
    )
    if not q.numel():
        return dbias.zero_()
    if grad_out.stride(-1) != 1:  # the gradient of a sum is an expanded scalar
        grad_out = grad_out.contiguous()
    grad_out = within_31_bits(grad_out, 0, 1, sizes=(max_seqlen, q.shape[1]))
    geometry, arguments = launch_options(
        q, k, v, cu_seqlens, key_mask, bias, seed, max_seqlen, window, scale, dropout_p
    )
    delta = torch.empty_like(lse) if needs_delta(q, geometry, arguments) else None
    launch_backward(q, k, v, o, grad_out, lse, grads, delta, geometry, arguments)
    if dbias.numel():
        if delta is None:
            delta = torch.empty_like(lse)
            launch_delta(o, grad_out, delta)
        launch_bias_gradient(q, k, v, grad_out, lse, delta, dbias, geometry, arguments)
    return dbias


_attention_backward = torch.library.custom_op("fastbert::attention_backward", backward, mutates_args=())


@_attention_backward.register_fake
def _(
    grad_out, q, k, v, o, lse, cu_seqlens, key_mask, bias, seed, max_seqlen, window, scale, dropout_p, bias_needs_grad
):
    grads = [torch.empty(q.shape, dtype=q.dtype, device=q.device) for _ in range(3)]
    shape = bias.shape if bias is not None and bias_needs_grad else (0,)
    return *grads, torch.empty(shape, dtype=torch.float32, device=q.device)


def _setup_context(ctx, inputs, output) -> None:
    q, k, v, cu_seqlens, key_mask, bias, seed, *ctx.numbers = inputs
    ctx.save_for_backward(q, k, v, *output, cu_seqlens, key_mask, bias, seed)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # a launch for the zeros of an output that has no gradient


def _backward(ctx, grad_out, _grad_lse):
    q, k, v, o, lse, cu_seqlens, key_mask, bias, seed = ctx.saved_tensors
    dq, dk, dv, dbias = eager.call(
        ctx,
        _attention_backward,
        backward,
        grad_out,
        q,
        k,
        v,
        o,
        lse,
        cu_seqlens,
        key_mask,
        bias,
        seed,
        *ctx.numbers,
        ctx.needs_input_grad[5],
    )
    dbias = dbias.to(bias.dtype) if ctx.needs_input_grad[5] else None
    return dq, dk, dv, None, None, dbias, None, None, None, None, None


_attention.register_autograd(_backward, setup_context=_setup_context)
_run = eager.direct(_attention, forward, _setup_context, _backward)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor | None = None,
    max_seqlen: int | None = None,
    *,
    attention_mask: Tensor | None = None,
    window: int | None = None,
    bias: Tensor | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    seed: int | None = None,
) -> Tensor:
    """Attention in Triton; arguments and semantics of :func:`fastbert.reference.attention`.

    Accumulates in float32. Every token must belong to a sequence (``cu_seqlens[-1] == T``, ``max_seqlen`` at least the
    longest length): :func:`fastbert.ops.attention` checks it on the CPU; on a GPU that would wait for the device, so
    there the kernels cut lengths to fit: nothing outside is read or written, and rows of no sequence hold no result.

    Returns:
        The shape of ``q``, contiguous.
    """
    shape = q.shape
    if cu_seqlens is None:
        max_seqlen = q.shape[1]
        q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    assert max_seqlen is not None
    q, k, v = (within_31_bits(x, 0, 1, sizes=(max_seqlen, x.shape[1])) for x in (q, k, v))
    rest = call_arguments(q, max_seqlen, attention_mask, window, bias, scale, dropout_p, seed)
    o, _ = _run(q, k, v, cu_seqlens, *rest)
    return o.view(shape)


def call_arguments(
    q: Tensor, max_seqlen: int, attention_mask: Tensor | None, window: int | None, bias: Tensor | None,
    scale: float | None, dropout_p: float, seed: int | None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, int, int, float, float]:  # fmt: skip
    """The op's last arguments, for packed q (T, N, H)."""
    key_mask = None if attention_mask is None else (attention_mask != 0).to(torch.int8).flatten()
    if bias is not None:
        bias = bias[None] if bias.ndim == 3 else bias
        bias = bias.expand(-1, q.shape[1], -1, -1)
        bias = within_31_bits(bias if bias.stride(-1) == 1 else bias.contiguous(), 2)
    window = NO_WINDOW if window is None or window >= max_seqlen - 1 else window
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
    draw = seed_tensor(seed, q.device) if dropout_p else None
    return key_mask, bias, draw, max_seqlen, window, scale, dropout_p
