"""Matrix products by the quickest library path: oneDNN, also in float32, where PyTorch's own choice is half as quick.

    y = x Wᵀ + b        x (T, K), W (N, K), b (N,), y (T, N)

Measured on one core (AMD Zen 5, torch 2.13, T = 1,700): float32 98 GFLOP/s through MKL, 211 through oneDNN. Without
AVX-512 (AMD Zen 3, T = 2,048) they are alike but in the weight's gradient, 60 through MKL and 45 through oneDNN.
"""

import torch
from torch import Tensor

from fastbert.system.processor import supports_onednn_matmul


def _onednn(x: Tensor) -> bool:
    """Whether to go to oneDNN directly: PyTorch does for bfloat16 where the processor has it, never for float32."""
    return x.dtype == torch.float32 and supports_onednn_matmul(torch.float32) and x.numel() > 0


def _mkl_is_quicker() -> bool:
    """In weight_gradient, in float32."""
    return torch.backends.cpu.get_cpu_capability() == "AVX2" and torch.backends.mkl.is_available()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y."""
    if x.numel() and supports_onednn_matmul(x.dtype):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return torch.nn.functional.linear(x, weight, bias)


def linear_added(x: Tensor, weight: Tensor, total: Tensor) -> Tensor:
    """x Wᵀ + total."""
    if _onednn(x):
        return linear(x, weight).add_(total)
    return torch.addmm(total, x, weight.t())


def input_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    """grad_y W, (T, K)."""
    if _onednn(grad):
        return torch.ops.mkldnn._linear_pointwise(grad, weight.t(), None, "none", [], "")
    return torch.mm(grad, weight)


def weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """grad_yᵀ x, (N, K)."""
    if _onednn(grad) and not _mkl_is_quicker():
        return torch.ops.mkldnn._linear_pointwise(grad.t(), x.t(), None, "none", [], "")
    return torch.mm(grad.t(), x)


def add_input_gradient(total: Tensor, grad: Tensor, weight: Tensor) -> Tensor:
    """total + grad_y W, in total's place."""
    if _onednn(grad):
        return total.add_(input_gradient(grad, weight))
    return total.addmm_(grad, weight)
