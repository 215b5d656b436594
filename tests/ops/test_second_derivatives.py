"""Second derivatives through every op's kernel are the reference's; what a kernel dropped is refused."""

import dataclasses

import pytest
import torch

from fastbert import layers, ops, reference
from fastbert.batch import pack_rows
from fastbert.config import BertConfig
from support import make_model

CU = torch.tensor([0, 5, 12], dtype=torch.int32)
ZEROS, TABLES = torch.zeros(64), reference.rotary_tables(torch.arange(12), 32, 1e4, torch.float32)
MASK = torch.arange(6) < torch.tensor([[4], [6]])
TOKENS = torch.arange(12)
with torch.random.fork_rng():
    torch.manual_seed(0)
    QKV, OUT, UP, DOWN, WORDS = (torch.randn(*s) * 0.1 for s in ((192, 64), (64, 64), (128, 64), (64, 128), (50, 64)))

OPS = {
    "bias_gelu": lambda x, w, impl: ops.bias_gelu(x, w, impl=impl),
    "geglu": lambda x, w, impl: ops.geglu(x, w, "tanh", impl=impl),
    "add_layer_norm": lambda x, w, impl: ops.add_layer_norm(x, x.sin(), w, ZEROS, 1e-5, impl=impl),
    "add_layer_norm: sum": lambda x, w, impl: sum(
        y.sin() for y in ops.add_layer_norm(x, x.sin(), w, None, 1e-5, return_sum=True, impl=impl)
    ),
    "feed_forward: pre": lambda x, w, impl: ops.feed_forward(x, w, ZEROS, UP, None, DOWN, ZEROS, impl=impl),
    "feed_forward: post": lambda x, w, impl: ops.feed_forward(
        x, w, ZEROS, UP, None, DOWN, ZEROS, norm="post", impl=impl
    ),
    "self_attention: post": lambda x, w, impl: ops.self_attention(
        x, w, ZEROS, QKV, None, OUT, None, CU, 7, num_heads=2, rotary=TABLES, window=3, impl=impl
    ),
    "self_attention: pre": lambda x, w, impl: ops.self_attention(
        x, w, ZEROS, QKV, None, OUT, ZEROS, CU, 7, num_heads=2, norm="pre", rows=torch.tensor([1, 5]), impl=impl
    ),
    "attention: packed": lambda x, w, impl: ops.attention(*[(x * w).view(12, 2, 32)] * 3, CU, 7, impl=impl),
    "attention: padded": lambda x, w, impl: ops.attention(
        *[(x * w).view(2, 6, 2, 32)] * 3, attention_mask=MASK, window=2, impl=impl
    ),
    "qkv_attention": lambda x, w, impl: ops.qkv_attention(
        torch.stack([x * w, x, x.sin()], 1).unflatten(-1, (2, 32)), CU, 7, rotary=TABLES, impl=impl
    ),
    "masked_lm_loss": lambda x, w, impl: ops.masked_lm_loss(x * w, WORDS, None, TOKENS, impl=impl),
    "embed_layer_norm": lambda x, w, impl: ops.embed_layer_norm(
        TOKENS % 7, TOKENS, None, x, x.cos(), None, w, ZEROS, 1e-5, impl=impl
    ),
}  # fmt: skip


@pytest.mark.parametrize("op", OPS)
def test_they_are_those_of_the_reference(op):
    def second(impl):
        x = torch.linspace(-2, 2, 768).view(12, 64).sin().requires_grad_()
        w = torch.linspace(0.5, 1.5, 64).requires_grad_()
        first = torch.autograd.grad(OPS[op](x, w, impl).sin().sum(), (x, w), create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), (x, w))

    for found, right in zip(second("auto"), second("reference"), strict=True):
        assert (found - right).norm() <= 2e-3 * right.norm()


def test_a_gradient_penalty_of_a_whole_model():
    batch = dataclasses.replace(
        pack_rows([[1, 2, 3, 4, 5], [6, 7, 8]], masked_index=[1, 5]), labels=torch.tensor([9, 8])
    )

    def penalty(impl):
        model = make_model("modern", vocab_size=100, num_hidden_layers=1).train()
        for module in model.modules():
            module.impl = impl
        parameters = list(model.parameters())
        first = torch.autograd.grad(model(batch).loss, parameters, create_graph=True, allow_unused=True)
        sum(g.square().sum() for g in first if g is not None).backward()
        return model.embeddings.word.weight.grad

    right = penalty("reference")
    assert (penalty("auto") - right).norm() <= 2e-3 * right.norm()


def test_dropout_inside_a_kernel_is_refused():
    config = BertConfig.preset("tiny", vocab_size=100, hidden_dropout_prob=0.1, num_hidden_layers=1)
    layer, x = layers.EncoderLayer(config).train(), torch.randn(12, 128, requires_grad=True)
    out = layer(x, CU, 7)
    if ops.choose("self_attention", "auto", {"x": x.detach()}, num_heads=2)[0] == "cpp":
        with pytest.raises(RuntimeError, match="create_graph"):
            torch.autograd.grad(out.sum(), x, create_graph=True)


@pytest.mark.parametrize("op", ["bias_gelu", "add_layer_norm", "feed_forward: pre", "attention: padded"])
def test_many_gradients_at_once(op):
    """``is_grads_batched`` maps the backward over the first dimension of the gradients."""
    x, w = torch.linspace(-2, 2, 768).view(12, 64).sin().requires_grad_(), torch.ones(64)
    weights = torch.randn(3, 768)
    out = OPS[op](x, w, "auto").reshape(-1)
    (found,) = torch.autograd.grad(out, x, weights, is_grads_batched=True)
    right = [torch.autograd.grad(OPS[op](x, w, "reference").reshape(-1), x, weight)[0] for weight in weights]
    torch.testing.assert_close(found, torch.stack(right), rtol=1e-4, atol=1e-4)
