"""The hot ops, forward and backward, against PyTorch: ``pytest benchmarks/test_kernels.py --benchmark-only``.

On a CUDA device in bfloat16: the Triton kernels, PyTorch's own op (attention: SDPA and FlexAttention), the reference
under torch.compile, and flash-attn and Liger where they are installed, at BERT-base and large. Elsewhere the C++
kernels, the reference and PyTorch's own op in float32 at a small size; what needs a GPU is skipped with the reason.
Every contestant's result is checked against the reference in float64 before it is timed. ``extra_info`` has the rate:
TFLOP/s for attention (14 · T · L · D FLOPs: two products forward, five backward), GB/s for the others by the bytes that
a fused kernel must move (kernels/README.md).
"""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from harness import need_core, need_peer, note_rate
from torch import Tensor

from fastbert import ops, reference

CUDA = torch.cuda.is_available()
DEVICE, DTYPE = ("cuda", torch.bfloat16) if CUDA else ("cpu", torch.float32)
# width, sequence length, tokens
SHAPES = [(768, 128, 32768), (768, 512, 32768), (1024, 128, 32768), (1024, 512, 32768)] if CUDA else [(256, 128, 1024)]
CONTESTANTS = (
    "triton", "cpp", "torch", "compiled reference", "reference", "flex_attention", "flash-attn", "liger",
)  # fmt: skip
PACKAGES = {"flash-attn": ("flash_attn", "flash-attn"), "liger": ("liger_kernel", "liger-kernel")}


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
        from torch.nn.attention.flex_attention import flex_attention

        q, k, v = qkv.view(-1, length, *qkv.shape[1:]).permute(2, 0, 3, 1, 4)
        return torch.compile(flex_attention)(q, k, v).transpose(1, 2).flatten(0, 1)

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


def both(function: Callable, leaves: list[Tensor], grad: Tensor) -> list[Tensor]:
    """The output and the gradients."""
    out = function(*leaves)
    results = [out.detach(), *torch.autograd.grad(out, leaves, grad.to(out.dtype))]
    if CUDA:
        torch.cuda.synchronize()
    return results


def check(results: list[Tensor], spec: Callable, leaves: list[Tensor], grad: Tensor) -> None:
    """Within a few per cent of the largest value: who computes something else is not timed."""
    exact = both(spec, [x.detach().double().requires_grad_() for x in leaves], grad)
    for ours, right in zip(results, exact, strict=True):
        assert (ours.double() - right).abs().max() <= 0.03 * right.abs().max()


@pytest.mark.parametrize("contestant", CONTESTANTS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize(
    "op", [attention, add_layer_norm, bias_gelu, geglu, masked_lm_loss], ids=lambda op: op.__name__
)
def test_forward_and_backward(benchmark, op, shape, contestant):
    torch.manual_seed(0)
    benchmark.group = f"{op.__name__} {shape}"
    versions, leaves, flops, moved = op(*shape)
    if contestant != "compiled reference" and contestant not in versions:
        pytest.skip(f"{contestant}: has no {op.__name__}")
    if contestant == "cpp":
        need_core()
        if CUDA:
            pytest.skip("cpp: serves CPU tensors")
    if contestant not in ("cpp", "torch", "reference") and not CUDA:
        pytest.skip(f"{contestant}: no CUDA device")
    if contestant in PACKAGES:
        need_peer(*PACKAGES[contestant])
    spec = versions["reference"]
    run = torch.compile(spec) if contestant == "compiled reference" else versions[contestant]
    with torch.no_grad():
        grad = torch.ones_like(run(*leaves)) if op is masked_lm_loss else torch.randn_like(run(*leaves))
    check(both(run, leaves, grad), spec, leaves, grad)
    benchmark.pedantic(both, (run, leaves, grad), rounds=20 if CUDA else 5, warmup_rounds=3 if CUDA else 1)
    if flops is not None:
        note_rate(benchmark, "TFLOP/s", flops / 1e12)
    if moved is not None:
        note_rate(benchmark, "GB/s", moved / 1e9)
    benchmark.extra_info["device"] = torch.cuda.get_device_name() if CUDA else "CPU"
