"""Training, resuming and what a step asks of the device, on the pretended GPU."""

import json

import pytest
import torch
from pretended.steps import BUDGETS, complaints, largest_difference, one_step, watched

import support

RECIPES = {
    "modern": ("--arch", "modern", "--window", 6),
    "roformer": ("--arch", "roformer", "--optimizer", "adamw"),
    "classic": ("--arch", "classic", "--objective", "mlm+nsp"),
    "diffusion": ("--arch", "modern", "--objective", "diffusion"),
    "micro-batches": ("--arch", "modern", "--micro-batch-tokens", 128, "--batch-ramp", "64"),
}


def first_quick(names):
    return [name if number == 0 else pytest.param(name, marks=pytest.mark.slow) for number, name in enumerate(names)]


@pytest.mark.parametrize("name", first_quick(RECIPES))
def test_a_run_equals_that_of_the_reference_on_the_cpu(train, name):
    options = (*RECIPES[name], "--steps", 3, "--precision", "fp32")
    with watched() as steps:
        ours = train(f"fp32-{name}", *options)
    assert [complaints(step) for step in steps] == [[], [], []]
    right = train(f"cpu-{name}", *options, device="cpu")
    assert largest_difference(ours, right) <= 2e-4
    losses = [[row["loss"] for row in support.records(run, "heldout")] for run in (ours, right)]
    torch.testing.assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]), rtol=1e-4, atol=0)


@pytest.mark.slow
def test_triton_by_name_is_what_auto_takes(train):
    options = ("--steps", 2, "--precision", "fp32", "--objective", "diffusion")
    auto = train("auto", *options)
    for name, more, environment in (
        ("option", ("--impl", "triton"), {}),
        ("variable", (), {"FASTBERT_IMPL": "triton"}),
    ):
        assert largest_difference(auto, train(f"named-{name}", *options, *more, **environment)) == 0.0


@pytest.mark.parametrize("name", first_quick(["modern", "roformer"]))
def test_a_resumed_run_ends_with_the_same_bits(train, name):
    options = (*RECIPES[name], "--steps", 4, "--dropout", 0 if name == "modern" else 0.1)
    whole = train(f"whole-{name}", *options)
    parts = train(f"parts-{name}", *options, "--stop-after", 2)
    train(f"parts-{name}", "--resume")
    assert largest_difference(whole, parts) == 0.0


@pytest.mark.slow
def test_no_step_in_bfloat16_waits_for_the_device(train):
    with watched() as steps:
        train("watched", *RECIPES["classic"], "--steps", 3)
    assert [complaints(step) for step in steps] == [[], [], []]


@pytest.mark.parametrize(("preset", "arch"), [(p, a) for p in ("mini", "base") for a in ("modern", "classic")])
def test_launches_of_a_step_stay_in_their_budget(preset, arch):
    budget = json.loads(BUDGETS.read_text())["launches of a step"][f"{preset} {arch}"]
    step = one_step(preset, arch)
    assert complaints(step, budget) == []
    assert sum(step["launches"].values()) >= 0.9 * budget, "fewer launches than budgeted: lower the budget"
