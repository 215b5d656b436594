"""A training step as CUDA graphs: equal to the eager step, one order for each graph, nothing of the host kept."""

import json

import pytest
import torch
from pretended.log import LOG, CaptureError
from pretended.steps import complaints, largest_difference, watched

import support
from fastbert.optim.optimizers import Optimizers
from fastbert.training import step_graphs
from fastbert.training.static_batch import StaticBatch, StaticShape

RECIPES = {
    "modern": ("--arch", "modern", "--window", 6),
    "classic": ("--arch", "classic", "--optimizer", "adamw"),
    "pairs": ("--arch", "classic", "--objective", "mlm+nsp"),
    "micro-batches": ("--arch", "roformer", "--micro-batch-tokens", 128, "--batch-ramp", "64"),
    "diffusion": ("--arch", "modern", "--objective", "diffusion"),
    "reference": ("--arch", "modern", "--impl", "reference"),
}
FIRST = ("modern", "pairs")
EACH = [name if name in FIRST else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES]


def losses(run):
    return torch.tensor([row["loss"] for row in support.records(run, "heldout")])


@pytest.mark.parametrize("name", EACH)
def test_replays_train_as_eager_steps_do(train, name):
    """Padded, recorded and replayed: the weights of the run that launches every kernel for the batches as they are."""
    options = (*RECIPES[name], "--steps", 4, "--precision", "fp32")
    with watched() as steps:
        graphs = train(f"graphs-{name}", *options, "--cuda-graphs", "on")
    eager = train(f"eager-{name}", *options, "--cuda-graphs", "off")
    assert [complaints(step) for step in steps] == [[]] * 4
    passes = [4, 4, 4, 4] if name == "micro-batches" else [1] * 4
    print(name, [dict(step["launches"]) for step in steps], largest_difference(graphs, eager), losses(graphs) - losses(eager))
    assert largest_difference(graphs, eager) <= 2e-5
