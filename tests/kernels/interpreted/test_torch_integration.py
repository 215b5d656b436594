"""The custom ops as PyTorch sees them: schema, fakes, torch.compile, export, checkpointing, autocast."""

import functools

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from fastbert import ops, reference
from fastbert.kernels import feed_forward as _feed_forward  # noqa: F401  registers the op
from fastbert.kernels.attention.op import attention
from fastbert.kernels.embed import embed_layer_norm
from fastbert.kernels.gelu import bias_gelu, geglu
from fastbert.kernels.loss import masked_lm_loss
from fastbert.kernels.norm import add_layer_norm
from fastbert.kernels.rotary import rotary

torch.manual_seed(0)
CU_SEQLENS = torch.tensor([0, 9, 16], dtype=torch.int32)
SEED = torch.tensor([5])


def leaf(*shape):
    return torch.randn(shape, requires_grad=True)


def _ops():
    custom = torch.ops.fastbert
    ids = torch.randint(0, 20, (6,))
    return {
        "attention": (
            custom.attention, (*leaf(16, 3, 2, 16).unbind(1), CU_SEQLENS, None, None, None, 9, -1, 0.25, 0.0)
        ),
        "attention, every option": (
            custom.attention,
            (*leaf(2, 8, 3, 2, 16).flatten(0, 1).unbind(1), None, torch.ones(16, dtype=torch.int8), leaf(1, 2, 8, 8),
             SEED, 8, 3, 0.25, 0.2),
        ),
        "add_layer_norm": (
            custom.add_layer_norm, (leaf(4, 16), leaf(4, 16), leaf(16), leaf(16), None, 1e-5, 0.0, True)
        ),
        "add_layer_norm, dropout": (
            custom.add_layer_norm, (leaf(4, 16), leaf(4, 16), leaf(16), None, SEED, 1e-5, 0.2, True)
        ),
        "gelu": (custom.gelu, (leaf(4, 16), leaf(16), True, False)),
        "geglu": (custom.gelu, (leaf(4, 32), leaf(32), False, True)),
        "rotary": (custom.rotary, (leaf(4, 2, 16), torch.randn(4, 8), torch.randn(4, 8), False)),
        "embed_layer_norm": (
            custom.embed_layer_norm, (ids, ids, None, leaf(20, 16), leaf(20, 16), None, leaf(16), leaf(16), 1e-5)
        ),
        "feed_forward": (
            custom.feed_forward,
            (leaf(4, 16), leaf(16), leaf(16), leaf(24, 16), leaf(24), leaf(16, 24), leaf(16), 1e-5, True, False),
        ),
        "feed_forward, plain": (
            custom.feed_forward, (leaf(4, 16), None, None, leaf(24, 16), None, leaf(16, 12), None, 1e-5, True, True)
        ),
        "masked_lm_loss": (custom.masked_lm_loss, (leaf(5, 16), leaf(24, 16), leaf(24), torch.arange(5), 20, 5, True)),
    }  # fmt: skip


@pytest.mark.parametrize("name", _ops())
def test_opcheck(name):
    op, arguments = _ops()[name]
    torch.library.opcheck(op.default, arguments)


def _public(name):
    """A public function of one packed activation, as a model calls it."""
    weight, bias = torch.randn(32), torch.randn(32)
    cos, sin = reference.rotary_tables(torch.arange(16), 16, 10000.0, torch.float32)
    words, labels = torch.randn(24, 32), torch.arange(16)
    return {
        "attention": lambda x: attention(
            x.view(16, 2, 16), rotary(x.view(16, 2, 16), cos, sin), x.view(16, 2, 16), CU_SEQLENS, 9, window=4
        ),
        "attention, dropout": lambda x: attention(*[x.view(16, 2, 16)] * 3, CU_SEQLENS, 9, dropout_p=0.3),
        "add_layer_norm": lambda x: add_layer_norm(x, x, weight, bias, 1e-5, return_sum=True)[1],
        "add_layer_norm, dropout": lambda x: add_layer_norm(x, x, weight, bias, 1e-5, dropout_p=0.3),
        "bias_gelu": lambda x: bias_gelu(x, bias),
        "geglu": lambda x: geglu(x, bias, "tanh"),
        "embed_layer_norm": lambda x: embed_layer_norm(labels, labels, None, x, x, None, weight, bias, 1e-5),
        "masked_lm_loss": lambda x: masked_lm_loss(x, words, None, labels, vocab_size=20),
    }[name]


PUBLIC = (
    "attention", "attention, dropout", "add_layer_norm", "add_layer_norm, dropout", "bias_gelu", "geglu",
    "embed_layer_norm", "masked_lm_loss",
)  # fmt: skip


def _result(function):
    torch.manual_seed(3)
    x = torch.randn(16, 32, requires_grad=True)
    out = function(x)
    out.sum().backward()
    return out.detach(), x.grad


@pytest.mark.parametrize("name", PUBLIC)
def test_compile_and_checkpoint_change_nothing(name):
    function = _public(name)
    expected = _result(function)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for variant in (compiled, functools.partial(checkpoint, function, use_reentrant=False)):
        for ours, theirs in zip(_result(variant), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_export():
    class Block(torch.nn.Module):
        def forward(self, x):
            return bias_gelu(attention(*[x.view(16, 2, 16)] * 3, CU_SEQLENS, 9).flatten(1), None)

    x = torch.randn(16, 32)
    exported = torch.export.export(Block(), (x,)).module()
    torch.testing.assert_close(exported(x), Block()(x))


def test_autocast():
    """Linear layers hand out bfloat16, weights stay float32."""
    x, weight = torch.randn(16, 32), torch.nn.Parameter(torch.ones(32))
    linear = torch.nn.Linear(32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = linear(x)
        context = attention(*[hidden.view(16, 2, 16)] * 3, CU_SEQLENS, 9).flatten(1)
        normed = add_layer_norm(context, x, weight, None, 1e-5)
        loss = masked_lm_loss(bias_gelu(hidden, linear.bias), linear.weight, None, torch.arange(16))
    assert hidden.dtype == context.dtype == torch.bfloat16 and normed.dtype == loss.dtype == torch.float32
    (normed.sum() + loss).backward()
    assert weight.grad.dtype == linear.weight.grad.dtype == torch.float32


def test_gradcheck_of_the_reference():
    """The ground truth's own gradients, against finite differences in float64."""
    double = functools.partial(torch.randn, dtype=torch.float64, requires_grad=True)
    gradcheck = functools.partial(torch.autograd.gradcheck, eps=1e-6, atol=1e-5)
    q, k, v = double(5, 1, 4), double(5, 1, 4), double(5, 1, 4)
    cu_seqlens = torch.tensor([0, 2, 5], dtype=torch.int32)
    bias = double(1, 3, 3)
    assert gradcheck(lambda *a: reference.attention(*a[:3], cu_seqlens, 3, window=1, bias=a[3]), (q, k, v, bias))
    x, weight, shift = double(3, 6), double(6), double(6)
    assert gradcheck(lambda *a: reference.add_layer_norm(*a, 1e-5, return_sum=True), (x, double(3, 6), weight, shift))
    for approximate in ("none", "tanh"):
        assert gradcheck(lambda *a, form=approximate: reference.bias_gelu(*a, form), (x, shift))
        assert gradcheck(lambda *a, form=approximate: reference.geglu(*a, form), (x, shift))
    ids = torch.tensor([0, 2, 2])
    assert gradcheck(lambda *a: reference.embed_layer_norm(ids, ids, None, *a[:2], None, *a[2:], 1e-5),
                     (double(4, 6), double(3, 6), weight, shift))  # fmt: skip
    labels = torch.tensor([1, -100, 3])
    assert gradcheck(lambda *a: reference.masked_lm_loss(*a, labels, vocab_size=5), (x, double(8, 6), double(8)))


def test_the_dispatch_point_compiles_into_one_graph():
    """``ops`` with impl="triton", as layers call it: no graph break, the same numbers as the reference."""

    def block(x, impl):
        x = ops.add_layer_norm(x, x, torch.ones(32), None, 1e-5, impl=impl)
        q = x.view(16, 2, 16)
        return ops.bias_gelu(ops.attention(q, q, q, CU_SEQLENS, 9, impl=impl).flatten(1), None, impl=impl)

    x = torch.randn(16, 32)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")(x, "triton")
    torch.testing.assert_close(compiled, block(x, "triton"))
    torch.testing.assert_close(compiled, block(x, "reference"), rtol=1e-5, atol=1e-5)
    assert ops.choose("bias_gelu", "auto", {"x": x})[0] != "triton"  # on the CPU only when asked by name
