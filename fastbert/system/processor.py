"""Capabilities of this processor and its libraries; the only home of questions about bfloat16."""

import torch


def supports_onednn_matmul(dtype: torch.dtype) -> bool:
    """Whether this PyTorch has oneDNN, and its matrix products of ``dtype`` run on this processor.

    oneDNN has no bfloat16 product without AVX-512 (or limited below it by ``ONEDNN_MAX_CPU_ISA``): it raises.
    PyTorch's own ``torch.mm`` and ``linear`` look first and serve bfloat16 everywhere.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def bf16_is_fast() -> bool:
    """Whether oneDNN multiplies bfloat16 with the processor's own instructions for it; elsewhere it is emulated."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return supports_onednn_matmul(torch.bfloat16) and any(getattr(torch.cpu, name, bool)() for name in checks)
