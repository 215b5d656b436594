"""Parity and determinism on a CUDA device: ``pytest -m gpu``. Everything here is skipped where there is none."""

import functools

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed: pip install 'fastbert[gpu]'")
from fastbert import ops, reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def normal(*shape, dtype):
    return torch.randn(shape, device="cuda").to(dtype)


def packed(lengths, head_dim, dtype):
    qkv = normal(sum(lengths), 3, 4, head_dim, dtype=dtype)
    cu_seqlens = torch.tensor([0, *lengths], device="cuda").cumsum(0).to(torch.int32)
    return {**dict(zip("qkv", qkv.unbind(1), strict=True)), "cu_seqlens": cu_seqlens, "max_seqlen": max(lengths)}


def padded(dtype):
    qkv = normal(4, 200, 3, 4, 64, dtype=dtype)
    mask = torch.rand(4, 200, device="cuda") > 0.3
    mask[1] = False
    return {**dict(zip("qkv", qkv.unbind(2), strict=True)), "attention_mask": mask}


def _cases(dtype):
    rows, vector = functools.partial(normal, dtype=dtype), functools.partial(normal, 768, dtype=dtype)
    labels = torch.randint(0, 30522, (77,), device="cuda")
    labels[5] = -100
    bias = normal(4, 300, 300, dtype=dtype)
    return {
        "attention, short": ("attention", packed([17, 128, 1, 64, 127], 64, dtype), {}),
        "attention, long": ("attention", packed([129, 512, 1, 300], 64, dtype), {}),
        "attention, head 128": ("attention", packed([129, 100], 128, dtype), {}),
        "attention, head 32": ("attention", packed([129, 100], 32, dtype), {}),
        "attention, window": ("attention", packed([300, 90], 64, dtype), {"window": 64}),
        "attention, bias": ("attention", {**packed([300, 90], 64, dtype), "bias": bias}, {}),
        "attention, mask": ("attention", padded(dtype), {}),
        "add_layer_norm": (
            "add_layer_norm",
            {"x": rows(1000, 768), "residual": rows(1000, 768), "weight": vector(), "bias": vector()},
            {"eps": 1e-12, "return_sum": True},
        ),
        "bias_gelu": ("bias_gelu", {"x": rows(1000, 768), "bias": vector()}, {}),
        "geglu, tanh": ("geglu", {"x": rows(1000, 768), "bias": vector()}, {"approximate": "tanh"}),
        "masked_lm_loss": (
            "masked_lm_loss",
            {"hidden": rows(77, 768), "weight": 0.05 * rows(30528, 768), "bias": rows(30528)},
            {"labels": labels, "vocab_size": 30522},
        ),
    }


CASES = (
    "attention, short", "attention, long", "attention, head 128", "attention, head 32", "attention, window",
    "attention, bias", "attention, mask", "add_layer_norm", "bias_gelu", "geglu, tanh", "masked_lm_loss",
)  # fmt: skip


def results(function, inputs, dtype=None):
    """Outputs, then gradients of the float inputs, for a fixed random output gradient."""
    leaves = {
        name: (x if dtype is None else x.to(dtype)).detach().requires_grad_()
        for name, x in inputs.items()
        if isinstance(x, torch.Tensor) and x.is_floating_point()
    }
    outputs = function(**{**inputs, **leaves})
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    generator = torch.Generator("cuda").manual_seed(7)
    low = next(x.dtype for x in inputs.values() if isinstance(x, torch.Tensor) and x.is_floating_point())
    grads = [torch.randn(out.shape, generator=generator, device="cuda").to(low).to(out.dtype) for out in outputs]
    torch.autograd.backward(outputs, grads)
    return [*(out.detach() for out in outputs), *(x.grad for x in leaves.values())]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_parity_and_determinism(name, dtype):
    torch.manual_seed(0)
    op, inputs, options = _cases(dtype)[name]
    kernel = functools.partial(getattr(ops, op), impl="triton", **options)
    spec = functools.partial(getattr(reference, op), **options)
    ours = results(kernel, inputs)
    for a, b in zip(ours, results(kernel, inputs), strict=True):
        assert torch.equal(a, b), "two runs differ"
    for index, (a, b, exact) in enumerate(
        zip(ours, results(spec, inputs), results(spec, inputs, torch.float64), strict=True)
    ):
        error, theirs = (a.double() - exact).abs().max(), (b.double() - exact).abs().max()
        # the float32 log-sum-exp: see tests/kernels/interpreted/harness.py
        roundings = 4 if dtype == torch.float32 else 2
        assert error <= 2 * theirs + roundings * torch.finfo(dtype).eps * exact.abs().max(), f"result {index}"


@pytest.mark.parametrize("length", [100, 300])
def test_dropout_draws_what_the_backward_draws(length):
    inputs = packed([length], 64, torch.float32)
    call = functools.partial(ops.attention, dropout_p=0.3, seed=5, impl="triton")
    _, *grads = results(call, inputs)
    generator = torch.Generator("cuda").manual_seed(7)
    grad_out = torch.randn(inputs["q"].shape, generator=generator, device="cuda")
    for name, grad in zip("qkv", grads, strict=True):
        step = torch.randn_like(inputs[name]) * 1e-2
        up, down = (call(**{**inputs, name: inputs[name] + sign * step}) for sign in (1, -1))
        slope = ((up - down).double() * grad_out).sum() / 2
        torch.testing.assert_close((grad * step).sum().double(), slope, rtol=2e-2, atol=1e-3)
