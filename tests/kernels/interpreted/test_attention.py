"""Attention in Triton against the reference; tiles under the interpreter are 16 and 32, so every edge is met."""

import functools

import pytest
import torch
from harness import check_parity, fenced_allocations, guarded, shuffled_programs

from fastbert import reference
from fastbert.kernels.attention.op import LOG2_E, NO_WINDOW, attention

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
NUM_HEADS = 2


def packed(lengths, head_dim, dtype, bias=None):
    """q, k, v as views of one (T, 3, N, H) projection, cu_seqlens, max_seqlen."""
    torch.manual_seed(sum(lengths))
    qkv = torch.randn(sum(lengths), 3, NUM_HEADS, head_dim).to(dtype)
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    inputs = dict(zip("qkv", qkv.unbind(1), strict=True), cu_seqlens=cu_seqlens, max_seqlen=max(lengths, default=0))
    if bias is not None:
        inputs["bias"] = torch.randn(bias).to(dtype)
    return inputs


def padded(num_sequences, length, head_dim, dtype):
    torch.manual_seed(length)
    qkv = torch.randn(num_sequences, length, 3, NUM_HEADS, head_dim).to(dtype)
    mask = torch.rand(num_sequences, length) > 0.3
    mask[1] = False  # a sequence with nothing to see
    return dict(zip("qkv", qkv.unbind(2), strict=True), attention_mask=mask)


# up to 64 tokens the interpreter takes the one-block backward, above it the three kernels
CASES = {
    "one block": lambda dtype: (packed([17, 48, 1, 0, 33], 16, dtype), {}),
    "three kernels": lambda dtype: (packed([65, 16, 31], 32, dtype), {}),
    "exact tiles": lambda dtype: (packed([32, 64], 16, dtype), {}),
    "window, one block": lambda dtype: (packed([40, 7, 63], 16, dtype), {"window": 5}),
    "window, three kernels": lambda dtype: (packed([70, 90], 16, dtype), {"window": 17}),
    "bias shared": lambda dtype: (packed([20, 5, 33], 16, dtype, (NUM_HEADS, 37, 37)), {}),
    "bias per sequence": lambda dtype: (packed([20, 17], 16, dtype, (2, NUM_HEADS, 20, 20)), {"window": 9}),
    "padding mask": lambda dtype: (padded(3, 40, 16, dtype), {}),
    "padding mask, long, window": lambda dtype: (padded(2, 70, 16, dtype), {"window": 20}),
    "scale": lambda dtype: (packed([19, 34], 16, dtype), {"scale": 0.9}),
    "widest head": lambda dtype: (packed([18, 3], 128, dtype), {}),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_parity(case, dtype):
    inputs, options = CASES[case](dtype)
    kernel, spec = (functools.partial(op, **options) for op in (attention, reference.attention))
    check_parity(kernel, spec, inputs, roundings=4 if dtype == torch.float32 else 1)  # the float32 log-sum-exp


@pytest.mark.parametrize("length", [24, 80])
def test_each_of_q_k_v_has_its_own_strides(length):
    heads_first = torch.randn(NUM_HEADS, length, 16).transpose(0, 1)
    spaced = torch.randn(length, NUM_HEADS, 40)[..., 8:24]
    contiguous = torch.randn(length, NUM_HEADS, 16)
    cu_seqlens = torch.tensor([0, 7, length], dtype=torch.int32)
    for q, k, v in ((heads_first, spaced, contiguous), (contiguous, heads_first, spaced)):
        inputs = {"q": q, "k": k, "v": v, "cu_seqlens": cu_seqlens, "max_seqlen": length}
        check_parity(attention, reference.attention, inputs, roundings=4)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_window_of_zero_copies_the_values(dtype):
    """Each weight is 1: outputs are exact, dV up to the log-sum-exp's rounding; dQ, dK are differences of equals."""
    inputs = packed([20, 1, 40], 16, dtype)
    out, dq, dk, dv = _gradients(inputs, window=0)
    torch.manual_seed(1)
    assert torch.equal(out, inputs["v"])
    torch.testing.assert_close(dv, torch.randn_like(out), rtol=8 * torch.finfo(torch.float32).eps, atol=0)
    limit = 32 * torch.finfo(torch.float32).eps  # both are accumulated in float32
    assert max(dq.abs().max(), dk.abs().max()) <= limit


def test_nothing_to_see_gives_zeros_and_finite_gradients():
    inputs = padded(3, 40, 16, torch.float32)
    leaves = [inputs[name].clone().requires_grad_() for name in "qkv"]
    out = attention(*leaves, attention_mask=inputs["attention_mask"])
    assert (out[1] == 0).all()
    out.sum().backward()  # the gradient of a sum is an expanded scalar, stride 0
    assert all(x.grad.isfinite().all() for x in leaves)
    assert all((x.grad[1] == 0).all() for x in leaves)


@pytest.mark.parametrize("length", [40, 72])
def test_very_negative_scores_do_not_overflow_past_the_end(length):
    """exp2(0 - lse) of a key that does not exist is inf here, and inf · 0 would be NaN."""
    torch.manual_seed(0)
    direction = torch.randn(1, NUM_HEADS, 16).sign()
    # scores near -144: in float32 the rounding of so large a log-sum-exp would drown the rule, in float16 it does not
    q, k = ((c * direction + 0.1 * torch.randn(length, NUM_HEADS, 16)).half() for c in (6.0, -6.0))
    v = torch.randn(length, NUM_HEADS, 16).half()
    inputs = {"q": q, "k": k, "v": v, "cu_seqlens": torch.tensor([0, length], dtype=torch.int32), "max_seqlen": length}
    check_parity(attention, reference.attention, inputs)


@pytest.mark.parametrize("shape", [(0, NUM_HEADS, 16), (3, 0, NUM_HEADS, 16)])
def test_empty(shape):
    q = torch.randn(shape, requires_grad=True)
    packed_arguments = (torch.zeros(1, dtype=torch.int32), 0) if len(shape) == 3 else ()
    out = attention(q, q, q, *packed_arguments)
    out.sum().backward()
    assert out.shape == shape and q.grad.shape == shape


def _gradients(inputs, **options):
    leaves = {name: inputs[name].detach().clone().requires_grad_() for name in "qkv"}
    out = attention(**{**inputs, **leaves}, **options)
    torch.manual_seed(1)
    out.backward(torch.randn_like(out))
    return [out.detach(), *(x.grad for x in leaves.values())]


@pytest.mark.parametrize("lengths", [[40, 23], [70, 23]])
def test_program_order_and_repetition_change_no_bit(lengths):
    inputs = packed(lengths, 16, torch.float16)
    plain = _gradients(inputs, dropout_p=0.2, seed=3)
    with fenced_allocations(), shuffled_programs(5):
        shuffled = _gradients(inputs, dropout_p=0.2, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(plain, shuffled, strict=True))


@pytest.mark.parametrize("length", [33, 70])  # one block, three kernels
@pytest.mark.parametrize("ends", [[0, 20, 90], [0, 60, 40], [-5, 20, 33], [0, 33, 33]], ids=str)
def test_lengths_that_do_not_fit_touch_nothing_outside(ends, length):
    """On a GPU they are not looked at (that would wait for it): the kernels cut them to the tokens and max_seqlen."""
    inputs = packed([length], 16, torch.float32)
    inputs |= {"cu_seqlens": torch.tensor(ends, dtype=torch.int32), "max_seqlen": 20 if length == 33 else 66}
    leaves = {name: guarded(inputs[name]).requires_grad_() for name in "qkv"}
    with fenced_allocations():
        out = attention(**{**inputs, **leaves})
        out.backward(torch.ones_like(out))
    assert not out[:20].isnan().any() or ends[1] > length  # what the lengths do cover is computed


def test_a_sequence_does_not_see_its_neighbours():
    """Packed, alone, and padded with a mask: three ways to the same numbers."""
    lengths = [21, 34]
    inputs = packed(lengths, 16, torch.float32)
    together = attention(**inputs)
    batch = [torch.zeros(2, 34, NUM_HEADS, 16) for _ in "qkv"]
    mask = torch.arange(34) < torch.tensor(lengths)[:, None]
    start = 0
    for index, length in enumerate(lengths):
        rows = slice(start, start + length)
        alone = attention(*(inputs[n][rows] for n in "qkv"), torch.tensor([0, length], dtype=torch.int32), length)
        torch.testing.assert_close(together[rows], alone, rtol=0, atol=0)
        for tensor, name in zip(batch, "qkv", strict=True):
            tensor[index, :length] = inputs[name][rows]
        start += length
    torch.testing.assert_close(attention(*batch, attention_mask=mask)[mask], together, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("lengths", [[33], [70]])
def test_dropout_gradient_is_the_slope_of_its_own_forward(lengths):
    """Forward and backward tile differently and must drop the same weights: a finite difference tells."""
    inputs = packed(lengths, 16, torch.float32)
    out, *grads = _gradients(inputs, dropout_p=0.3, seed=5)
    torch.manual_seed(1)
    grad_out = torch.randn_like(out)
    for name, grad in zip("qkv", grads, strict=True):
        torch.manual_seed(2)
        step = torch.randn_like(inputs[name]) * 1e-3
        up = attention(**{**inputs, name: inputs[name] + step}, dropout_p=0.3, seed=5)
        down = attention(**{**inputs, name: inputs[name] - step}, dropout_p=0.3, seed=5)
        slope = ((up - down).double() * grad_out).sum() / 2
        torch.testing.assert_close((grad * step).sum().double(), slope, rtol=2e-3, atol=1e-6)


def test_dropout_drops_its_share_and_depends_on_the_seed_alone():
    length = 128
    inputs = packed([length], 128, torch.float32)
    inputs["q"] = torch.zeros_like(inputs["q"])  # uniform weights, 1/length
    inputs["v"] = torch.eye(length)[:, None, :].expand(length, NUM_HEADS, length)  # the output is the weights
    out = attention(**inputs, dropout_p=0.25, seed=11)
    kept = (out > 0).double()
    torch.testing.assert_close(out, kept.float() / length / 0.75)
    draws = kept.numel()
    assert abs(kept.mean().item() - 0.75) < 4 * (0.25 * 0.75 / draws) ** 0.5
    assert not torch.equal(kept[:, 0], kept[:, 1])  # heads draw apart
    # neighbours, columns and rows, are uncorrelated
    centred = kept - kept.mean()
    for a, b in (
        (centred[:-1], centred[1:]),
        (centred[..., :-1], centred[..., 1:]),
        (centred[..., :-4], centred[..., 4:]),
    ):
        assert abs((a * b).mean().item()) < 4 * 0.25 * 0.75 / draws**0.5
    torch.testing.assert_close(attention(**inputs, dropout_p=0.25, seed=11), out, rtol=0, atol=0)
    assert not torch.equal(attention(**inputs, dropout_p=0.25, seed=12), out)
    torch.manual_seed(0)
    first = attention(**inputs, dropout_p=0.25)
    torch.manual_seed(0)
    torch.testing.assert_close(attention(**inputs, dropout_p=0.25), first, rtol=0, atol=0)


def test_probabilities_come_back_from_the_log_sum_exp():
    lengths = [13, 30]
    inputs = packed(lengths, 16, torch.float32)
    q, k, v = inputs["q"], inputs["k"], inputs["v"]
    _, lse = torch.ops.fastbert.attention(
        q, k, v, inputs["cu_seqlens"], None, None, None, inputs["max_seqlen"], NO_WINDOW, 0.25, 0.0
    )  # (N, T), log2 units
    scores = q[13:, 1] @ k[13:, 1].T / 4
    probabilities = torch.exp2(scores * LOG2_E - lse[1, 13:, None])
    expected = (q[13:, 1].double() @ k[13:, 1].double().T / 4).softmax(-1)
    torch.testing.assert_close(probabilities.double(), expected, rtol=1e-5, atol=1e-6)
