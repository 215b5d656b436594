"""Every op's C++ implementation under the name that ``fastbert.ops`` gives it."""

from fastbert.cpu_kernels.attention import attention, qkv_attention

__all__ = ["attention", "qkv_attention"]
