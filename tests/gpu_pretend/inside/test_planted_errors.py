"""Errors planted in a training step: the gate must notice each, or it guards nothing."""

import dataclasses
import json

import pytest
import torch
from pretended.log import LOG, CaptureError
from pretended.steps import BUDGETS, complaints, largest_difference, one_step, watched
from pretended.tensors import MixedDevices

from fastbert.batch import PackedBatch
from fastbert.model import BertForPreTraining, MaskedLMHead
from fastbert.optim.optimizers import Optimizers

BUDGET = json.loads(BUDGETS.read_text())["launches of a step"]["mini modern"]


def test_a_tensor_left_on_the_cpu(monkeypatch):
    stock = MaskedLMHead.forward
    monkeypatch.setattr(MaskedLMHead, "forward", lambda self, x: stock(self, x) + torch.zeros(x.shape))
    with pytest.raises(MixedDevices, match="cuda:0 and cpu"):
        one_step("mini", "modern")


def test_a_tensor_of_the_cpu_in_a_launch(monkeypatch):
    from fastbert.kernels import norm

    stock = norm.launch
    monkeypatch.setattr(norm, "launch", lambda *a, **named: stock(*a, **{**named, "WEIGHT": torch.ones(64)}))
    with pytest.raises(MixedDevices, match="WEIGHT is on the CPU"):
        one_step("mini", "modern")


def test_an_item_in_the_step(monkeypatch):
    stock = Optimizers.clip
    monkeypatch.setattr(Optimizers, "clip", lambda self: stock(self) if stock(self).item() >= 0 else None)
    assert any("item()" in one for one in complaints(one_step("mini", "modern")))


def test_a_pageable_copy(monkeypatch):
    def to(self, device, non_blocking=True):
        moved = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return PackedBatch(**{k: x.to(device) if isinstance(x, torch.Tensor) else x for k, x in moved.items()})

    monkeypatch.setattr(PackedBatch, "to", to)
    assert any(one.startswith("pageable: ") for one in complaints(one_step("mini", "modern")))


def test_a_launch_too_many(monkeypatch):
    stock = Optimizers.clip
    monkeypatch.setattr(Optimizers, "clip", lambda self: stock(self) + 0.0)
    assert f"{BUDGET + 1} launches" in "".join(complaints(one_step("mini", "modern"), BUDGET))


def test_a_wait_in_a_capture():
    loss = torch.ones((), device="cuda")
    LOG.capturing = True
    try:
        with pytest.raises(CaptureError, match="item"):
            loss.item()
    finally:
        LOG.capturing = False


def test_a_loss_that_is_not_finite_is_noticed_a_step_later_and_changes_nothing(train, monkeypatch):
    """The state that is saved is that of a run which stopped before the bad step, bit for bit."""
    options = ("--arch", "modern", "--steps", 6, "--cuda-graphs", "off")
    good = train("good", *options, "--stop-after", 2)
    calls, stock = [], BertForPreTraining.forward

    def forward(self, batch, *rest, **named):
        out = stock(self, batch, *rest, **named)
        if self.training and out.loss is not None:
            calls.append(1)
            if len(calls) == 6:  # three passes measure a step
                out.loss = out.loss * float("nan")
        return out

    monkeypatch.setattr(BertForPreTraining, "forward", forward)
    with watched() as steps, pytest.raises(AssertionError, match="step 3"):
        train("bad", *options)
    assert len(steps) == 4 and [complaints(step) for step in steps[:3]] == [[]] * 3
    bad = good.parent / "bad" / "checkpoints" / "step-2"
    assert largest_difference(good / "checkpoints" / "step-2", bad) == 0.0
    names = ("optimizer.safetensors",)
    for name in names:
        if (bad / name).exists():
            assert (bad / name).read_bytes() == (good / "checkpoints" / "step-2" / name).read_bytes()
