"""The reference ops against PyTorch's own, written another way."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from fastbert import ops

torch.manual_seed(0)
LENGTHS = [5, 1, 17, 8]
N, H = 3, 8


def packed(lengths=LENGTHS, requires_grad=False):
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(sum(lengths), N, H, generator=generator, dtype=torch.float64) for _ in range(3))
    for x in (q, k, v):
        x.requires_grad_(requires_grad)
    cu_seqlens = F.pad(torch.tensor(lengths).cumsum(0), (1, 0)).int()
    return q, k, v, cu_seqlens


def sdpa(q, k, v, mask=None):
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)[0].transpose(0, 1)


@pytest.mark.parametrize("lengths", [LENGTHS, [6, 6, 6], [1], [4, 0, 3]])
@pytest.mark.parametrize("window", [None, 0, 3])
def test_packed_attention_is_attention_of_each_sequence(lengths, window):
    q, k, v, cu = packed(lengths)
    out = ops.attention(q, k, v, cu, max(lengths), window=window)
    for start, stop in pairwise(cu):
        if start == stop:
            continue
        i = torch.arange(stop - start)
        near = None if window is None else (i[:, None] - i[None, :]).abs() <= window
        torch.testing.assert_close(out[start:stop], sdpa(q[start:stop], k[start:stop], v[start:stop], near))


def test_padded_attention_equals_packed():
    q, k, v, cu = packed()
    longest = max(LENGTHS)
    mask = torch.arange(longest) < torch.tensor(LENGTHS)[:, None]

    def pad(x):
        out = torch.full((len(LENGTHS), longest, N, H), 7.0, dtype=torch.float64)  # padding must not matter
        out[mask] = x
        return out

    out = ops.attention(pad(q), pad(k), pad(v), attention_mask=mask.long())
    torch.testing.assert_close(out[mask], ops.attention(q, k, v, cu, longest))


def test_bias_is_added_to_the_scores():
    q, k, v, _ = packed([6])
    bias = torch.randn(N, 6, 6, dtype=torch.float64)
    out = ops.attention(q[None], k[None], v[None], bias=bias)[0]
    torch.testing.assert_close(out, sdpa(q, k, v, bias))
    torch.testing.assert_close(ops.attention(q[None], k[None], v[None], bias=bias[None])[0], out)


def test_a_row_that_sees_nothing_gives_zeros_and_finite_gradients():
    q, k, v, _ = packed([4, 4], requires_grad=True)
    shape = (2, 4, N, H)
    mask = torch.tensor([[0, 0, 0, 0], [1, 1, 0, 0]])
    out = ops.attention(q.view(shape), k.view(shape), v.view(shape), attention_mask=mask)
    assert (out[0] == 0).all() and (out[1, :2] != 0).any()
    out.sum().backward()
    assert all(torch.isfinite(x.grad).all() for x in (q, k, v))
    assert (k.grad[:4] == 0).all() and (v.grad[6:] == 0).all(), "padding leaked into a gradient"


def test_attention_gradients():
    q, k, v, cu = packed([3, 2], requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b, c: ops.attention(a, b, c, cu, 3, window=1), (q, k, v))


def test_attention_dropout_is_reproducible_and_unbiased():
    q, k, v, cu = packed()
    ones = torch.ones_like(v)
    first, again, other = (ops.attention(q, k, ones, cu, 17, dropout_p=0.3, seed=s) for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    many = torch.stack([ops.attention(q, k, ones, cu, 17, dropout_p=0.3, seed=s) for s in range(200)])
    assert abs(many.mean() - 1.0) < 0.02


def test_attention_says_what_is_wrong():
    q, k, v, cu = packed()
    with pytest.raises(ValueError, match="max_seqlen is missing"):
        ops.attention(q, k, v, cu)
    with pytest.raises(ValueError, match="expected padded"):
        ops.attention(q, k, v)
    with pytest.raises(ValueError, match="attention_mask has shape"):
        ops.attention(q[None], k[None], v[None], attention_mask=torch.ones(1, 3))
    with pytest.raises(ValueError, match="expected k and v of one shape"):
        ops.attention(q, k[:3], v, cu, 17)
    with pytest.raises(ValueError, match=r"dropout_p=1\.5"):
        ops.attention(q, k, v, cu, 17, dropout_p=1.5)
    with pytest.raises(ValueError, match="impl argument='quick'"):
        ops.attention(q, k, v, cu, 17, impl="quick")
    with pytest.raises(RuntimeError, match=r"triton.*Remedy"):
        ops.attention(q, k, v, cu, 17, impl="triton")


def test_rotary_turns_pairs_by_position():
    from fastbert.reference import rotary_tables

    position = torch.tensor([0, 1, 5])
    cos, sin = rotary_tables(position, H, 100.0, torch.float64)
    x = torch.randn(3, N, H, dtype=torch.float64)
    out = ops.rotary(x, cos, sin)
    pairs = torch.complex(x[..., : H // 2], x[..., H // 2 :])
    angle = position[:, None] * 100.0 ** (-torch.arange(0, H, 2) / H)
    turned = pairs * torch.polar(torch.ones(3, H // 2, dtype=torch.float64), angle.double())[:, None]
    torch.testing.assert_close(out, torch.cat((turned.real, turned.imag), -1), atol=1e-6, rtol=0)


def test_add_layer_norm():
    x, residual, weight, bias = torch.randn(4, 7, 10, dtype=torch.float64).unbind(0)[:4]
    weight, bias = weight[0], bias[0]
    normed, total = ops.add_layer_norm(x, residual, weight, bias, 1e-5, return_sum=True)
    torch.testing.assert_close(total, x + residual)
    centred = total - total.mean(-1, keepdim=True)
    wanted = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias
    torch.testing.assert_close(normed, wanted)
    torch.testing.assert_close(
        ops.add_layer_norm(x, None, weight, None, 1e-5), F.layer_norm(x, (10,), weight, None, 1e-5)
    )


def test_gelu_and_geglu():
    x = torch.linspace(-4, 4, 24, dtype=torch.float64).view(2, 12)
    bias = torch.randn(12, dtype=torch.float64)
    y = x + bias
    torch.testing.assert_close(ops.bias_gelu(x, bias), 0.5 * y * (1 + torch.erf(y / math.sqrt(2))))
    tanh = 0.5 * y * (1 + torch.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
    torch.testing.assert_close(ops.bias_gelu(x, bias, "tanh"), tanh)
    torch.testing.assert_close(ops.geglu(x, bias), ops.bias_gelu(y[:, :6]) * y[:, 6:])


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("mlp", ["gelu", "geglu"])
def test_feed_forward_is_the_composition(norm, mlp):
    width, inner = 6, 10
    x = torch.randn(5, width, dtype=torch.float64)
    rows = inner * (2 if mlp == "geglu" else 1)
    weight, shift = torch.randn(2, width, dtype=torch.float64)
    up, up_bias = torch.randn(rows, width, dtype=torch.float64), torch.randn(rows, dtype=torch.float64)
    down, down_bias = torch.randn(width, inner, dtype=torch.float64), torch.randn(width, dtype=torch.float64)
    out = ops.feed_forward(x, weight, shift, up, up_bias, down, down_bias, norm=norm, mlp=mlp, eps=1e-6)
    ln = lambda t: F.layer_norm(t, (width,), weight, shift, 1e-6)  # noqa: E731
    h = (ln(x) if norm == "pre" else x) @ up.T + up_bias
    h = F.gelu(h[:, :inner]) * h[:, inner:] if mlp == "geglu" else F.gelu(h)
    wanted = x + h @ down.T + down_bias
    torch.testing.assert_close(out, wanted if norm == "pre" else ln(wanted))


def test_masked_lm_loss_ignores_padding_rows_and_minus_100():
    hidden = torch.randn(6, 4, dtype=torch.float64)
    weight, bias = torch.randn(16, 4, dtype=torch.float64), torch.randn(16, dtype=torch.float64)
    weight[11:] = 1e3  # rows beyond the vocabulary must take no part
    labels = torch.tensor([0, 10, -100, 3, 3, -100])
    loss = ops.masked_lm_loss(hidden, weight, bias, labels, vocab_size=11)
    wanted = F.cross_entropy(hidden @ weight[:11].T + bias[:11], labels)
    torch.testing.assert_close(loss, wanted)
    none = ops.masked_lm_loss(hidden, weight, bias, torch.full((6,), -100), vocab_size=11)
    assert none == 0.0 and ops.masked_lm_loss(hidden[:0], weight, bias, labels[:0]) == 0.0


def test_masked_lm_loss_weighs_its_rows():
    hidden = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    weight, labels = torch.randn(16, 4, dtype=torch.float64), torch.tensor([0, 10, -100, 3, 15])
    row_weights = torch.tensor([1.0, 10.0, 5.0, 0.0, 2.5], dtype=torch.float64)
    loss = ops.masked_lm_loss(hidden, weight, None, labels, row_weights=row_weights)
    each = F.cross_entropy(hidden @ weight.T, labels, reduction="none")
    torch.testing.assert_close(loss, (each[0] + 10 * each[1] + 2.5 * each[4]) / 13.5)
    loss.backward()
    assert (hidden.grad[[2, 3]] == 0).all() and hidden.grad[0].any()
    assert ops.masked_lm_loss(hidden, weight, None, labels, row_weights=torch.zeros(5)) == 0.0
    equal = ops.masked_lm_loss(hidden, weight, None, labels, row_weights=torch.full((5,), 3.0))
    torch.testing.assert_close(equal, ops.masked_lm_loss(hidden, weight, None, labels))
    with pytest.raises(RuntimeError, match="no kernel takes row_weights"):
        ops.masked_lm_loss(hidden, weight, None, labels, row_weights=row_weights, impl="triton")
