"""Dropout of the C++ kernels: what is dropped is what the Python generator says; gradients are of that mask."""

import pytest
import torch
import torch.nn.functional as F

from fastbert import layers, ops
from fastbert.config import BertConfig
from fastbert.system import native

if not native.status()[0]:
    pytest.skip("the C++ core is not compiled", allow_module_level=True)

from fastbert.ops.cpu import dropout as cpu_dropout
from fastbert.ops.modules import fused_layer

DTYPES = [torch.float32, torch.bfloat16]
PROBABILITY = 0.25


def bounds(lengths):
    return torch.tensor([0, *lengths]).cumsum(0).int()


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).bfloat16().to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 17), (70, 384), (5, 1000), (130, 64), (0, 8)])
def test_rows(isa, shape, dtype, dropout_factors):
    x, bias = random(*shape, dtype=dtype), random(shape[1], seed=1, dtype=dtype)
    z = dropout_factors(7, PROBABILITY, *shape, width=-(-shape[1] // 8) * 8)
    expected = ((x.double() + bias.double()) * z).to(dtype)
    torch.testing.assert_close(cpu_dropout.drop(x, bias, PROBABILITY, 7), expected)
    assert cpu_dropout.drop(x, None, 0.0, 7).equal(x)


@pytest.mark.parametrize("threads", [1, 3])
def test_rows_do_not_depend_on_threads(threads):
    x, before = random(1000, 64, dtype=torch.float32), torch.get_num_threads()
    once = cpu_dropout.drop(x, None, 0.1, 3)
    torch.set_num_threads(threads)
    try:
        assert cpu_dropout.drop(x, None, 0.1, 3).equal(once)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("probabilities", [(0.5, 0.0), (0.0, 0.5), (0.5, 0.5)])
def test_the_mean_is_what_is_without_dropout(probabilities):
    """Half a pre-norm layer is linear in what is dropped, so the mean over many draws is the undropped answer."""
    layer = layers.MultiHeadAttention(64, 2)
    x, cu = random(40, 64, dtype=torch.float32), bounds([13, 27])
    weights = (layer.qkv.weight, layer.qkv.bias, layer.out.weight, layer.out.bias)

    def run(dropout_p, attention_dropout_p):
        with torch.no_grad():
            return ops.self_attention(
                x, None, None, *weights, cu, 27, num_heads=2, norm="pre", dropout_p=dropout_p,
                attention_dropout_p=attention_dropout_p, impl="cpp",
            )  # fmt: skip

    torch.manual_seed(0)
    whole = run(0.0, 0.0)
    mean = torch.stack([run(*probabilities) for _ in range(400)]).mean(0)
    assert (mean - whole).norm() < 0.2 * (whole - x).norm()  # twice or half the scale would be 1 or 0.5
    assert not run(*probabilities).equal(whole)


@pytest.mark.parametrize("arch", ["classic", "modern"])
def test_layer(arch):
    """Repeatable by torch's seed, and gradients of the very masks that the forward drew."""
    config = BertConfig.preset("tiny", arch=arch).replace(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    torch.manual_seed(0)
    layer = layers.EncoderLayer(config, index=1, impl="cpp")  # by name: without AVX2 PyTorch's operations are quicker
    x, cu = random(40, config.hidden_size, dtype=torch.float32), bounds([13, 27])
    rotary = (torch.ones(40, config.head_dim // 2), torch.zeros(40, config.head_dim // 2)) if arch == "modern" else None

    def run(x, seed=3):
        torch.manual_seed(seed)
        return layer(x, cu, 27, rotary=rotary)

    assert fused_layer(layer, x, cu, 27, rotary=rotary) is not None
    assert run(x).equal(run(x)) and not run(x, seed=4).equal(run(x))
    grad = random(*x.shape, seed=2, dtype=torch.float32)
    x.requires_grad_()
    (run(x) * grad).sum().backward()
    h = 3e-3
    for parameter, seen in ((layer.feed_forward.up.weight, 5), (layer.attention.out.weight, 6), (x, 7)):
        direction, kept = random(*parameter.shape, seed=seen, dtype=torch.float32), parameter.detach().clone()
        with torch.no_grad():
            values = []
            for sign in (1, -1):
                parameter.copy_(kept + sign * h * direction)
                values.append((run(x) * grad).double().sum())
            parameter.copy_(kept)
        slope = ((values[0] - values[1]) / (2 * h)).float()
        torch.testing.assert_close((parameter.grad * direction).sum(), slope, rtol=3e-2, atol=0.3)


def test_layer_norm_with_dropout():
    x, residual = (random(30, 48, seed=i, dtype=torch.float32).requires_grad_() for i in (0, 1))
    weight = torch.ones(48)
    torch.manual_seed(2)
    out, total = ops.add_layer_norm(x, residual, weight, None, 1e-5, dropout_p=0.5, return_sum=True, impl="cpp")
    dropped = total - residual
    kept = dropped != 0
    assert 0.4 < kept.float().mean() < 0.6
    torch.testing.assert_close(dropped[kept], 2 * x[kept])
    torch.testing.assert_close(out, F.layer_norm(total, (48,)))
    total.sum().backward()
    torch.testing.assert_close(x.grad, 2.0 * kept)
    torch.testing.assert_close(residual.grad, torch.ones_like(residual))
