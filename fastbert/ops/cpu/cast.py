"""Conversions between float32 and bfloat16, rounding to nearest as PyTorch does: the smallest example of a kernel."""

import torch
from torch import Tensor

from fastbert.system.native import compute


@torch.library.custom_op("fastbert::cpu_cast", mutates_args=())
def _cast(x: Tensor) -> Tensor:
    x = x.contiguous()
    to_bf16 = x.dtype == torch.float32
    out = torch.empty_like(x, dtype=torch.bfloat16 if to_bf16 else torch.float32)
    compute().cpu_elementwise(0 if to_bf16 else 1, x.data_ptr(), out.data_ptr(), x.numel(), torch.get_num_threads())
    return out


@_cast.register_fake
def _(x):
    return torch.empty_like(x.contiguous(), dtype=torch.bfloat16 if x.dtype == torch.float32 else torch.float32)


_cast.register_autograd(lambda ctx, grad_out: _cast(grad_out))


def cast(x: Tensor) -> Tensor:
    """float32 → bfloat16, or bfloat16 → float32.

    Raises:
        ValueError: another dtype or device.
    """
    if x.dtype not in (torch.float32, torch.bfloat16) or x.device.type != "cpu":
        raise ValueError(f"x is {x.dtype} on {x.device}: expected float32 or bfloat16 on the CPU")
    return _cast(x)
