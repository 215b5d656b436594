"""What happens to rows between the matrix products: LayerNorm with its residual, GELU, GeGLU, sums over rows.

    total = x + x_bias + residual      out = (total − mean) · rstd · weight + bias
    out = gelu(x + bias), or gelu(gate + …) · (value + …) of x = [gate | value]

Shapes: x, residual, out (T, D); vectors (D,). float32 or bfloat16, computed in float32; vectors may be of either type.
The functions here take contiguous tensors that somebody has checked; :func:`bias_gelu` and :func:`geglu` are public
ops, :func:`add_layer_norm` is one with dropout.py before it.

Reference: Ba et al., Layer Normalization, 2016; Hendrycks & Gimpel, Gaussian Error Linear Units, 2016.
"""

from typing import overload

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbert import reference
from fastbert.ops.cpu.second_order import gradients_of, under_create_graph
from fastbert.system.native import compute

BF16 = torch.bfloat16


def address(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


# ---- LayerNorm ----
def layer_norm(
    x: Tensor, x_bias: Tensor | None, residual: Tensor | None, weight: Tensor, bias: Tensor | None, eps: float,
    keep: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """out, total, mean, rstd; with ``keep`` false only out, and empty tensors for the rest."""
    rows, width = x.shape
    out = torch.empty_like(x)
    summed = x_bias is not None or residual is not None
    total = torch.empty_like(x) if keep and summed else (x if keep else x.new_empty(0))
    kept = rows if keep else 0
    mean, rstd = torch.empty((2, kept), dtype=torch.float32).unbind()
    compute().cpu_layer_norm_forward(
        x.dtype == BF16, weight.dtype == BF16, rows, width, x.data_ptr(), address(x_bias), address(residual),
        weight.data_ptr(), address(bias), eps, total.data_ptr() if keep and summed else 0, out.data_ptr(),
        mean.data_ptr() if keep else 0, rstd.data_ptr() if keep else 0, torch.get_num_threads(),
    )  # fmt: skip
    return out, total, mean, rstd


def layer_norm_backward(
    grad: Tensor, grad_sum: Tensor | None, total: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, has_bias: bool,
    sum_total: bool,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:  # fmt: skip
    """grad_total, grad_weight, grad_bias, and the sum of grad_total over rows (the gradient of a bias before it)."""
    rows, width = total.shape
    grad_total, grad_weight = torch.empty_like(total), torch.empty_like(weight)
    grad_bias = torch.empty_like(weight) if has_bias else None
    sums = torch.empty_like(weight) if sum_total else None
    compute().cpu_layer_norm_backward(
        total.dtype == BF16, weight.dtype == BF16, rows, width, grad.data_ptr(), address(grad_sum),
        total.data_ptr(), mean.data_ptr(), rstd.data_ptr(), weight.data_ptr(), grad_total.data_ptr(),
        grad_weight.data_ptr(), address(grad_bias), address(sums), torch.get_num_threads(),
    )  # fmt: skip
    return grad_total, grad_weight, grad_bias, sums


# ---- GELU ----
def gelu(x: Tensor, bias: Tensor | None, exact: bool, gated: bool) -> Tensor:
    """(T, F) of x (T, F), or of (T, 2F) when gated."""
    rows, width = x.shape[0], x.shape[1] // (2 if gated else 1)
    out = x.new_empty((rows, width))
    compute().cpu_gelu_forward(
        x.dtype == BF16, bias is not None and bias.dtype == BF16, rows, width, gated, not exact, x.data_ptr(),
        address(bias), out.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return out


def gelu_backward(
    grad: Tensor, x: Tensor, bias: Tensor | None, exact: bool, gated: bool, in_place: bool = False
) -> tuple[Tensor, Tensor | None]:
    """grad_x and grad_bias; ``in_place`` writes grad_x over grad where they are of one shape."""
    rows, width = grad.shape
    grad_x = grad if in_place and not gated else torch.empty_like(x)
    grad_bias = None if bias is None else torch.empty_like(bias)
    compute().cpu_gelu_backward(
        x.dtype == BF16, bias is not None and bias.dtype == BF16, rows, width, gated, not exact, grad.data_ptr(),
        x.data_ptr(), address(bias), grad_x.data_ptr(), address(grad_bias), torch.get_num_threads(),
    )  # fmt: skip
    return grad_x, grad_bias


def sum_rows(x: Tensor, dtype: torch.dtype) -> Tensor:
    """(D,) of x (T, D), summed in float32."""
    out = torch.empty(x.shape[1], dtype=dtype)
    compute().cpu_sum_rows(
        x.dtype == BF16, dtype == BF16, x.shape[0], x.shape[1], x.data_ptr(), out.data_ptr(),
        torch.get_num_threads(),
    )  # fmt: skip
    return out


# ---- the public ops ----
def flat(x: Tensor) -> Tensor:
    """(…, D) as contiguous (T, D)."""
    return x.reshape(x.numel() // x.shape[-1] if x.shape[-1] else 0, x.shape[-1]).contiguous()


@overload
def dense(vector: Tensor) -> Tensor: ...
@overload
def dense(vector: None) -> None: ...
def dense(vector: Tensor | None) -> Tensor | None:
    """The vector in one piece, or None."""
    return None if vector is None else vector.contiguous()


def _add_layer_norm_again(ctx, grad, grad_sum):
    total, _, _, weight, bias = ctx.saved_tensors

    def outputs(total, weight, bias):
        return F.layer_norm(total, total.shape[-1:], weight, bias, ctx.eps), total

    grad_total, *of_norm = gradients_of(outputs, [total, weight, bias], (grad, grad_sum))
    return grad_total, grad_total if ctx.has_residual else None, *of_norm, None


class _AddLayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, residual, weight, bias, eps):
        out, total, mean, rstd = layer_norm(x, None, residual, weight, bias, eps)
        ctx.save_for_backward(total, mean, rstd, weight, bias)
        ctx.eps, ctx.has_residual = eps, residual is not None
        ctx.set_materialize_grads(False)
        return out, total if residual is not None else total.view_as(total)

    @staticmethod
    @under_create_graph(_add_layer_norm_again)
    def backward(ctx, grad, grad_sum):
        total, mean, rstd, weight, bias = ctx.saved_tensors
        grad = torch.zeros_like(total) if grad is None else grad.contiguous()
        grad_sum = None if grad_sum is None else grad_sum.contiguous()
        grad_total, grad_weight, grad_bias, _ = layer_norm_backward(
            grad, grad_sum, total, mean, rstd, weight, bias is not None, False
        )
        return grad_total, grad_total if ctx.has_residual else None, grad_weight, grad_bias, None


def add_layer_norm(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    eps: float,
    *,
    return_sum: bool = False,
):
    """LayerNorm(residual + x); semantics of :func:`fastbert.reference.add_layer_norm`, without dropout (dropout.py)."""
    tokens, other = flat(x), None if residual is None else flat(residual)
    weight, bias = dense(weight), dense(bias)
    if torch.is_grad_enabled():
        out, total = _AddLayerNorm.apply(tokens, other, weight, bias, eps)
    else:
        out, total, *_ = layer_norm(tokens, None, other, weight, bias, eps, keep=return_sum)
    return (out.view(x.shape), total.view(x.shape)) if return_sum else out.view(x.shape)


def _gelu_again(ctx, grad):
    exact, gated = ctx.options
    activation, approximate = reference.geglu if gated else reference.bias_gelu, "none" if exact else "tanh"
    return *gradients_of(lambda x, bias: activation(x, bias, approximate), list(ctx.saved_tensors), (grad,)), None, None


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, bias, exact, gated):
        ctx.save_for_backward(x, bias)
        ctx.options = exact, gated
        return gelu(x, bias, exact, gated)

    @staticmethod
    @under_create_graph(_gelu_again)
    def backward(ctx, grad):
        return *gelu_backward(grad.contiguous(), *ctx.saved_tensors, *ctx.options), None, None


def _activation(x: Tensor, bias: Tensor | None, approximate: str, gated: bool) -> Tensor:
    run = _Gelu.apply if torch.is_grad_enabled() else gelu
    out = run(flat(x), dense(bias), approximate == "none", gated)
    return out.view(*x.shape[:-1], out.shape[-1])


def bias_gelu(x: Tensor, bias: Tensor | None = None, approximate: str = "none") -> Tensor:
    """GELU(x + bias)."""
    return _activation(x, bias, approximate, gated=False)


def geglu(x: Tensor, bias: Tensor | None = None, approximate: str = "none") -> Tensor:
    """GELU(gate) · value of x (…, 2F) = [gate | value]."""
    return _activation(x, bias, approximate, gated=True)
