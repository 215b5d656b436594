"""The position-wise half of a layer as one node of the graph, pre- or post-norm.

    post: out = LayerNorm(x + drop(W₂ act(W₁ x + b₁) + b₂))    pre: out = x + drop(W₂ act(W₁ LayerNorm(x) + b₁) + b₂)

Shapes: x, out (T, D); W₁ (F, D), or (2F, D) for GeGLU; W₂ (D, F). One node instead of six saves their bookkeeping,
the residual's gradient is added by the product that makes the other half of it, and every bias's gradient comes out of
the pass that makes the gradient it sums.

Reference: Vaswani et al., Attention Is All You Need, 2017, section 3.3.
"""

import torch
from torch import Tensor

from fastbert import reference
from fastbert.ops.cpu import bf16_copies, matmul, residual, rows
from fastbert.ops.cpu.dropout import draw_seed
from fastbert.ops.cpu.second_order import gradients_of, refuse_dropout, under_create_graph


def forward(
    x: Tensor, norm_weight: Tensor, norm_bias: Tensor | None, up: Tensor, up_bias: Tensor | None, down: Tensor,
    down_bias: Tensor | None, eps: float, post: bool, exact: bool, gated: bool, dropout_p: float, seed: int, keep: bool,
) -> list[Tensor]:  # fmt: skip
    """out, and what the backward needs: inner, pre, act, total, mean, rstd."""
    inner, total, mean, rstd = (x,) * 4
    if not post:
        inner, total, mean, rstd = rows.layer_norm(x, None, None, norm_weight, norm_bias, eps, keep)
    pre = matmul.linear(inner, up)
    act = rows.gelu(pre, up_bias, exact, gated)
    if post:
        out, total, mean, rstd = residual.normed(
            act, down, down_bias, x, norm_weight, norm_bias, eps, keep, dropout_p, seed
        )
    else:
        out = residual.added(act, down, down_bias, x, dropout_p, seed)
    return [out, inner, pre, act, total, mean, rstd]


def backward(
    grad: Tensor, inner: Tensor, pre: Tensor, act: Tensor, total: Tensor, mean: Tensor, rstd: Tensor,
    norm_weight: Tensor, has_norm_bias: bool, up: Tensor, up_bias: Tensor | None, down: Tensor,
    down_bias: Tensor | None, post: bool, exact: bool, gated: bool, dropout_p: float, seed: int,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """grad_x, and the gradients of norm_weight, norm_bias, up, up_bias, down, down_bias."""
    norm = (total, mean, rstd, norm_weight, has_norm_bias) if post else None
    grad, grad_act, of_norm, of_down = residual.backward(grad, act, down, down_bias, norm, dropout_p, seed)
    grad_pre, grad_up_bias = rows.gelu_backward(grad_act, pre, up_bias, exact, gated, in_place=True)
    grad_up = matmul.weight_gradient(grad_pre, inner)
    if post:
        grad_x = matmul.add_input_gradient(grad, grad_pre, up)
    else:
        grad_inner = matmul.input_gradient(grad_pre, up)
        grad_x, *of_norm, _ = rows.layer_norm_backward(
            grad_inner, grad, total, mean, rstd, norm_weight, has_norm_bias, False
        )
    return grad_x, *of_norm, grad_up, grad_up_bias, *of_down


def _feed_forward_again(ctx, grad):
    *kept, norm_weight, _, up_bias, _, down_bias, norm_bias, up_weight, down_weight = ctx.saved_tensors
    eps, (post, exact, gated, dropout_p, _) = ctx.eps, ctx.options
    refuse_dropout(dropout_p)
    x = kept[0] if post else kept[3]  # a product's input, or what was normalised

    def output(x, norm_weight, norm_bias, up_weight, up_bias, down_weight, down_bias):
        used = (None if w is None else w.to(x.dtype) for w in (up_weight, up_bias, down_weight, down_bias))
        return reference.feed_forward(
            x, norm_weight, norm_bias, *used, norm="post" if post else "pre", mlp="geglu" if gated else "gelu",
            eps=eps, approximate="none" if exact else "tanh",
        )  # fmt: skip

    inputs = [x, norm_weight, norm_bias, up_weight, up_bias, down_weight, down_bias]
    return *gradients_of(output, inputs, (grad,)), *[None] * 8


class _FeedForward(torch.autograd.Function):
    """The parameters come twice: as the graph knows them, and the two matrices as they are computed with."""

    @staticmethod
    def forward(ctx, x, norm_weight, norm_bias, up_weight, up_bias, down_weight, down_bias, up, down, eps, *options):
        out, *kept = forward(x, norm_weight, norm_bias, up, up_bias, down, down_bias, eps, *options, True)
        ctx.save_for_backward(
            *kept, norm_weight, up, up_bias, down, down_bias, norm_bias, up_weight, down_weight
        )  # fmt: skip
        ctx.eps, ctx.options = eps, options
        return out

    @staticmethod
    @under_create_graph(_feed_forward_again)
    def backward(ctx, grad):
        *kept, norm_weight, up, up_bias, down, down_bias, norm_bias, _, _ = ctx.saved_tensors
        gradients = backward(
            grad.contiguous(), *kept, norm_weight, norm_bias is not None, up, up_bias, down, down_bias, *ctx.options
        )
        return *gradients, *[None] * 8


def feed_forward(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor | None,
    up_weight: Tensor,
    up_bias: Tensor | None,
    down_weight: Tensor,
    down_bias: Tensor | None,
    *,
    norm: str = "pre",
    mlp: str = "gelu",
    eps: float = 1e-12,
    approximate: str = "none",
    dropout_p: float = 0.0,
) -> Tensor:
    """LayerNorm → Linear → GELU/GeGLU → Linear → residual; semantics of :func:`fastbert.reference.feed_forward`."""
    dtype = bf16_copies.compute_dtype(x)
    tokens = rows.flat(x).to(dtype)
    norm_weight, norm_bias = rows.dense(norm_weight), rows.dense(norm_bias)
    up_bias, down_bias = rows.dense(up_bias), rows.dense(down_bias)
    up, down = bf16_copies.as_dtype(up_weight, dtype), bf16_copies.as_dtype(down_weight, dtype)
    seed = draw_seed() if dropout_p else 0
    options = (eps, norm == "post", approximate == "none", mlp == "geglu", dropout_p, seed)
    if torch.is_grad_enabled():
        out = _FeedForward.apply(
            tokens, norm_weight, norm_bias, up_weight, up_bias, down_weight, down_bias, up, down, *options
        )
    else:
        out = forward(tokens, norm_weight, norm_bias, up, up_bias, down, down_bias, *options, False)[0]
    return out.view(x.shape)
