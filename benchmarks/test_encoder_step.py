"""One training step of a whole BERT encoder: ``pytest benchmarks --benchmark-only -k encoder_step``.

On a CUDA device in bfloat16 (autocast) at BERT-base and large, sequences of 128 and 512; elsewhere float32, BERT-mini.
Padded batches are a quarter padding. Every contestant has the same weights, and its hidden states at real tokens are
checked against transformers' eager attention before it is timed. ``extra_info`` has real tokens a second: padding that
is computed counts for nothing. Save with ``--benchmark-json FILE``.
"""

import contextlib
import copy
import functools
import importlib.util

import pytest
import torch
from harness import need_peer, note_rate
from torch import Tensor

import fastbert
from fastbert.batch import pack

transformers = need_peer("transformers", "transformers")
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
# layers, width, length, sequences
SHAPES = {
    "base-128": (12, 768, 128, 128), "base-512": (12, 768, 512, 32),
    "large-128": (24, 1024, 128, 64), "large-512": (24, 1024, 512, 16),
} if CUDA else {"mini-128": (4, 256, 128, 8)}  # fmt: skip
CONTESTANTS = (
    "fastbert packed", "transformers sdpa", "transformers eager", "transformers compiled",
    "transformers flex_attention", "transformers flash_attention_2", "accelerated",
    "accelerated, padding dropped", "liger",
)  # fmt: skip


def skip_reason(name: str) -> str | None:
    if name == "liger":
        return "liger-kernel has no BERT; its LayerNorm and GeGLU are in test_kernels.py"
    if name in ("transformers compiled", "transformers flex_attention") and not CUDA:
        return f"{name}: measured on a CUDA device only"
    if name == "transformers flash_attention_2" and not (CUDA and importlib.util.find_spec("flash_attn")):
        return f"{name}: needs a CUDA device and `pip install flash-attn`"
    return None


@functools.cache
def stock(shape: str):
    layers, width, length, _ = SHAPES[shape]
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=8192, hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 64,
        intermediate_size=4 * width, max_position_embeddings=length, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return transformers.BertForPreTraining(config)


def contestant(name: str, shape: str, directory, ids: Tensor, mask: Tensor):
    """A function that runs forward and backward and returns the hidden states of real tokens."""
    real = mask.flatten().nonzero().squeeze(1)
    if name == "fastbert packed":
        stock(shape).save_pretrained(directory)
        ours = fastbert.BertForPreTraining.from_pretrained(directory).to(DEVICE).train()
        batch, _ = pack(ids, mask)
        return ours, lambda: ours.encode(batch)
    model = copy.deepcopy(stock(shape).bert).to(DEVICE).train()
    kind = name.removeprefix("transformers ") if name.startswith("transformers") else "sdpa"
    model.set_attn_implementation("sdpa" if kind == "compiled" else kind)
    if name.startswith("accelerated"):
        fastbert.accelerate(model, drop_padding="dropped" in name)
    call = torch.compile(model) if kind == "compiled" else model
    return model, lambda: call(ids, attention_mask=mask).last_hidden_state.flatten(0, 1).index_select(0, real)


@pytest.mark.parametrize("padding", [0.0, 0.25], ids=["full", "padded"])
@pytest.mark.parametrize("name", CONTESTANTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_encoder_step(benchmark, tmp_path, shape, name, padding):
    if why := skip_reason(name):
        pytest.skip(why)
    _, _, length, count = SHAPES[shape]
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 8192, (count, length), generator=generator).to(DEVICE)
    shortest = int(length * (1 - 2 * padding))
    lengths = torch.linspace(shortest, length, count).long().to(DEVICE)
    mask = (torch.arange(length, device=DEVICE) < lengths[:, None]).long()
    low = torch.autocast("cuda", torch.bfloat16) if CUDA else contextlib.nullcontext()
    model, forward = contestant(name, shape, tmp_path, ids, mask)
    benchmark.group = f"encoder step {shape} {'padded' if padding else 'full'}"

    def step() -> Tensor:
        model.zero_grad()
        with low:
            hidden = forward()
        hidden.float().square().mean().backward()
        if CUDA:
            torch.cuda.synchronize()
        return hidden.detach()

    with torch.no_grad():
        spec = contestant("transformers eager", shape, tmp_path, ids, mask)[1]()
    error = (step().float() - spec.float()).abs().max() / spec.abs().max()
    assert error <= (0.05 if CUDA else 1e-4), f"{name} computes something else: {error:.2g}"
    benchmark.pedantic(step, rounds=20 if CUDA else 3, warmup_rounds=3 if CUDA else 1)
    note_rate(benchmark, "real tokens/s", int(mask.sum()))
    benchmark.extra_info["device"] = torch.cuda.get_device_name() if CUDA else "CPU"
