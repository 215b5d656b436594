"""A kernel stands for a module only where the module is stock: adapters, hooks and replaced parts are called."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

import fastbert
from fastbert import layers
from fastbert.batch import pack
from fastbert.config import BertConfig
from fastbert.inference.frozen_model import FrozenModel
from fastbert.model import BertForPreTraining

CU = torch.tensor([0, 5, 12], dtype=torch.int32)


def config(**changes):
    sizes = {"vocab_size": 100, "hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128}
    return BertConfig(**{**sizes, "num_hidden_layers": 2, **changes})


class Adapter(nn.Module):
    """As LoRA wraps a Linear: the weight can still be read, but says only a part."""

    def __init__(self, base):
        super().__init__()
        self.base, self.more = base, nn.Linear(base.in_features, base.out_features, bias=False)

    weight = property(lambda self: self.base.weight)
    bias = property(lambda self: self.base.bias)

    def forward(self, x):
        return self.base(x) + self.more(x)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", ["attention.qkv", "attention.out", "feed_forward.up", "feed_forward.down"])
def test_an_adapter_is_called(name, packed):
    layer, x = layers.EncoderLayer(config()).eval(), torch.randn(12, 64)

    def run():
        return layer(x, CU, 7) if packed else layer(x.view(2, 6, 64))

    before = run()
    parent, leaf = name.split(".")
    part = getattr(layer, parent)
    setattr(part, leaf, Adapter(getattr(part, leaf)))
    assert (run() - before).abs().max() > 1e-3


def test_an_adapter_on_the_head_is_called():
    model, ids = BertForPreTraining(config()).eval(), torch.randint(0, 99, (2, 6))
    before = model(ids).prediction_logits
    model.head.dense = Adapter(model.head.dense)
    assert (model(ids).prediction_logits - before).abs().max() > 1e-4


def test_a_replaced_norm_is_called():
    class RMSNorm(nn.LayerNorm):
        def forward(self, x):
            return x * x.square().mean(-1, keepdim=True).rsqrt()

    layer, x = layers.EncoderLayer(config()).eval(), torch.randn(12, 64) + 3
    before = layer(x, CU, 7)
    layer.feed_forward_norm = RMSNorm(64)
    assert (layer(x, CU, 7) - before).abs().max() > 1e-3


def test_a_pruned_projection_follows_its_parameter():
    feed_forward, x = layers.FeedForward(64, 128), torch.randn(5, 64)
    prune.identity(feed_forward.up, "weight")
    with torch.no_grad():
        feed_forward.up.weight_orig.mul_(2)
    up = F.linear(x, feed_forward.up.weight_orig, feed_forward.up.bias)
    torch.testing.assert_close(feed_forward(x), feed_forward.down(F.gelu(up)))


@pytest.mark.parametrize(
    "parametrization", [nn.utils.parametrizations.spectral_norm, nn.utils.parametrizations.weight_norm]
)
def test_a_parametrized_projection_follows_its_original(parametrization):
    feed_forward, x = layers.FeedForward(64, 128), torch.randn(5, 64)
    parametrization(feed_forward.up, "weight")
    feed_forward.eval()  # spectral_norm iterates in training
    out = feed_forward(x)
    torch.testing.assert_close(
        out, feed_forward.down(F.gelu(F.linear(x, feed_forward.up.weight, feed_forward.up.bias)))
    )
    out.sum().backward()
    originals = list(feed_forward.up.parametrizations.weight.parameters())
    assert originals and all(p.grad is not None and p.grad.abs().max() > 0 for p in originals)


def test_backward_hooks_run():
    encoder, seen = layers.Encoder(config()), set()
    leaves = {name: m for name, m in encoder.named_modules() if isinstance(m, nn.Linear | nn.LayerNorm)}
    for name, module in leaves.items():
        module.register_full_backward_hook(lambda module, into, out, name=name: seen.add(name))
    x = torch.randn(12, 64, requires_grad=True)
    (encoder(x, None, CU, 7) * torch.randn(12, 64)).sum().backward()
    assert seen == set(leaves)


REPLACED = {
    "padding_idx": lambda e: setattr(e, "word", nn.Embedding(100, 64, padding_idx=3)),
    "max_norm": lambda e: setattr(e, "word", nn.Embedding(100, 64, max_norm=1.0)),
    "scale_grad_by_freq": lambda e: setattr(e, "word", nn.Embedding(100, 64, scale_grad_by_freq=True)),
    "sparse": lambda e: setattr(e, "word", nn.Embedding(100, 64, sparse=True)),
    "a norm without weights": lambda e: setattr(e, "norm", nn.LayerNorm(64, elementwise_affine=False)),
    "a norm over two dimensions": lambda e: setattr(e, "norm", nn.LayerNorm((5, 64))),
}


@pytest.mark.parametrize("part", REPLACED)
def test_options_of_embeddings_and_norms_are_kept(part):
    torch.manual_seed(0)
    embeddings, ids = layers.Embeddings(config()), torch.tensor([[1, 2, 3, 3, 3], [4, 3, 2, 2, 5]])
    REPLACED[part](embeddings)
    stock = copy.deepcopy(embeddings)
    found, positions = embeddings(ids), torch.arange(5).expand_as(ids)
    right = stock.norm(stock.word(ids) + stock.position(positions) + stock.token_type(torch.zeros_like(ids)))
    torch.testing.assert_close(found, right)
    weight = torch.randn(right.shape)
    for out in (found, right):
        (out * weight).sum().backward()
    got, expected = embeddings.word.weight.grad, stock.word.weight.grad
    assert got.is_sparse == expected.is_sparse
    torch.testing.assert_close(got.to_dense(), expected.to_dense(), rtol=1e-4, atol=1e-5)


def test_a_forward_that_is_patched_for_a_class_is_called(monkeypatch):
    layer, x = layers.EncoderLayer(config()).eval(), torch.randn(12, 64)
    before = layer(x, CU, 7)
    stock = nn.Linear.forward
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: 2 * stock(self, x))
    assert (layer(x, CU, 7) - before).abs().max() > 1e-3


def test_accelerate_calls_a_forward_that_was_patched_on_the_instance():
    stock = nn.TransformerEncoderLayer(64, 4, 96, 0.0, "gelu", batch_first=True)
    accelerated = copy.deepcopy(stock)
    fastbert.accelerate(accelerated)
    for layer in (stock, accelerated):
        layer.norm2.forward = lambda x, forward=layer.norm2.forward: forward(x) * 3
    x = torch.randn(2, 5, 64)
    torch.testing.assert_close(accelerated(x), stock(x), rtol=1e-4, atol=1e-4)


def test_one_fused_layer_means_what_its_parts_mean():
    layer, x = layers.EncoderLayer(config(attention_probs_dropout_prob=0.5)).train(), torch.randn(12, 64)
    layer.attention.eval()
    assert layer(x, CU, 7).equal(layer(x, CU, 7)), "attention in evaluation drops nothing"
    with pytest.raises(ValueError, match="attention_mask"):
        layer(x, CU, 7, attention_mask=torch.zeros(2, 7))
    layer.attention_norm.eps = 1.0
    fused = layer(x, CU, 7)
    layer.impl = layer.attention.impl = layer.feed_forward.impl = "reference"
    torch.testing.assert_close(fused, layer(x, CU, 7), rtol=1e-4, atol=1e-4)


def rewrite_rows(model):
    model.encoder.layers[0].attention.qkv.weight.data[:10].add_(torch.randn(10, 64))  # PyTorch does not count this


CHANGES = {
    "parameter": lambda m: setattr(m.encoder.layers[0].attention.qkv, "weight", nn.Parameter(torch.randn(192, 64))),
    "assign": lambda m: m.load_state_dict(BertForPreTraining(config()).state_dict(), assign=True),
    "layer": lambda m: m.encoder.layers.__setitem__(0, layers.EncoderLayer(config())),
    "fewer layers": lambda m: setattr(m.encoder, "layers", m.encoder.layers[:1]),
    "window": lambda m: setattr(m.encoder.layers[0].attention, "window", 1),
    "eps": lambda m: setattr(m.encoder.layers[0].feed_forward_norm, "eps", 1.0),
    "rows": rewrite_rows,
    "transposed": lambda m: setattr(
        m.encoder.layers[0].attention.out.weight, "data", m.encoder.layers[0].attention.out.weight.data.t()
    ),
    "swapped": lambda m: torch.utils.swap_tensors(
        m.encoder.layers[0].attention.qkv.weight, nn.Parameter(torch.randn(192, 64))
    ),
    "heads": lambda m: [setattr(m.encoder.layers[0].attention, *x) for x in (("num_heads", 4), ("head_dim", 16))],
    "hook": lambda m: m.encoder.layers[1].feed_forward.register_forward_hook(lambda module, into, out: 2 * out),
    "scripted": lambda m: setattr(m.encoder.layers[0], "feed_forward_norm", torch.jit.script(nn.LayerNorm(64, 1.0))),
    "adapter": lambda m: setattr(
        m.encoder.layers[0].attention, "qkv", Adapter(m.encoder.layers[0].attention.qkv)
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_frozen_model_follows_its_model(change):
    torch.manual_seed(0)
    model = BertForPreTraining(config()).eval()
    batch, _ = pack(torch.randint(0, 99, (2, 6)))
    frozen = FrozenModel(model, torch.float32)
    with torch.no_grad():
        before = frozen.encode(batch)
        CHANGES[change](model)
        found = frozen.encode(batch)
        torch.testing.assert_close(found, model.encode(batch), rtol=1e-4, atol=1e-4)
    assert not torch.equal(before, found)
