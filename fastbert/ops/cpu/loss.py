"""The masked-LM loss and its gradients in one pass over the logits: csrc/cpu/loss.h.

    loss = Σ_i w_i (log Σ_j e^(h_i·W_j + b_j) − h_i·W_y − b_y) / Σ_i w_i        over rows i with a label y

hidden (M, D), weight (V, D), bias (V,), labels (M,) int64, row_weights (M,) float32. The logits (M, V) have hidden's
dtype; a row is read while it is in the near caches and overwritten by its gradient, in float32 arithmetic. So the
gradients are there when the loss is, no logits are kept for a backward, and their memory serves the next call: fresh
pages for them would cost as much as the work on them. What is left are three matrix products.

Reference: Hsu et al., Liger Kernel, 2024 (gradients in the forward).
"""

import threading

import torch
from torch import Tensor

from fastbert import reference
from fastbert.ops.cpu import bf16_copies, matmul
from fastbert.ops.cpu import rows as row_kernels
from fastbert.ops.cpu.second_order import gradients_of, under_create_graph
from fastbert.system.native import compute

_ROWS_WITHOUT_GRADIENT = 256  # rows of logits computed at a time where no gradient is needed
_kept = threading.local()


def _logits(hidden: Tensor, weight: Tensor) -> Tensor:
    """hidden Wᵀ, in memory that the next call of this thread uses again."""
    if hidden.dtype != torch.bfloat16:
        return matmul.linear(hidden, weight)
    size = hidden.shape[0] * weight.shape[0]
    memory = getattr(_kept, "memory", None)
    if memory is None or memory.numel() < size:
        with torch.inference_mode(False):  # training could not write to memory from inference mode
            memory = _kept.memory = torch.empty(size, dtype=torch.bfloat16)
    return torch.mm(hidden, weight.t(), out=memory[:size].view(hidden.shape[0], weight.shape[0]))


def _cross_entropy(
    logits: Tensor, bias: Tensor | None, labels: Tensor, weights: Tensor | None, vocab_size: int, factor: float | None
) -> Tensor:
    """Weighted losses (M,) of the rows; with a factor the logits become factor times their gradient."""
    losses = torch.empty(logits.shape[0], dtype=torch.float32)
    compute().cpu_cross_entropy(
        logits.dtype == torch.bfloat16, logits.data_ptr(), row_kernels.address(bias), labels.data_ptr(),
        row_kernels.address(weights), losses.data_ptr(), *logits.shape, vocab_size, factor is not None, factor or 0.0,
        torch.get_num_threads(),
    )  # fmt: skip
    return losses


def _one_over_count(labels: Tensor, row_weights: Tensor | None) -> float:
    labeled = labels != -100
    if row_weights is None:
        return 1.0 / max(int(labeled.sum()), 1)
    return 1.0 / max(float((row_weights * labeled).sum()), torch.finfo(torch.float32).tiny)


def _masked_lm_loss_again(ctx, grad):
    labels, row_weights, hidden, weight, bias = ctx.saved_tensors

    def loss(hidden, weight, bias):
        own_bias = None if bias is None else bias.to(hidden.dtype)
        return reference.masked_lm_loss(
            hidden, weight.to(hidden.dtype), own_bias, labels, vocab_size=ctx.vocab_size, row_weights=row_weights
        )

    return *[None] * 6, *gradients_of(loss, [hidden, weight, bias], (grad,))


class _MaskedLMLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, labels, row_weights, vocab_size, own_hidden, own_weight, own_bias, hidden, weight, bias):
        factor = _one_over_count(labels, row_weights)
        logits = _logits(own_hidden, own_weight)
        losses = _cross_entropy(logits, own_bias, labels, row_weights, vocab_size, factor)
        ctx.save_for_backward(labels, row_weights, hidden, weight, bias)
        ctx.vocab_size = vocab_size
        of_hidden, of_weight, of_bias = ctx.needs_input_grad[-3:]
        ctx.gradients = (
            matmul.input_gradient(logits, own_weight).to(hidden.dtype) if of_hidden else None,
            matmul.weight_gradient(logits, own_hidden).to(weight.dtype) if of_weight else None,
            row_kernels.sum_rows(logits, bias.dtype) if of_bias else None,
        )
        return losses.sum() * factor

    @staticmethod
    @under_create_graph(_masked_lm_loss_again)
    def backward(ctx, grad):
        if ctx.gradients is None:
            raise RuntimeError("second backward through masked_lm_loss. Try: retain_graph=True in the first")
        gradients = ctx.gradients
        if torch._C._autograd._get_current_graph_task_keep_graph():
            gradients = [None if x is None else x.clone() for x in gradients]
        else:
            ctx.gradients = None  # given away, not copied
        by = float(grad)
        scaled = gradients if by == 1.0 else [None if x is None else x.mul_(by) for x in gradients]
        return None, None, None, None, None, None, *scaled


def masked_lm_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, *, vocab_size: int | None = None,
    row_weights: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Weighted mean cross-entropy; semantics of :func:`fastbert.reference.masked_lm_loss`.

    Raises:
        IndexError: a label outside of the vocabulary.
    """
    dtype = bf16_copies.compute_dtype(hidden)
    vocab_size = weight.shape[0] if vocab_size is None else min(vocab_size, weight.shape[0])
    own_hidden = hidden.detach().to(dtype).contiguous()
    own_weight = bf16_copies.as_dtype(getattr(weight, "embedding_table", weight), dtype)
    assert own_weight is not None
    own_bias = None if bias is None else bias.detach().float().contiguous()
    labels = labels.contiguous()
    row_weights = None if row_weights is None else row_weights.detach().float().contiguous()
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (hidden, weight, bias)):
        return _MaskedLMLoss.apply(
            labels, row_weights, vocab_size, own_hidden, own_weight, own_bias, hidden, weight, bias
        )
    total = _losses(own_hidden, own_weight, own_bias, labels, row_weights, vocab_size).sum()
    return total * _one_over_count(labels, row_weights)


def _losses(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, row_weights: Tensor | None, vocab_size: int
) -> Tensor:
    """Weighted losses (M,), a few rows of logits at a time."""
    losses = [
        _cross_entropy(_logits(part, weight), bias, some_labels, some_weights, vocab_size, None)
        for part, some_labels, some_weights in zip(
            hidden.split(_ROWS_WITHOUT_GRADIENT),
            labels.split(_ROWS_WITHOUT_GRADIENT),
            [None] * len(hidden) if row_weights is None else row_weights.split(_ROWS_WITHOUT_GRADIENT),
            strict=False,
        )
    ]
    return torch.cat(losses) if losses else torch.zeros(0)


@torch.no_grad()
def label_log_probs(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, *, vocab_size: int | None = None
) -> Tensor:
    """Log-probability of each row's label, (M,) float32; semantics of :func:`fastbert.reference.label_log_probs`.

    Raises:
        IndexError: a label outside of the vocabulary.
    """
    dtype = bf16_copies.compute_dtype(hidden)
    vocab_size = weight.shape[0] if vocab_size is None else min(vocab_size, weight.shape[0])
    own_bias = None if bias is None else bias.float().contiguous()
    own_hidden = hidden.to(dtype).contiguous()
    own_weight = bf16_copies.as_dtype(weight, dtype)
    return _losses(own_hidden, own_weight, own_bias, labels.contiguous(), None, vocab_size).neg_()
