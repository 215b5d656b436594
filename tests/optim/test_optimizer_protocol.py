"""AdamW and Muon keep torch.optim's promises: options, closures, GradScaler, strides, groups, copies."""

import copy

import pytest
import torch
from torch import nn

from fastbert.optim.adamw import AdamW
from fastbert.optim.muon import Muon

OPTIONS = [{}, {"maximize": True}, {"amsgrad": True}, {"lr": torch.tensor(0.1)}, {"maximize": True, "fused": True}]


def pair(shape=(8, 6)):
    p = nn.Parameter(torch.randn(shape))
    return p, nn.Parameter(p.detach().clone())


def step_both(ours, theirs, grad):
    for optimizer in (ours, theirs):
        optimizer.param_groups[0]["params"][0].grad = grad.clone()
        optimizer.step()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_adamw_is_torchs(options):
    p, q = pair()
    ours, theirs = AdamW([p], **{"lr": 0.1, **options}), torch.optim.AdamW([q], **{"lr": 0.1, **options})
    for scale in (10.0, 1.0, 0.1, 0.01):
        step_both(ours, theirs, torch.randn(8, 6) * scale)
    torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


def test_adamw_switches_between_its_steps():
    """The state is one: a group may be given amsgrad after some fused steps, and taken back."""
    p, q = pair()
    ours, theirs = AdamW([p], lr=0.1), torch.optim.AdamW([q], lr=0.1)
    for step in range(6):
        for optimizer in (ours, theirs):
            optimizer.param_groups[0]["maximize"] = step % 3 == 1
        step_both(ours, theirs, torch.randn(8, 6))
    torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


def test_adamw_of_other_strides_and_sparse_gradients():
    p, q = (nn.Parameter(torch.linspace(0, 1, 48).view(6, 8).clone().t()) for _ in range(2))
    ours, theirs = AdamW([p], lr=0.1), torch.optim.AdamW([q], lr=0.1)
    for _ in range(2):
        step_both(ours, theirs, torch.ones(8, 6).cumsum(0))
    torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)
    table = nn.Embedding(5, 4, sparse=True)
    table(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse"):
        AdamW(table.parameters()).step()


@pytest.mark.parametrize("fused", [True, False])
def test_a_gradient_scaler_skips_what_overflows(fused):
    p, q = pair()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    ours, theirs = AdamW([p], lr=0.1, fused=fused), torch.optim.AdamW([q], lr=0.1)
    for step in range(3):
        weight = torch.randn(8, 6)
        scaler.scale((p * weight).sum() * (float("inf") if step == 1 else 1.0)).backward()
        scaler.step(ours)
        scaler.update()
        ours.zero_grad()
        if step != 1:
            q.grad = weight
            theirs.step()
    torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [lambda p: AdamW([p]), lambda p: Muon([("p", p)])], ids=["AdamW", "Muon"])
def test_a_closure_is_called_and_its_loss_returned(make):
    p = nn.Parameter(torch.randn(4, 4))
    optimizer, before = make(p), p.detach().clone()

    def closure():
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == before.square().sum()
    assert not torch.equal(p, before)


def test_muon_refuses_groups_and_is_copied():
    p = nn.Parameter(torch.randn(4, 4))
    muon = Muon([("p", p)], {"p": 2})
    with pytest.raises(ValueError, match="one group"):
        muon.add_param_group({"params": [("q", nn.Parameter(torch.randn(2, 2)))]})
    with pytest.raises(ValueError, match="one group"):
        Muon([{"params": [p], "lr": 0.1}])
    assert copy.deepcopy(muon).parts == [2]
