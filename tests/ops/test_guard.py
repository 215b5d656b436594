"""No kernel runs on arguments it would misread: what fits is served, the rest goes to the reference or is refused."""

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F

from fastbert import ops, reference

CU = torch.tensor([0, 5, 12], dtype=torch.int32)
ONES, ZEROS = torch.ones(64), torch.zeros(64)
TABLES = reference.rotary_tables(torch.arange(12), 32, 1e4, torch.float32)


def rnd(*shape):
    return torch.randn(*shape)


def self_attention(x=None, cu_seqlens=CU, max_seqlen=7, **options):
    weights = ONES, ZEROS, torch.eye(192, 64), None, torch.eye(64), None
    return ops.self_attention(rnd(12, 64) if x is None else x, *weights, cu_seqlens, max_seqlen, num_heads=2, **options)


def feed_forward(x=None, up_bias=None, down_bias=None, **options):
    x = rnd(5, 64) if x is None else x
    return ops.feed_forward(x, ONES, ZEROS, torch.eye(128, 64), up_bias, torch.eye(64, 128), down_bias, **options)


REFUSED = {
    "gelu: bias": lambda: ops.bias_gelu(rnd(5, 64), rnd(16)),
    "gelu: integers": lambda: ops.bias_gelu(torch.ones(5, 64, dtype=torch.long)),
    "gelu: complex": lambda: ops.bias_gelu(torch.ones(5, 64, dtype=torch.complex64)),
    "gelu: approximate": lambda: ops.bias_gelu(rnd(5, 64), None, "tahn"),
    "geglu: bias": lambda: ops.geglu(rnd(5, 128), rnd(64)),
    "geglu: odd width": lambda: ops.geglu(rnd(5, 7)),
    "norm: weight": lambda: ops.add_layer_norm(rnd(5, 64), None, rnd(32), rnd(32), 1e-5),
    "norm: bias": lambda: ops.add_layer_norm(rnd(5, 64), None, rnd(64), rnd(8), 1e-5),
    "norm: dropout above 1": lambda: ops.add_layer_norm(rnd(5, 64), None, ONES, ZEROS, 1e-5, dropout_p=1.5),
    "norm: dropout below 0": lambda: ops.add_layer_norm(rnd(5, 64), None, ONES, ZEROS, 1e-5, dropout_p=-0.5),
    "embed: widths": lambda: ops.embed_layer_norm(
        *[torch.zeros(2, 2, dtype=torch.long)] * 2, None, rnd(9, 64), rnd(9, 32), None, ONES, ZEROS, 1e-5
    ),
    "feed_forward: up_bias": lambda: feed_forward(up_bias=rnd(32)),
    "feed_forward: dtype of down_bias": lambda: feed_forward(down_bias=rnd(64).bfloat16(), norm="post"),
    "feed_forward: norm": lambda: feed_forward(norm="Post"),
    "feed_forward: mlp": lambda: feed_forward(mlp="swiglu"),
    "loss: bias": lambda: ops.masked_lm_loss(rnd(5, 64), rnd(50, 64), rnd(8), torch.zeros(5, dtype=torch.long)),
    "loss: labels": lambda: ops.masked_lm_loss(rnd(5, 64), rnd(50, 64), None, torch.zeros(3, dtype=torch.long)),
    "self_attention: wide tables": lambda: self_attention(rotary=(rnd(12, 32), rnd(12, 32))),
    "self_attention: short tables": lambda: self_attention(rotary=(rnd(7, 16), rnd(7, 16))),
    "self_attention: max_seqlen": lambda: self_attention(max_seqlen=5),
    "self_attention: cu_seqlens of floats": lambda: self_attention(cu_seqlens=CU.float()),
    "attention: additive mask": lambda: ops.attention(
        *[rnd(2, 6, 2, 32)] * 3, attention_mask=torch.zeros(2, 6).masked_fill(torch.arange(6) > 3, -torch.inf)
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(name):
    with pytest.raises((ValueError, RuntimeError, TypeError, IndexError, NotImplementedError)):
        REFUSED[name]()


def test_what_broadcasts_is_served():
    x, bias = rnd(5, 64), rnd(1)
    torch.testing.assert_close(ops.bias_gelu(x, bias), F.gelu(x + bias))
    row = rnd(1, 64)
    expected = F.layer_norm(x + row, (64,))
    torch.testing.assert_close(ops.add_layer_norm(x, row, ONES, ZEROS, 1e-5), expected)
    one = reference.rotary_tables(torch.tensor([3]), 32, 1e4, torch.float32)
    y = rnd(12, 64)
    torch.testing.assert_close(self_attention(y, rotary=one), self_attention(y, rotary=one, impl="reference"))


def test_embeddings_of_any_integers_positions_and_strides():
    table, ids = rnd(100, 128)[:, :64], torch.randint(0, 99, (3, 5))
    rest = rnd(9, 64), None, ONES, ZEROS, 1e-5
    right = ops.embed_layer_norm(ids, torch.arange(5).expand(3, 5), None, table.contiguous(), *rest)
    for these in (ids, ids.int()):
        for positions in (torch.arange(5)[None], torch.arange(5)):
            torch.testing.assert_close(ops.embed_layer_norm(these, positions, None, table, *rest), right)


OPS = {
    "gelu": lambda x, impl: ops.bias_gelu(x, impl=impl),
    "norm": lambda x, impl: ops.add_layer_norm(x, x, ONES, ZEROS, 1e-5, impl=impl),
    "feed_forward": lambda x, impl: feed_forward(x, impl=impl),
    "self_attention": lambda x, impl: self_attention(x, impl=impl),
    "attention": lambda x, impl: ops.attention(*[x.view(12, 2, 32)] * 3, CU, 7, impl=impl).flatten(-2),
    "loss": lambda x, impl: ops.masked_lm_loss(x, rnd(50, 64), None, torch.arange(12), impl=impl),
}


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("op", ["gelu", "norm", "attention"])
def test_tangents_are_those_of_the_reference(op, grad):
    x, direction = rnd(12, 64), rnd(12, 64)

    def tangent(impl):
        with forward_ad.dual_level(), torch.set_grad_enabled(grad):
            dual = forward_ad.make_dual(x, direction)
            return forward_ad.unpack_dual(dual + OPS[op](dual, impl)).tangent

    torch.testing.assert_close(tangent("auto"), tangent("reference"), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("op", OPS)
def test_torch_func_runs_the_reference(op):
    def gradient(impl):
        torch.manual_seed(0)
        return torch.func.grad(lambda y: OPS[op](y, impl).square().sum())(torch.linspace(-2, 2, 768).view(12, 64))

    torch.testing.assert_close(gradient("auto"), gradient("reference"))


def test_a_kernel_requested_by_name_is_refused_inside_a_transform():
    chosen = ops.choose("bias_gelu", "auto", {"x": rnd(2, 64)})[0]
    if chosen != "cpp":
        pytest.skip("no C++ kernel here")
    with pytest.raises(RuntimeError, match=r"torch\.func"):
        torch.func.grad(lambda y: ops.bias_gelu(y, impl="cpp").sum())(rnd(2, 64))


@pytest.mark.parametrize("changed", ["cu_seqlens", "cos"])
def test_what_the_backward_reads_may_not_change_unseen(changed):
    x, cu_seqlens, (cos, sin) = rnd(12, 64).requires_grad_(), CU.clone(), (t.clone() for t in TABLES)
    out = self_attention(x, cu_seqlens, 10, rotary=(cos, sin))
    (cu_seqlens if changed == "cu_seqlens" else cos).zero_()
    if ops.choose("self_attention", "auto", {"x": x.detach()}, num_heads=2)[0] == "cpp":
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            out.sum().backward()


def test_the_scale_of_attention_may_be_learned():
    q, scale = torch.arange(768.0).sin().view(2, 6, 2, 32), torch.tensor(0.3, requires_grad=True)
    ops.attention(q, q * 2, q, scale=scale).square().sum().backward()
    assert scale.grad is not None and scale.grad != 0


def test_a_bias_of_minus_infinity_throughout_gives_zeros_and_finite_gradients():
    q, k, v = (rnd(2, 6, 2, 32).requires_grad_() for _ in range(3))
    bias = torch.triu(torch.full((6, 6), -torch.inf)).expand(2, 6, 6)  # the first row sees nothing
    out = ops.attention(q, k, v, bias=bias)
    assert out[:, 0].count_nonzero() == 0 and out.isfinite().all()
    out.sum().backward()
    assert all(x.grad.isfinite().all() for x in (q, k, v))


def test_scores_of_half_precision_do_not_overflow():
    q = (rnd(1, 8, 2, 64) * 100).half()
    assert ops.attention(q, q, q).isfinite().all()


def test_a_loss_may_be_differentiated_twice_with_retain_graph():
    hidden, weight = rnd(5, 64).requires_grad_(), rnd(50, 64).requires_grad_()
    loss = ops.masked_lm_loss(hidden, weight, None, torch.arange(5))
    (first,) = torch.autograd.grad(loss, hidden, retain_graph=True)
    loss.backward()
    torch.testing.assert_close(hidden.grad, first)
