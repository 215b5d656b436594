"""Masked-LM cross-entropy over the masked rows, logits overwritten by their gradient.

    z = hidden · weightᵀ + bias        loss = mean over labelled rows of  log Σ_v exp z_v − z_label
    dz = softmax(z) − onehot(label), written over z; the factor 1/count · dloss comes last, so that no small
    probability divided by a large count vanishes in float16.

Shapes: hidden (M, D), weight (V, D), bias (V,), labels (M,) int64, -100 ignored. V may exceed ``vocab_size``: the rows
from there on are padding (30 522 padded to 30 528 lets every access move 16 bytes), their gradient is zero.
Bytes:  the kernel reads the logits twice, the second time from L2, and writes them once: 3·e·M·V. The products stay
with cuBLAS: 2·M·V·D FLOPs each, three of them. All gradients are made in the forward, so a backward needs no logits;
``chunk_rows`` takes that many rows at a time and bounds the logits' memory at e·chunk_rows·V.

Reference: Hsu et al., Liger Kernel, 2024 (gradient in the forward, chunks).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastbert.kernels import configs, eager
from fastbert.kernels.launch import Config, arch_of, launch


@triton.jit
def _row_block(logits, v, vocab_size, width):
    """A block of one row, -inf past the vocabulary; loads up to the padded width, which keeps them 16 bytes wide."""
    z = tl.load(logits + v, mask=v < width, other=-float("inf")).to(tl.float32)
    return tl.where(v < vocab_size, z, -float("inf"))


@triton.jit
def cross_entropy_kernel(LOGITS, LABELS, LOSS, vocab_size, width, stride_lm, BLOCK: tl.constexpr, WRITE: tl.constexpr):
    """One row: its loss (0 when ignored, NaN for a label outside the vocabulary) and its gradient in place."""
    row = tl.program_id(0).to(tl.int64)
    logits = LOGITS + row * stride_lm
    label = tl.load(LABELS + row)
    block = tl.arange(0, BLOCK)
    # one running maximum and sum a lane, reduced once at the end: no reduction inside the loop
    maximum = tl.full([BLOCK], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    for v0 in range(0, width, BLOCK):
        v = v0 + block
        z = _row_block(logits, v, vocab_size, width)
        new = tl.maximum(maximum, z)
        safe = tl.where(new == -float("inf"), 0.0, new)
        total = total * tl.exp(maximum - safe) + tl.exp(z - safe)
        maximum = new
    top = tl.max(maximum, 0)
    lse = top + tl.log(tl.sum(total * tl.exp(maximum - top), 0))
    labelled = label != -100
    valid = (label >= 0) & (label < vocab_size)
    z_label = tl.load(logits + label, mask=valid, other=float("nan")).to(tl.float32)
    tl.store(LOSS + row, tl.where(labelled, lse - z_label, 0.0))
    if WRITE:
        for v0 in range(0, width, BLOCK):
            v = v0 + block
            z = _row_block(logits, v, vocab_size, width)
            grad = tl.exp(z - lse) - tl.where(v == label, 1.0, 0.0)
            # columns past the vocabulary: exp(-inf) = 0
            tl.store(logits + v, tl.where(labelled, grad, 0.0).to(LOGITS.dtype.element_ty), mask=v < width)


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.mm(hidden, weight.t()) if bias is None else torch.addmm(bias.to(hidden.dtype), hidden, weight.t())


def cross_entropy_in_place(logits: Tensor, labels: Tensor, vocab_size: int, write: bool) -> Tensor:
    """Loss (M,) float32 of each row; with ``write`` the logits (M, V) become their gradient."""
    losses = torch.empty((logits.shape[0],), dtype=torch.float32, device=logits.device)
    arch = arch_of(logits)
    static = Config({"BLOCK": 256}) if arch == "interpreter" else Config({"BLOCK": 4096}, 8, 2)
    config = configs.pick("cross_entropy", arch, logits.element_size(), 0, static)
    launch(
        cross_entropy_kernel, logits.shape[0], config,
        LOGITS=logits, LABELS=labels, LOSS=losses, vocab_size=vocab_size, width=logits.shape[1],
        stride_lm=logits.stride(0), WRITE=write,
    )  # fmt: skip
    return losses


def forward(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, vocab_size: int, chunk_rows: int,
    needs_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """loss (), 1/count (), and the gradients of count · loss: dhidden (M, D), dweight (V, D), dbias (V,).

    Without ``needs_grad`` the gradients are (0,).
    """
    device = hidden.device
    num_rows = hidden.shape[0]
    inverse_count = 1.0 / (labels != -100).sum().clamp(min=1).float()
    dhidden = torch.empty(hidden.shape if needs_grad else (0,), dtype=hidden.dtype, device=device)
    dweight = torch.zeros(weight.shape if needs_grad else (0,), dtype=weight.dtype, device=device)
    dbias = torch.zeros(
        (weight.shape[0] if needs_grad and bias is not None else 0,), dtype=torch.float32, device=device
    )
    loss = torch.zeros((), dtype=torch.float32, device=device)
    cast = weight.to(hidden.dtype)
    single = num_rows <= chunk_rows
    partial = torch.zeros(weight.shape if needs_grad and not single else (0,), dtype=torch.float32, device=device)
    for first in range(0, num_rows, chunk_rows):
        rows = slice(first, first + chunk_rows)
        logits = _logits(hidden[rows], cast, bias)
        loss += cross_entropy_in_place(logits, labels[rows], vocab_size, needs_grad).sum()
        if not needs_grad:
            continue
        torch.mm(logits, cast, out=dhidden[rows])
        product = torch.mm(logits.t(), hidden[rows])
        if single:
            dweight = product.to(weight.dtype)
        else:
            partial += product
        if bias is not None:
            dbias += logits.sum(0, dtype=torch.float32)
    if needs_grad and not single:
        dweight = partial.to(weight.dtype)
    return loss * inverse_count, inverse_count, dhidden, dweight, dbias


_forward = torch.library.custom_op("fastbert::masked_lm_loss", forward, mutates_args=())


@_forward.register_fake
def _(hidden, weight, bias, labels, vocab_size, chunk_rows, needs_grad):
    scalars = [hidden.new_empty((), dtype=torch.float32) for _ in range(2)]
    dhidden = hidden.new_empty(hidden.shape if needs_grad else (0,))
    dweight = weight.new_empty(weight.shape if needs_grad else (0,))
    dbias = (weight.shape[0] if needs_grad and bias is not None else 0,)
    return *scalars, dhidden, dweight, hidden.new_empty(dbias, dtype=torch.float32)


def _setup_context(ctx, inputs, output) -> None:
    bias = inputs[2]
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.save_for_backward(*output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _gradients(ctx, grad_loss, *_):
    inverse_count, dhidden, dweight, dbias = ctx.saved_tensors
    factor = grad_loss * inverse_count  # 0-dim: the products below keep their dtype and round once
    dbias = None if ctx.bias_dtype is None else (dbias * factor).to(ctx.bias_dtype)
    return dhidden * factor, dweight * factor, dbias, None, None, None, None


_forward.register_autograd(_gradients, setup_context=_setup_context)
_run = eager.direct(_forward, eager.without_autocast(forward), _setup_context, _gradients)


def masked_lm_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    *,
    vocab_size: int | None = None,
    chunk_rows: int | None = None,
) -> Tensor:
    """Masked-LM loss with a Triton cross-entropy; semantics of :func:`fastbert.reference.masked_lm_loss`.

    Args:
        chunk_rows: rows of logits in memory at once; None: all of them.
    """
    needs_grad = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (hidden, weight, bias))
    loss, *_ = _run(
        hidden, weight, bias, labels, vocab_size or weight.shape[0], chunk_rows or max(hidden.shape[0], 1), needs_grad
    )
    return loss
