"""The position-wise half of a layer as one op that keeps only what its backward needs.

    inner = LayerNorm(x) or x        pre = inner W₁ᵀ        out = act(pre + b₁) W₂ᵀ + b₂

Shapes: x, out (T, D); W₁ (F, D), or (2F, D) for GeGLU; W₂ (D, F); pre (T, F or 2F).
Kept:   x, pre, mean and rstd. inner and act(pre) come again from one pass of their kernels: for BERT-base that is
3.75·e·D fewer bytes a token than the separate ops keep, for 5·e·D bytes read and written again.
FLOPs:  4·T·D·F forward (6 for GeGLU), twice that backward, all in cuBLAS. A GELU epilogue in a Triton product was
audited and not taken: kernels/README.md has the figures.

Reference: Vaswani et al., Attention Is All You Need, 2017, section 3.3.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbert.kernels import eager, gelu
from fastbert.kernels import norm as layer_norm


def forward(
    x: Tensor, norm_weight: Tensor | None, norm_bias: Tensor | None, up: Tensor, up_bias: Tensor | None, down: Tensor,
    down_bias: Tensor | None, eps: float, exact: bool, gated: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """out, pre, mean, rstd; without a norm the last two are (0,)."""
    mean, rstd = (torch.empty((0,), dtype=torch.float32, device=x.device) for _ in range(2))
    inner = x
    if norm_weight is not None:
        inner, _, mean, rstd = layer_norm.forward(x, None, norm_weight, norm_bias, None, eps, 0.0, False)
    pre = torch.mm(inner, up.t())
    act = gelu.forward(pre, up_bias, exact, gated)
    out = torch.mm(act, down.t()) if down_bias is None else torch.addmm(down_bias, act, down.t())
    return out, pre, mean, rstd


def backward(
    grad: Tensor, x: Tensor, norm_weight: Tensor | None, norm_bias: Tensor | None, up: Tensor, up_bias: Tensor | None,
    down: Tensor, pre: Tensor, mean: Tensor, rstd: Tensor, eps: float, exact: bool, gated: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """dx, dnorm_weight, dnorm_bias, dup, dup_bias, ddown, ddown_bias; vectors float32, (0,) where there is none."""
    ddown = torch.mm(grad.t(), gelu.forward(pre, up_bias, exact, gated))
    dpre, dup_bias = gelu.backward(torch.mm(grad, down), pre, up_bias, exact, gated, up_bias is not None)
    dnorm_weight, dnorm_bias = (torch.empty((0,), dtype=torch.float32, device=x.device) for _ in range(2))
    inner = x
    if norm_weight is not None:
        inner = layer_norm.forward(x, None, norm_weight, norm_bias, None, eps, 0.0, False)[0]
    dup = torch.mm(dpre.t(), inner)
    dx = torch.mm(dpre, up)
    if norm_weight is not None:
        dx, _, vectors = layer_norm.backward(dx, None, x, norm_weight, mean, rstd, None, 0.0, x.dtype, None)
        dnorm_weight, dnorm_bias = vectors[0], vectors[1].clone()  # an op's outputs share no memory
    return dx, dnorm_weight, dnorm_bias, dup, dup_bias, ddown, grad.sum(0, dtype=torch.float32)


_forward = torch.library.custom_op("fastbert::feed_forward", forward, mutates_args=())
_backward = torch.library.custom_op("fastbert::feed_forward_backward", backward, mutates_args=())


@_forward.register_fake
def _(x, norm_weight, norm_bias, up, up_bias, down, down_bias, eps, exact, gated):
    rows = x.shape[:1] if norm_weight is not None else (0,)
    mean, rstd = (x.new_empty(rows, dtype=torch.float32) for _ in range(2))
    return x.new_empty(x.shape), x.new_empty((x.shape[0], up.shape[0])), mean, rstd


@_backward.register_fake
def _(grad, x, norm_weight, norm_bias, up, up_bias, down, pre, mean, rstd, eps, exact, gated):
    def vector(size):
        return x.new_empty((size,), dtype=torch.float32)

    width = x.shape[1] if norm_weight is not None else 0
    return (
        x.new_empty(x.shape), vector(width), vector(width), up.new_empty(up.shape),
        vector(up.shape[0] if up_bias is not None else 0), down.new_empty(down.shape), vector(down.shape[0]),
    )  # fmt: skip


def _setup_context(ctx, inputs, output) -> None:
    x, norm_weight, norm_bias, up, up_bias, down, down_bias, *ctx.numbers = inputs
    ctx.save_for_backward(x, norm_weight, norm_bias, up, up_bias, down, *output[1:])
    ctx.down_bias_dtype = None if down_bias is None else down_bias.dtype
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _gradients(ctx, grad, *_):
    _x, norm_weight, norm_bias, _up, up_bias, *_ = ctx.saved_tensors
    dx, dnorm_weight, dnorm_bias, dup, dup_bias, ddown, ddown_bias = eager.call(
        ctx, _backward, eager.without_autocast(backward), grad.contiguous(), *ctx.saved_tensors, *ctx.numbers
    )
    vectors = [
        None if like is None else value.to(like.dtype)
        for value, like in ((dnorm_weight, norm_weight), (dnorm_bias, norm_bias), (dup_bias, up_bias))
    ]
    ddown_bias = None if ctx.down_bias_dtype is None else ddown_bias.to(ctx.down_bias_dtype)
    return dx, *vectors[:2], dup, vectors[2], ddown, ddown_bias, None, None, None


_forward.register_autograd(_gradients, setup_context=_setup_context)
_run = eager.direct(_forward, eager.without_autocast(forward), _setup_context, _gradients)


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
    """LayerNorm → Linear → GELU/GeGLU → Linear → residual; semantics of :func:`fastbert.reference.feed_forward`.

    The matmuls run in x's dtype: under autocast pass x in the lower precision.
    """
    rows = x.reshape(-1, x.shape[-1])
    up, down = up_weight.to(x.dtype), down_weight.to(x.dtype)
    second_bias = None if down_bias is None else down_bias.to(x.dtype)
    pre_norm = (norm_weight, norm_bias) if norm == "pre" else (None, None)
    out, *_ = _run(rows, *pre_norm, up, up_bias, down, second_bias, eps, approximate == "none", mlp == "geglu")
    out = out.view(x.shape)
    if norm == "post":
        return layer_norm.add_layer_norm(out, x, norm_weight, norm_bias, eps, dropout_p=dropout_p)
    return x + (F.dropout(out, dropout_p) if dropout_p else out)
