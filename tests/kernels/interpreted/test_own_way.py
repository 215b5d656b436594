"""The model's own way to the kernels: ``FASTBERT_IMPL=triton`` and impl="auto" all through, no op called by name."""

import pytest
import torch

from fastbert import layers, ops
from fastbert.kernels import public
from support import command


@pytest.fixture(autouse=True)
def triton_by_environment(monkeypatch):
    monkeypatch.setenv("FASTBERT_IMPL", "triton")


@pytest.fixture
def reached(monkeypatch):
    """The names of the kernels' ops that were called."""
    names = set()
    for name in public.__all__:
        stock = getattr(public, name)
        monkeypatch.setattr(public, name, lambda *a, _n=name, _s=stock, **k: (names.add(_n), _s(*a, **k))[1])
    return names


def outcome(module, hidden, monkeypatch, impl, **where):
    """The answer and its gradients."""
    monkeypatch.setenv("FASTBERT_IMPL", impl)
    hidden = hidden.clone().requires_grad_()
    out = module(hidden, **where)
    return [out, *torch.autograd.grad(out.square().sum(), [hidden, *module.parameters()])]


PADDED = {"attention_mask": torch.tensor([[1] * 8, [1] * 5 + [0] * 3])}
PACKED = {"cu_seqlens": torch.tensor([0, 5, 16], dtype=torch.int32), "max_seqlen": 11}


@pytest.mark.parametrize("where", [{}, PADDED, PACKED], ids=["padded", "padded, mask", "packed"])
@pytest.mark.parametrize("turned", [False, True], ids=["plain", "rotary"])
def test_multi_head_attention(where, turned, monkeypatch, reached):
    torch.manual_seed(0)
    module, hidden = layers.MultiHeadAttention(64, 4), torch.randn(2, 8, 64)
    hidden = hidden.flatten(0, 1) if "cu_seqlens" in where else hidden
    if turned:
        angles = torch.rand(*hidden.shape[:-1], 8)
        where = {**where, "rotary": (angles.cos(), angles.sin())}
    ours = outcome(module, hidden, monkeypatch, "triton", **where)
    assert reached == {"qkv_attention"}
    for mine, theirs in zip(ours, outcome(module, hidden, monkeypatch, "reference", **where), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("turned", [False, True], ids=["plain", "rotary"])
def test_the_op_of_a_fused_projection_is_sound(turned):
    """Its fake, its gradients, no output that shares memory; and past the dispatcher the same bits."""
    torch.manual_seed(0)
    qkv = torch.randn(6, 3, 2, 16, requires_grad=True)
    angles = torch.rand(6, 8)
    tables = (angles.cos(), angles.sin()) if turned else (None, None)
    cu_seqlens = torch.tensor([0, 2, 6], dtype=torch.int32)
    arguments = (qkv, *tables, cu_seqlens, None, None, None, 4, -1, 0.25, 0.0)
    torch.library.opcheck(torch.ops.fastbert.qkv_attention, arguments)
    by_op = torch.ops.fastbert.qkv_attention(*arguments)[0]
    eager = public.qkv_attention(qkv, cu_seqlens, 4, rotary=tables if turned else None)
    assert torch.equal(by_op, eager)
    grads = [torch.autograd.grad(out.square().sum(), qkv)[0] for out in (by_op, eager)]
    assert torch.equal(*grads)


def test_ops_without_a_kernel_take_pytorchs():
    assert ops.choose("adamw")[0] == ops.choose("muon", "auto", {"parameters[0]": torch.zeros(2, 2)})[0] == "reference"
    weighted = {"hidden": torch.zeros(2, 4), "row_weights": torch.ones(2)}
    assert ops.choose("masked_lm_loss", "auto", weighted)[0] == "reference"
    with pytest.raises(RuntimeError, match="no kernel takes row_weights"):
        ops.choose("masked_lm_loss", "triton", weighted)


def test_a_training_step_and_a_prediction(tmp_path):
    (tmp_path / "text.txt").write_text("Bom dia.\nBoa noite.\n", encoding="utf-8")
    options = ("--steps", 1, "--evaluations", 1, "--precision", "fp32", "--threads", 1)
    trained = command("fastbert.train", "--data", "text.txt", "--output", "run", *options, cwd=tmp_path)
    assert "trained 1 step" in trained.stdout, trained.stderr
    predicted = command("fastbert.predict", "run", "Bom [MASK].", cwd=tmp_path)
    assert "Bom" in predicted.stdout, predicted.stderr
