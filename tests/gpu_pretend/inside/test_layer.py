"""A layer as one autograd function against the same layer by separate ops, which a hook inside it asks for."""

import itertools

import pytest
import torch
from pretended.kernels import SHAPES
from pretended.log import LOG

from fastbert.config import BertConfig
from fastbert.layers import Encoder

CU_SEQLENS = [0, 5, 5, 21, 33]


def run(encoder, hidden, autocast, dropout_seed=None):
    """(output, gradients) of a packed batch."""
    leaf = hidden.detach().to("cuda").requires_grad_()
    cu_seqlens = torch.tensor(CU_SEQLENS, dtype=torch.int32).to("cuda")
    if dropout_seed is not None:
        torch.manual_seed(dropout_seed)
    position_ids = torch.tensor([i for a, b in itertools.pairwise(CU_SEQLENS) for i in range(b - a)])
    with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
        out = encoder(leaf, position_ids.to("cuda"), cu_seqlens, 16)
    encoder.zero_grad()
    (out.float() * torch.arange(64, device="cuda")).sum().backward()
    return [x.detach().cpu() for x in (out, leaf.grad, *(p.grad for p in encoder.parameters()))]


def made(arch, **options):
    torch.manual_seed(0)
    config = BertConfig.preset("tiny", arch, hidden_size=64, num_attention_heads=2, intermediate_size=96, **options)
    encoder = Encoder(config)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return encoder.to("cuda").train(), torch.randn(CU_SEQLENS[-1], 64)


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("arch", ["modern", "roformer", "classic"])
def test_the_values_are_those_of_separate_ops(arch, autocast):
    encoder, hidden = made(arch, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    before = LOG.snapshot()["launches"]
    ours = run(encoder, hidden, autocast)
    launches = sum((LOG.snapshot()["launches"] - before).values())
    called = []
    for layer in encoder.layers:
        layer.attention.out.register_forward_hook(lambda *_: called.append(1))
    before = LOG.snapshot()["launches"]
    theirs = run(encoder, hidden, autocast)
    assert len(called) == len(encoder.layers)
    assert launches <= sum((LOG.snapshot()["launches"] - before).values())
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert (a - b).abs().max() <= (0.02 if autocast else 1e-5) * b.abs().max()


@pytest.mark.parametrize("arch", [pytest.param("modern", marks=pytest.mark.slow), "classic"])
def test_dropout_draws_the_same(arch):
    """The same seeds in the same order, and the biases' gradients after dropout."""
    encoder, hidden = made(arch, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2)
    ours = run(encoder, hidden, False, dropout_seed=5)
    for layer in encoder.layers:
        layer.attention.out.register_forward_hook(lambda *_: None)
    for a, b in zip(ours, run(encoder, hidden, False, dropout_seed=5), strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()


@pytest.mark.parametrize("arch", ["modern", "classic"])
def test_a_layer_with_a_hook_stands_among_others(arch):
    """It makes its own casts, and what reads its output does too."""
    encoder, hidden = made(arch, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    whole = run(encoder, hidden, True)
    called = []
    encoder.layers[1].feed_forward.register_forward_hook(lambda *_: called.append(1))
    for a, b in zip(whole, run(encoder, hidden, True), strict=True):
        assert (a - b).abs().max() <= 0.02 * b.abs().max()
    assert called


@pytest.mark.parametrize("arch", ["modern", "classic"])
def test_frozen_weights_get_no_gradient(arch):
    encoder, hidden = made(arch, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_("norm" in name)
    leaf = hidden.to("cuda").requires_grad_()
    cu_seqlens = torch.tensor(CU_SEQLENS, dtype=torch.int32).to("cuda")
    encoder(leaf, torch.zeros(33, dtype=torch.int64, device="cuda"), cu_seqlens, 16).sum().backward()
    assert all((p.grad is None) == ("norm" not in name) for name, p in encoder.named_parameters())
    assert leaf.grad is not None


@pytest.mark.parametrize("arch", ["modern", "classic"])
def test_the_norm_writes_what_the_product_reads(arch):
    """Under autocast: bfloat16 beside a sum in float32, and the gradients of Q, K and V lie where they are read."""
    encoder, hidden = made(arch)
    SHAPES.clear()
    before = LOG.snapshot()["launches"]
    run(encoder, hidden, autocast=True)
    launches = LOG.snapshot()["launches"] - before
    norms = [
        {part[0]: part[1] for part in shape if isinstance(part, tuple) and len(part) == 3}
        for shape in SHAPES
        if shape[0] == "add_layer_norm_forward_kernel"
    ]
    assert norms and all(norm["SUM"] == torch.float32 for norm in norms if "SUM" in norm)
    assert any(torch.bfloat16 in (norm["Y"], norm.get("NARROW")) for norm in norms)
    # in one launch the weights' casts, and those of the biases that products add
    assert launches["_foreach_copy_"] == 1 and launches["_to_copy"] <= 2
    assert not {"stack", "cat", "native_layer_norm"} & set(launches)
