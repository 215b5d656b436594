"""Who computes an op, forward and backward: our kernels, the reference, PyTorch's own op, and the peers installed.

Each function takes a width, a sequence length and a number of tokens and returns ``(versions, leaves, flops, bytes)``:
name → callable of the leaves, the tensors that get gradients, and what forward and backward need at least (or None):
attention 14 · T · L · D FLOPs (two products forward, five backward), the others the bytes that a fused kernel must move
(kernels/README.md).
"""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbert import ops, reference

CUDA = torch.cuda.is_available()
DEVICE, DTYPE = ("cuda", torch.bfloat16) if CUDA else ("cpu", torch.float32)
PACKAGES = {
    "flash-attn": ("flash_attn", "flash-attn"), "liger": ("liger_kernel", "liger-kernel"),
    "packed-encoders": ("packed_encoders", "packed-encoders"),
}  # fmt: skip


@functools.cache
def compiled_flex_attention() -> Callable:
    """FlexAttention as it is meant to be used; compiled once, not in every call."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


def _leaf(*shape: int) -> Tensor:
    return torch.randn(shape, device=DEVICE, dtype=DTYPE, requires_grad=True)


def attention(width: int, length: int, tokens: int):
    cu_seqlens = torch.arange(0, tokens + 1, length, dtype=torch.int32, device=DEVICE)

    def packed(op: Callable, **options) -> Callable:
        return lambda qkv: op(*qkv.unbind(1), cu_seqlens, length, **options)

    def sdpa(qkv: Tensor) -> Tensor:
        q, k, v = qkv.view(-1, length, *qkv.shape[1:]).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(0, 1)

    def flex(qkv: Tensor) -> Tensor:
        q, k, v = qkv.view(-1, length, *qkv.shape[1:]).permute(2, 0, 3, 1, 4)
        return compiled_flex_attention()(q, k, v).transpose(1, 2).flatten(0, 1)

    def flash(qkv: Tensor) -> Tensor:
        from flash_attn import flash_attn_varlen_qkvpacked_func

        return flash_attn_varlen_qkvpacked_func(qkv, cu_seqlens, length)

    versions = {
        "triton": packed(ops.attention, impl="triton"), "cpp": packed(ops.attention, impl="cpp"), "torch": sdpa,
        "flex_attention": flex, "flash-attn": flash, "reference": packed(reference.attention),
    }  # fmt: skip
    return versions, [_leaf(tokens, 3, width // 64, 64)], 14 * tokens * length * width, None


def add_layer_norm(width: int, length: int, tokens: int):
    def own(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.layer_norm(x + residual, (width,), weight, bias, 1e-12)

    def liger(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        from liger_kernel.ops.layer_norm import LigerLayerNormFunction

        return LigerLayerNormFunction.apply(x + residual, weight, bias, 1e-12)

    versions = {
        "triton": lambda *a: ops.add_layer_norm(*a, 1e-12, impl="triton"),
        "cpp": lambda *a: ops.add_layer_norm(*a, 1e-12, impl="cpp"),
        "liger": liger,
        "torch": own,
        "reference": lambda *a: reference.add_layer_norm(*a, 1e-12),
    }
    leaves = [_leaf(tokens, width), _leaf(tokens, width), _leaf(width), _leaf(width)]
    return versions, leaves, None, 7 * DTYPE.itemsize * tokens * width


def bias_gelu(width: int, length: int, tokens: int):
    versions = {
        "triton": lambda *a: ops.bias_gelu(*a, impl="triton"),
        "cpp": lambda *a: ops.bias_gelu(*a, impl="cpp"),
        "torch": lambda x, bias: F.gelu(x + bias),
        "reference": reference.bias_gelu,
    }
    return versions, [_leaf(tokens, 4 * width), _leaf(4 * width)], None, 5 * DTYPE.itemsize * tokens * 4 * width


def geglu(width: int, length: int, tokens: int):
    def liger(x: Tensor) -> Tensor:
        from liger_kernel.ops.geglu import LigerGELUMulFunction  # its GELU is the tanh form

        return LigerGELUMulFunction.apply(*(part.contiguous() for part in x.chunk(2, -1)))

    versions = {
        "triton": lambda x: ops.geglu(x, impl="triton"),
        "cpp": lambda x: ops.geglu(x, impl="cpp"),
        "torch": lambda x: F.gelu(x.chunk(2, -1)[0]) * x.chunk(2, -1)[1],
        "liger": liger,
        "reference": reference.geglu,
    }
    inner = 8 * width // 3 // 64 * 64
    return versions, [_leaf(tokens, 2 * inner)], None, 8 * DTYPE.itemsize * tokens * inner


def masked_lm_loss(width: int, length: int, tokens: int):
    labels = torch.randint(0, 30522, (max(tokens * 15 // 100, 1),), device=DEVICE)

    def liger(hidden: Tensor, weight: Tensor) -> Tensor:
        from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction

        out = LigerFusedLinearCrossEntropyFunction.apply(hidden, weight[:30522], labels)
        return out[0] if isinstance(out, tuple) else out

    versions = {
        "triton": lambda *a: ops.masked_lm_loss(*a, None, labels, vocab_size=30522, impl="triton"),
        "cpp": lambda *a: ops.masked_lm_loss(*a, None, labels, vocab_size=30522, impl="cpp"),
        "liger": liger,
        "torch": lambda hidden, weight: F.cross_entropy(F.linear(hidden, weight)[:, :30522].float(), labels),
        "reference": lambda *a: reference.masked_lm_loss(*a, None, labels, vocab_size=30522),
    }
    leaves = [_leaf(len(labels), width), _leaf(30528, width)]
    return versions, leaves, 6 * len(labels) * width * 30528, None


OPS = (attention, add_layer_norm, bias_gelu, geglu, masked_lm_loss)
