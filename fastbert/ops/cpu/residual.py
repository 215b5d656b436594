"""The end of a layer's half: a projection whose output joins the residual.

    added: out = residual + drop(W z + b)        normed: out = LayerNorm(residual + drop(W z + b))

Shapes: z (M, F), W (D, F), residual and out (M, D); contiguous, as rows.py wants them.
"""

from torch import Tensor

from fastbert.ops.cpu import matmul, rows
from fastbert.ops.cpu.dropout import drop

# of a LayerNorm behind the sum: the sum, its means, 1 / its deviations, the norm's weight, whether it has a bias
Normed = tuple[Tensor, Tensor, Tensor, Tensor, bool]


def added(
    z: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor, dropout_p: float = 0.0, seed: int = 0
) -> Tensor:
    if dropout_p:
        out = drop(matmul.linear(z, weight), bias, dropout_p, seed, in_place=True)
        out += residual
        return out
    out = matmul.linear_added(z, weight, residual)
    if bias is not None:
        out += bias
    return out


def normed(
    z: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor, norm_weight: Tensor, norm_bias: Tensor | None,
    eps: float, keep: bool, dropout_p: float = 0.0, seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """out, and what its backward needs where it is to be kept: total, mean, rstd."""
    out = matmul.linear(z, weight)
    if dropout_p:
        out, bias = drop(out, bias, dropout_p, seed, in_place=True), None
    return rows.layer_norm(out, bias, residual, norm_weight, norm_bias, eps, keep)


def backward(
    grad: Tensor, z: Tensor, weight: Tensor, bias: Tensor | None, norm: Normed | None, dropout_p: float, seed: int
) -> tuple[Tensor, Tensor, list[Tensor | None], list[Tensor | None]]:
    """The gradients of residual and z, of the norm's weight and bias, and of W and b.

    That of the residual is ``grad`` itself where there is no norm, else its own.
    """
    of_norm: list[Tensor | None] = [None, None]
    grad_bias = None
    if norm is not None:
        grad, grad_norm_weight, grad_norm_bias, grad_bias = rows.layer_norm_backward(
            grad, None, *norm, bias is not None
        )
        of_norm = [grad_norm_weight, grad_norm_bias]
    grad_out = drop(grad, None, dropout_p, seed) if dropout_p else grad
    if bias is not None and (dropout_p or norm is None):
        grad_bias = rows.sum_rows(grad_out, bias.dtype)
    of_weight = matmul.weight_gradient(grad_out, z)
    return grad, matmul.input_gradient(grad_out, weight), of_norm, [of_weight, grad_bias]
