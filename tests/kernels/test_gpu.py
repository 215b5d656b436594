"""Parity and determinism on a CUDA device: ``pytest -m gpu``. Everything here is skipped where there is none."""

import contextlib
import dataclasses
import functools

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed: pip install 'fastbert[gpu]'")
from fastbert import ops, reference
from fastbert.batch import pack_rows
from fastbert.config import BertConfig
from fastbert.distributed.parallelism import Parallelism
from fastbert.model import BertForPreTraining
from fastbert.optim.optimizers import Optimizers
from fastbert.training.late_readings import LateReadings
from fastbert.training.static_batch import StaticBatch, StaticShape
from fastbert.training.step_graphs import StepGraphs

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
    cos, sin = reference.rotary_tables(torch.arange(300, device="cuda"), 64, 10_000.0, torch.float32)
    two_sequences = {"cu_seqlens": torch.tensor([0, 200, 300], dtype=torch.int32, device="cuda"), "max_seqlen": 200}
    ids = torch.randint(0, 500, (100,), device="cuda")
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
        "rotary": ("rotary", {"x": rows(300, 4, 64)}, {"cos": cos, "sin": sin}),
        "qkv_attention": ("qkv_attention", {"qkv": rows(300, 3, 4, 64)}, {**two_sequences, "rotary": (cos, sin)}),
        "embed_layer_norm": (
            "embed_layer_norm",
            {"word": rows(500, 768), "position": rows(128, 768), "token_type": rows(2, 768), "weight": vector(),
             "bias": vector()},
            {"input_ids": ids, "position_ids": ids % 128, "token_type_ids": ids % 2, "eps": 1e-12},
        ),
        "feed_forward": (
            "feed_forward",
            {"x": rows(200, 128), "norm_weight": rows(128), "norm_bias": rows(128), "up_weight": 0.1 * rows(512, 128),
             "up_bias": rows(512), "down_weight": 0.1 * rows(128, 256), "down_bias": rows(128)},
            {"mlp": "geglu"},
        ),
    }  # fmt: skip


CASES = (
    "attention, short", "attention, long", "attention, head 128", "attention, head 32", "attention, window",
    "attention, bias", "attention, mask", "add_layer_norm", "bias_gelu", "geglu, tanh", "masked_lm_loss", "rotary",
    "qkv_attention", "embed_layer_norm", "feed_forward",
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
    whole = functools.partial(ops.qkv_attention, impl="reference")  # the reference has it in parts
    spec = functools.partial(getattr(reference, op, whole), **options)
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


def tiny_model(arch, impl="auto"):
    torch.manual_seed(0)
    config = BertConfig.preset(
        "tiny", arch, vocab_size=300, num_attention_heads=2, window=8 if arch == "modern" else None
    )
    return BertForPreTraining(config, impl=impl).to("cuda").train()


def a_batch(device="cuda"):
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(5, 300, (n,), generator=generator).numpy() for n in (17, 40, 1, 64)]
    batch = pack_rows(rows, masked_index=list(range(0, 122, 3)))
    return dataclasses.replace(batch, labels=batch.input_ids[batch.masked_index]).to(device)


@pytest.mark.parametrize("arch", ["modern", "classic", "roformer"])
def test_a_model_has_the_references_loss_and_gradients(arch):
    kernels, spec = tiny_model(arch), tiny_model(arch, "reference")
    spec.load_state_dict(kernels.state_dict())
    losses = [model(a_batch()).loss for model in (kernels, spec)]
    torch.testing.assert_close(*losses, rtol=1e-4, atol=0)
    for loss in losses:
        loss.backward()
    for (name, ours), right in zip(kernels.named_parameters(), spec.parameters(), strict=True):
        if right.grad is not None:
            error = (ours.grad - right.grad).norm() / right.grad.norm().clamp(min=1e-6)
            assert error <= 1e-3, f"{name}: {error}"


def step(model, optimizers):
    with torch.autocast("cuda", torch.bfloat16):
        model(a_batch()).loss.backward()
    optimizers.step(1.0)


def test_a_state_put_back_goes_on_with_the_same_bits():
    whole, parts = tiny_model("modern"), tiny_model("modern")
    first, second = Optimizers(whole), Optimizers(parts)
    for _ in range(2):
        step(whole, first)
        step(parts, second)
    saved = {name: x.cpu() for name, x in second.state_tensors().items()}
    second = Optimizers(parts)
    second.load_state_tensors(saved)
    step(whole, first)
    step(parts, second)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("accumulates", [False, True])
def test_a_captured_step_is_the_eager_one(accumulates):
    """A padded batch, replayed, against the batch as it is; and a capture changes nothing."""
    device, batch = torch.device("cuda"), a_batch("cpu")
    ours, eager = tiny_model("modern"), tiny_model("modern")
    eager.load_state_dict(ours.state_dict())
    place = StaticBatch(StaticShape(192, 8, 64, 64), batch, device)
    readings, settings = LateReadings(device), {"muon_dtype": torch.float32}
    parallelism = Parallelism(ours, Optimizers(ours, **settings))
    graphs = StepGraphs(parallelism, readings, place, contextlib.nullcontext, accumulates)
    assert all(torch.equal(x, y) for x, y in zip(ours.parameters(), eager.parameters(), strict=True))
    optimizers = Optimizers(eager, **settings)
    for factor in (1.0, 0.5, 0.25):
        graphs.step([batch], [batch], factor, 0.01)
        eager(batch.to("cuda")).loss.backward()
        optimizers.step(factor, 0.01)
    for (name, x), y in zip(ours.named_parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-4, msg=name)


def test_a_step_that_is_not_finite_changes_nothing():
    model = tiny_model("modern")
    optimizers = Optimizers(model)
    step(model, optimizers)
    before = {n: x.clone() for n, x in [*model.state_dict().items(), *optimizers.state_tensors().items()]}
    optimizers.found_inf = torch.ones((), device="cuda")
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    optimizers.step(1.0)
    after = {**model.state_dict(), **optimizers.state_tensors()}
    assert all(torch.equal(before[name], after[name]) for name in before)
