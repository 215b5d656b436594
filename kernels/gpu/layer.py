"""A layer in eager mode as one autograd function, which calls prepared launchers and cuBLAS directly.

    attend:  s = x + residual    inner = LayerNorm(s)    out = attention(turn(inner Wᵀ + b)) W'ᵀ + b'
    feed:    s = out + s         inner = LayerNorm(s)    out = act(inner W₁ᵀ + b₁) W₂ᵀ + b₂
    and for a layer with its norms after, whose first half has none, y = LayerNorm(out + inner)

Each op of its own costs the host a choice of implementation, an autograd node and its arguments' binding; here a layer
has one of each. The values are those of the separate ops.

Shapes: x, residual, s, out (T, D); the products in autocast's dtype, or x's.

Reference: Vaswani et al., Attention Is All You Need, 2017; Xiong et al., On Layer Normalization in the Transformer
Architecture, 2020.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastbert.kernels.layer_launches import (
    AFTER,
    DOWN,
    DOWN_BIAS,
    IN_PRODUCTS,
    MIDDLE,
    NORM,
    OUT,
    OUT_BIAS,
    QKV,
    QKV_BIAS,
    UP,
    UP_BIAS,
    LayerLaunches,
)  # fmt: skip
from fastbert.kernels.prepared import Prepared

# cuBLAS writes a weight's gradient in float32 straight from its accumulator (PyTorch on CUDA, 2.8 and later)
_WIDENS = torch.version.hip is None


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx, launches: LayerLaunches, rest: tuple, made: list[Tensor], x, residual, *weights):
        kind, dtype, rows, device = launches.kind, launches.kind.product, launches.kind.num_tokens, x.device
        norm, norm_bias, _, _, _, _, middle, middle_bias, _, up_bias, _, _, after, after_bias = weights
        cast, narrow, cos, sin, cu_seqlens, norm_seed, attention_seed, middle_seed, after_seed = rest
        if cast is None:
            cast = [None if w is None else w.to(dtype) for w in IN_PRODUCTS(weights)]
        into, into_bias, out_of, out_bias, up, down, down_bias = cast
        turned = mean = rstd = None
        inner, summed = narrow, x
        if norm is not None:
            inner, mean = torch.empty_like(x, dtype=dtype), _vector(rows, device)
            rstd = torch.empty_like(mean)
            summed = x if residual is None else torch.empty_like(x, dtype=launches.sum_dtype)
            total = None if residual is None else summed
            launches.norm(x, residual, norm, norm_bias, norm_seed, inner, None, total, mean, rstd)
        elif inner is None:
            inner = x.to(dtype)
        heads = F.linear(inner, into, into_bias)
        if cos is not None:
            turned = heads.new_empty((rows, 2 * kind.width))
            launches.turn(turned, heads, cos, sin)
        o = torch.empty_like(inner)
        lse = torch.empty((kind.num_heads, rows), dtype=torch.float32, device=device)
        launches.attention(heads, turned, o, lse, cu_seqlens, attention_seed)
        attended = F.linear(o, out_of, out_bias)

        stream = torch.empty_like(attended, dtype=launches.stream_dtype)
        middle_mean = _vector(rows, device) if mean is None else torch.empty_like(mean)
        middle_rstd = torch.empty_like(middle_mean)
        y, second = _normed_pair(launches.stream_dtype if after is not None else dtype, dtype, attended)
        launches.middle(attended, summed, middle, middle_bias, middle_seed, y, second, stream, middle_mean, middle_rstd)
        fed = y if second is None else second
        pre = F.linear(fed, up)
        active = pre.new_empty((rows, launches.active)) if kind.gated else torch.empty_like(pre)
        launches.gelu(pre, up_bias, active)
        out = F.linear(active, down, down_bias)
        more: tuple[Tensor | None, ...] = (None,) * 5
        if after is not None:
            total = torch.empty_like(stream)
            more = after, total, torch.empty_like(middle_mean), torch.empty_like(middle_mean), after_seed
            result, again = _normed_pair(launches.stream_dtype, dtype, attended)
            launches.after(out, y, after, after_bias, after_seed, result, again, total, more[2], more[3])
            made.append(result if again is None else again)
            out = result
        ctx.launches = launches
        ctx.save_for_backward(
            summed, norm, mean, rstd, norm_seed, inner, into, heads, turned, o, lse, cos, sin, cu_seqlens,
            attention_seed, out_of, stream, middle, middle_mean, middle_rstd, middle_seed, fed, up, up_bias, pre,
            active, down, *more,
        )  # fmt: skip
        ctx.set_materialize_grads(False)
        return out, None if after is not None else stream

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, grad_sum):
        (
            summed, norm, mean, rstd, norm_seed, inner, into, heads, turned, o, lse, cos, sin, cu_seqlens,
            attention_seed, out_of, stream, middle, middle_mean, middle_rstd, middle_seed, fed, up, up_bias, pre,
            active, down, after, total, after_mean, after_rstd, after_seed,
        ) = ctx.saved_tensors  # fmt: skip
        launches = ctx.launches
        kind, stream_dtype = launches.kind, launches.stream_dtype
        gradients = _Gradients(launches, ctx.needs_input_grad[5:])
        d = torch.zeros_like(fed) if grad is None else _as_allocated(grad)
        dnormed = dresidual = None
        if after is not None:
            saved = total, after, after_seed, after_mean, after_rstd
            to = kind.product, stream_dtype
            d, dnormed = gradients.norm(AFTER, launches.after_backward, d, None, saved, to, DOWN_BIAS)
        elif grad_sum is not None:
            dresidual = _as_allocated(grad_sum)
        d = _feed_backward(gradients, d, fed, up, up_bias, pre, active, down)
        d = d if dnormed is None else dnormed + d
        saved = stream, middle, middle_seed, middle_mean, middle_rstd
        to = kind.product, launches.sum_dtype
        d, dresidual = gradients.norm(MIDDLE, launches.middle_backward, d, dresidual, saved, to, OUT_BIAS)
        d = _attend_backward(
            gradients, d, inner, into, heads, turned, o, lse, cos, sin, cu_seqlens, attention_seed, out_of
        )
        if norm is None:
            return None, None, None, (dresidual + d).to(kind.x), None, *gradients
        saved = summed, norm, norm_seed, mean, rstd
        d, dresidual = gradients.norm(NORM, launches.norm_backward, d, dresidual, saved, (kind.x, kind.residual), None)
        return None, None, None, d, dresidual, *gradients


def _feed_backward(
    gradients: "_Gradients", grad: Tensor, fed: Tensor, up: Tensor, up_bias: Tensor | None, pre: Tensor,
    active: Tensor, down: Tensor,
) -> Tensor:  # fmt: skip
    """The gradient of ``fed``. A function of its own: what it holds is free before the attention's half."""
    launches = gradients.launches
    gradients.product(DOWN, DOWN_BIAS, grad, active)
    d, dpre = torch.mm(grad, down), torch.empty_like(pre)
    parts = launches.gelu_parts(pre) if up_bias is not None and gradients.wanted[UP_BIAS] else None
    launches.gelu_backward(d, pre, up_bias, dpre, parts)
    if parts is not None:
        gradients.vector(UP_BIAS, parts.sum(0))
    gradients.product(UP, None, dpre, fed)
    return torch.mm(dpre, up)


def _attend_backward(
    gradients: "_Gradients", grad: Tensor, inner: Tensor, into: Tensor, heads: Tensor, turned: Tensor | None,
    o: Tensor, lse: Tensor, cos: Tensor | None, sin: Tensor | None, cu_seqlens: Tensor, seed: Tensor | None,
    out_of: Tensor,
) -> Tensor:  # fmt: skip
    """The gradient of ``inner``."""
    launches = gradients.launches
    gradients.product(OUT, OUT_BIAS, grad, o)
    d, dheads = torch.mm(grad, out_of), torch.empty_like(heads)
    delta = launches.delta_like(lse, heads, cu_seqlens, seed)
    launches.attention_backward(d, heads, turned, o, lse, dheads, delta, cu_seqlens, seed)
    if cos is not None:
        launches.turn_back(dheads, cos, sin)
    gradients.product(QKV, QKV_BIAS, dheads, inner)
    return torch.mm(dheads, into)


class _Gradients(list):
    """The gradients of the parameters by their places; None where none is wanted."""

    def __init__(self, launches: LayerLaunches, wanted: Sequence[bool]):
        super().__init__([None] * len(wanted))
        self.launches, self.wanted, self._dtypes = launches, wanted, launches.kind.parameters

    def vector(self, place: int, value: Tensor) -> None:
        """Keep a gradient that is wanted."""
        if self.wanted[place]:
            self[place] = value.to(self._dtypes[place])

    def product(self, weight: int, bias: int | None, grad: Tensor, x: Tensor) -> None:
        """Of x Wᵀ + b; nothing for a bias that has its gradient already."""
        if self.wanted[weight]:
            dtype = self._dtypes[weight]
            if _WIDENS and dtype == torch.float32 != grad.dtype:
                self[weight] = torch.mm(grad.t(), x, out_dtype=torch.float32)
            else:
                self[weight] = torch.mm(grad.t(), x).to(dtype)
        if bias is not None and self.wanted[bias] and self[bias] is None:
            self.vector(bias, grad.sum(0, dtype=torch.float32))

    def norm(
        self, place: int, launch: Prepared, grad: Tensor, grad_sum: Tensor | None, saved: tuple,
        to: tuple[torch.dtype, torch.dtype | None], x_bias: int | None,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """dx and dresidual of an ``add_layer_norm``.

        Args:
            place: of its weight; the bias is the next.
            saved: the sum, weight, seed, mean and rstd.
            to: dtypes of x and residual.
            x_bias: that was added to x, whose gradient the same pass sums.
        """
        launches, total = self.launches, saved[0]
        dx, dresidual = torch.empty_like(total, dtype=to[0]), None
        if to[1] is not None and (to[1] != to[0] or launches.kind.dropout_p):
            dresidual = torch.empty_like(total, dtype=to[1])
        planes = 2 if x_bias is None or not self.wanted[x_bias] else 3
        shape = planes, launches.groups, launches.kind.width
        parts = torch.empty(shape, dtype=torch.float32, device=total.device)
        launch(grad, grad_sum, *saved, dresidual, dx, parts)
        sums = parts.sum(1)
        self.vector(place, sums[0])
        self.vector(place + 1, sums[1])
        if planes == 3:
            self.vector(x_bias, sums[2])  # type: ignore[arg-type]
        return dx, dx if dresidual is None and to[1] is not None else dresidual


def _normed_pair(wide: torch.dtype, narrow: torch.dtype, like: Tensor) -> tuple[Tensor, Tensor | None]:
    """Memory for what a norm makes: in a dtype, and again in the products' where that is another."""
    return torch.empty_like(like, dtype=wide), None if wide == narrow else torch.empty_like(like, dtype=narrow)


def _vector(size: int, device: torch.device) -> Tensor:
    return torch.empty((size,), dtype=torch.float32, device=device)


def _as_allocated(x: Tensor) -> Tensor:
    """x, or a copy of a view: the launches are prepared for whole rows at an address as of the allocator."""
    return x if x.is_contiguous() and not x.data_ptr() & 15 else x.clone(memory_format=torch.contiguous_format)


class _NoContext:
    """Stands for an autograd function's context where nothing asks for a gradient."""

    launches: LayerLaunches

    def save_for_backward(self, *tensors: Tensor | None) -> None: ...

    def set_materialize_grads(self, value: bool) -> None: ...


def encoder_layer(
    launches: LayerLaunches, rest: tuple, x: Tensor, residual: Tensor | None, weights: Sequence[Tensor | None]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """A layer of packed x (T, D), plus ``residual`` where that is another; all as the kind of ``launches`` says.

    Args:
        rest: what has no gradient: casts of IN_PRODUCTS, or None, and they are made here; x in the products' dtype
            where another layer has written it; cos, sin, cu_seqlens; the four seeds of LayerLaunches.draw_seeds.
        weights: by their places.

    Returns:
        the output, the residual stream it is to be added to, and what the next layer's products read; of a layer with
        norms before the last is None, of one with its norms after the second.
    """
    made: list[Tensor] = []
    function: Any = _Layer.forward
    if torch.is_grad_enabled() and any(w is not None and w.requires_grad for w in (x, residual, *weights)):
        # Function.apply looks for torch.func's transforms, in which no kernel runs, and unwraps every argument for them
        function = super(torch.autograd.Function, _Layer).apply
        out, stream = function(launches, rest, made, x, residual, *weights)
    else:
        out, stream = function(_NoContext(), launches, rest, made, x, residual, *weights)
    return out, stream, made[0] if made else None
