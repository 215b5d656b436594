"""LayerNorm, GELU, embeddings, rotary and the masked-LM loss in Triton against the reference."""

import functools

import pytest
import torch
from harness import check_parity, fenced_allocations, guarded, shuffled_programs

from fastbert import reference
from fastbert.kernels.embed import embed_layer_norm
from fastbert.kernels.feed_forward import feed_forward
from fastbert.kernels.gelu import bias_gelu, geglu
from fastbert.kernels.loss import masked_lm_loss
from fastbert.kernels.norm import add_layer_norm
from fastbert.kernels.rotary import rotary

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
SIZES = [(1, 17), (37, 96), (5, 129), (2, 1000)]  # rows, width

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_size = pytest.mark.parametrize("size", SIZES, ids=str)


def both(kernel, spec, inputs, roundings=1, **options):
    check_parity(functools.partial(kernel, **options), functools.partial(spec, **options), inputs, roundings)


def normal(*shape, dtype=torch.float32):
    return torch.randn(shape).to(dtype)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@every_dtype
@every_size
@pytest.mark.parametrize("form", ["plain", "residual", "residual and sum", "no bias"])
def test_add_layer_norm(form, size, dtype):
    width = size[1]
    inputs = {"x": normal(*size, dtype=dtype) + 3, "residual": None, "weight": normal(width, dtype=dtype), "bias": None}
    if form != "no bias":
        inputs["bias"] = normal(width, dtype=dtype)
    if "residual" in form:
        inputs["residual"] = normal(*size, dtype=dtype)
    both(add_layer_norm, reference.add_layer_norm, inputs, eps=1e-5, return_sum="sum" in form)


def test_add_layer_norm_of_mixed_dtypes_and_strided_rows():
    """A bfloat16 branch added to a float32 residual, as autocast makes them; every other row of a wider tensor."""
    x, residual = normal(20, 50, dtype=torch.bfloat16)[::2, 4:36], normal(10, 32)
    inputs = {"x": x, "residual": residual, "weight": normal(32), "bias": normal(32)}
    both(add_layer_norm, reference.add_layer_norm, inputs, eps=1e-5, return_sum=True)


def test_add_layer_norm_three_dimensions_and_no_rows():
    x = normal(2, 3, 16)
    out = add_layer_norm(x, x, torch.ones(16), torch.zeros(16), 1e-5)
    torch.testing.assert_close(out, reference.add_layer_norm(x, x, torch.ones(16), torch.zeros(16), 1e-5))
    empty = torch.randn(0, 16, requires_grad=True)
    weight = torch.ones(16, requires_grad=True)
    add_layer_norm(empty, empty, weight, None, 1e-5).sum().backward()
    assert empty.grad.shape == (0, 16) and (weight.grad == 0).all()


@pytest.mark.parametrize("residual", [False, True])
def test_add_layer_norm_dropout(residual):
    """The mask shows in the sum; the gradient goes through the same mask; the residual is never dropped."""
    x = torch.randn(64, 100, requires_grad=True)
    r = torch.randn(64, 100, requires_grad=True) if residual else None
    call = functools.partial(add_layer_norm, x, r, torch.ones(100), None, 1e-5, dropout_p=0.25, return_sum=True, seed=3)
    _, total = call()
    branch = total - r if residual else total
    factor = branch.detach() / x.detach()
    kept = factor > 0.5
    torch.testing.assert_close(factor, kept / 0.75, rtol=1e-4, atol=1e-4)
    assert abs(kept.double().mean().item() - 0.75) < 4 * (0.25 * 0.75 / kept.numel()) ** 0.5
    grad = torch.randn_like(total)
    total.backward(grad)
    torch.testing.assert_close(x.grad, grad * kept / 0.75)
    if residual:
        torch.testing.assert_close(r.grad, grad)
    with fenced_allocations(), shuffled_programs(2):
        assert torch.equal(call()[1], total)
    assert not torch.equal(add_layer_norm(x, r, torch.ones(100), None, 1e-5, dropout_p=0.25, seed=4), call()[0])


@every_dtype
@pytest.mark.parametrize("size", [(1, 18), (70, 66), (16, 128)], ids=str)
@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("name", ["bias_gelu", "geglu"])
def test_gelu(name, with_bias, approximate, size, dtype):
    kernel = {"bias_gelu": bias_gelu, "geglu": geglu}[name]
    inputs = {"x": 2 * normal(*size, dtype=dtype), "bias": normal(size[1], dtype=dtype) if with_bias else None}
    # 1 + erf(z) cancels where z is negative: the rounding left is one of 1's, not of the result's
    both(kernel, getattr(reference, name), inputs, approximate=approximate, roundings=2)


def test_gelu_of_strided_rows_and_of_none():
    x = normal(20, 80)[::2, 8:40]
    both(bias_gelu, reference.bias_gelu, {"x": x, "bias": normal(32)}, roundings=2)
    empty, bias = torch.randn(0, 32, requires_grad=True), torch.randn(32, requires_grad=True)
    bias_gelu(empty, bias).sum().backward()
    assert (bias.grad == 0).all()


def test_gelu_far_out_is_the_identity_or_nothing():
    x = torch.tensor([[-1e4, -50.0, 50.0, 1e4, 0.0, float("inf")]])
    for approximate in ("none", "tanh"):
        assert torch.equal(bias_gelu(x, None, approximate)[0, :5], torch.tensor([0.0, 0.0, 50.0, 1e4, 0.0]))


@every_dtype
@pytest.mark.parametrize("head_dim", [16, 64])
def test_rotary(head_dim, dtype):
    cos, sin = reference.rotary_tables(torch.arange(37), head_dim, 10000.0, dtype)
    q = normal(37, 3, 2, head_dim, dtype=dtype)[:, 1]  # the keys of a packed projection, in place
    check_parity(lambda x: rotary(x, cos, sin), lambda x: reference.rotary(x, cos, sin), {"x": q})


def test_rotary_padded_with_tables_shared_by_the_batch():
    cos, sin = reference.rotary_tables(torch.arange(9), 16, 10000.0, torch.float32)
    x = normal(2, 9, 2, 16)
    check_parity(lambda x: rotary(x, cos, sin), lambda x: reference.rotary(x, cos, sin), {"x": x})


@every_dtype
@pytest.mark.parametrize("tables", ["all", "no type", "word only"])
def test_embed_layer_norm(tables, dtype):
    inputs = {
        "input_ids": torch.randint(0, 50, (33,)),
        "position_ids": torch.arange(33, dtype=torch.int32) if tables != "word only" else None,
        "token_type_ids": (torch.arange(33) > 9).int() if tables == "all" else None,
        "word": normal(50, 40, dtype=dtype),
        "position": normal(64, 40, dtype=dtype) if tables != "word only" else None,
        "token_type": normal(2, 40, dtype=dtype) if tables == "all" else None,
        "weight": normal(40, dtype=dtype),
        "bias": normal(40, dtype=dtype) if tables != "no type" else None,
    }
    both(embed_layer_norm, reference.embed_layer_norm, inputs, eps=1e-12)


def test_embed_layer_norm_of_a_padded_batch():
    ids = torch.randint(0, 50, (3, 11))
    positions = torch.arange(11).expand(3, 11)
    tables = (normal(50, 16), normal(11, 16), None, normal(16), normal(16))
    out = embed_layer_norm(ids, positions, None, *tables, 1e-12)
    torch.testing.assert_close(out, reference.embed_layer_norm(ids, positions, None, *tables, 1e-12))


def test_embed_layer_norm_of_no_such_row_is_loud_and_reads_nothing_outside():
    ids = torch.tensor([3, 50, -1, 7])
    tables = (guarded(normal(50, 16)), None, None, normal(16), normal(16))
    out = embed_layer_norm(ids, None, None, *tables, 1e-12)
    assert out.isnan().all(1).tolist() == [False, True, True, False]


@every_dtype
@pytest.mark.parametrize("chunk_rows", [None, 8])
@pytest.mark.parametrize("sizes", [(21, 300, 300), (21, 290, 320), (1, 5, 64)], ids=str)
def test_masked_lm_loss(sizes, chunk_rows, dtype):
    num_rows, vocab_size, padded = sizes
    labels = torch.randint(0, vocab_size, (num_rows,))
    labels[num_rows // 2 : num_rows // 2 + 2] = -100 if num_rows > 2 else labels[0]
    inputs = {
        "hidden": normal(num_rows, 32, dtype=dtype),
        "weight": 0.3 * normal(padded, 32, dtype=dtype),
        "bias": normal(padded, dtype=dtype),
    }
    both(
        functools.partial(masked_lm_loss, chunk_rows=chunk_rows), reference.masked_lm_loss, inputs,
        labels=labels, vocab_size=vocab_size, roundings=2,
    )  # fmt: skip


def test_masked_lm_loss_corners():
    hidden, weight = torch.randn(4, 16, requires_grad=True), torch.randn(70, 16, requires_grad=True)
    nothing = masked_lm_loss(hidden, weight, None, torch.full((4,), -100), vocab_size=66)
    nothing.backward()
    assert nothing == 0 and (hidden.grad == 0).all() and (weight.grad == 0).all()
    assert masked_lm_loss(hidden[:0], weight, None, torch.zeros(0, dtype=torch.int64)) == 0
    for stray in (66, -1):  # a label that is no word is loud
        assert masked_lm_loss(hidden, weight, None, torch.full((4,), stray), vocab_size=66).isnan()
    weight.grad = None
    masked_lm_loss(hidden, weight, None, torch.arange(4), vocab_size=66).backward()
    assert (weight.grad[66:] == 0).all()
    with torch.no_grad():
        quiet = masked_lm_loss(hidden, weight, None, torch.arange(4), vocab_size=66)
    torch.testing.assert_close(quiet, reference.masked_lm_loss(hidden, weight, None, torch.arange(4), vocab_size=66))


@every_dtype
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("mlp", ["gelu", "geglu"])
@pytest.mark.parametrize("with_bias", [True, False])
def test_feed_forward(with_bias, mlp, norm, dtype):
    width, inner = 24, 40
    inputs = {
        "x": normal(2, 9, width, dtype=dtype),
        "norm_weight": normal(width, dtype=dtype),
        "norm_bias": normal(width, dtype=dtype) if with_bias else None,
        "up_weight": 0.2 * normal(inner * (2 if mlp == "geglu" else 1), width, dtype=dtype),
        "up_bias": normal(inner * (2 if mlp == "geglu" else 1), dtype=dtype) if with_bias else None,
        "down_weight": 0.2 * normal(width, inner, dtype=dtype),
        "down_bias": normal(width, dtype=dtype) if with_bias else None,
    }
    both(feed_forward, reference.feed_forward, inputs, norm=norm, mlp=mlp, eps=1e-5, roundings=2)
