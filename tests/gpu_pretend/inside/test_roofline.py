"""The bytes that a step moves on the pretended GPU, at real widths, against the roofline's count."""

from dataclasses import replace

import pytest
import torch
from pretended.log import LOG

from fastbert.batch import pack_rows
from fastbert.config import BertConfig
from fastbert.model import BertForPreTraining
from fastbert.optim.optimizers import Optimizers
from fastbert.roofline import count_parameters, step

LENGTH = 128


def counted(model, optimizers, sequences: int) -> tuple[int, int, int]:
    """(tokens, masked, bytes of a step); without optimizers, of its forward and backward pass."""
    masked = list(range(0, LENGTH * sequences, 3))
    batch = replace(pack_rows([range(5, 5 + LENGTH)] * sequences, masked), labels=torch.tensor(masked) % 100)
    for _ in range(1 if optimizers is None else 2):  # the second step has the optimizers' state
        model.zero_grad()
        LOG.bytes = 0
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(batch.to("cuda")).loss
        loss.backward()
        if optimizers is not None:
            optimizers.step(1.0)
    return LENGTH * sequences, len(masked), LOG.bytes


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["mini", "base"])
def test_counted_bytes_are_the_rooflines(preset):
    """What a token adds, and for mini what a step takes whatever its tokens, within 15 %."""
    config = BertConfig.preset(preset, "modern", vocab_size=1024)
    model = BertForPreTraining(config).to("cuda").train()
    optimizers = Optimizers(model) if preset == "mini" else None
    (few, few_masked, few_bytes), (many, many_masked, many_bytes) = (counted(model, optimizers, n) for n in (2, 4))
    floors = [
        sum(op.bytes for op in step(config, tokens, LENGTH, masked, count_parameters(config)))
        for tokens, masked in ((few, few_masked), (many, many_masked))
    ]
    a_token, predicted = (many_bytes - few_bytes) / (many - few), (floors[1] - floors[0]) / (many - few)
    assert a_token == pytest.approx(predicted, rel=0.15)
    if optimizers is not None:
        assert few_bytes - a_token * few == pytest.approx(floors[0] - predicted * few, rel=0.15)
