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
from harness import need_core, need_peer, note_rate
from kernel_contestants import CUDA, OPS, PACKAGES
from torch import Tensor

# width, sequence length, tokens
SHAPES = [(768, 128, 32768), (768, 512, 32768), (1024, 128, 32768), (1024, 512, 32768)] if CUDA else [(256, 128, 1024)]
CONTESTANTS = (
    "triton", "cpp", "torch", "compiled reference", "reference", "flex_attention", "flash-attn", "liger",
)  # fmt: skip


def both(function: Callable, leaves: list[Tensor], grad: Tensor) -> list[Tensor]:
    """The output and the gradients."""
    out = function(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad.to(out.dtype))]


def captured(function: Callable, leaves: list[Tensor], grad: Tensor) -> Callable[[], None]:
    """The same as one replay of a CUDA graph: the device's time, without the host's for each launch."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            both(function, leaves, grad)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        both(function, leaves, grad)

    def replay() -> None:
        graph.replay()
        torch.cuda.synchronize()

    return replay


def check(results: list[Tensor], spec: Callable, leaves: list[Tensor], grad: Tensor) -> None:
    """Within a few per cent of the largest value: who computes something else is not timed."""
    exact = both(spec, [x.detach().double().requires_grad_() for x in leaves], grad)
    for ours, right in zip(results, exact, strict=True):
        assert (ours.double() - right).abs().max() <= 0.03 * right.abs().max()


@pytest.mark.parametrize("contestant", CONTESTANTS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.__name__)
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
        out = run(*leaves)
        grad = torch.randn_like(out) if out.ndim else torch.ones_like(out)
    check(both(run, leaves, grad), spec, leaves, grad)
    timed = captured(run, leaves, grad) if CUDA else lambda: both(run, leaves, grad)
    benchmark.pedantic(timed, rounds=20 if CUDA else 5, warmup_rounds=3 if CUDA else 1)
    if flops is not None:
        note_rate(benchmark, "TFLOP/s", flops / 1e12)
    if moved is not None:
        note_rate(benchmark, "GB/s", moved / 1e9)
    benchmark.extra_info["device"] = torch.cuda.get_device_name() if CUDA else "CPU"
