"""A training step as CUDA graphs: equal to the eager step, an order of the host a graph, nothing of the host kept."""

import itertools
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from pretended.log import LOG, CaptureError
from pretended.steps import complaints, largest_difference, watched
from pretended.tensors import inner_of, on_the_host

import support
from fastbert.batch import pack_rows
from fastbert.config import BertConfig
from fastbert.distributed.parallelism import Parallelism
from fastbert.model import BertForPreTraining, MaskedLMHead
from fastbert.optim.optimizers import Optimizers
from fastbert.training import step_graphs
from fastbert.training.late_readings import LateReadings
from fastbert.training.loss_shares import shares_of, weighted_loss
from fastbert.training.static_batch import StaticBatch, StaticShape
from fastbert.training.step_graphs import StepGraphs

CUDA = torch.device("cuda")
SHAPE = StaticShape(tokens=64, sequences=8, masked=24, longest=24)
RATES = ((0.5, 0.0), (1.0, 0.01), (0.25, 0.02))  # factor of the schedule, share of a step in the run


def batch_of(seed, pairs):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 20, (3,), generator=generator).tolist()
    masked = torch.randperm(sum(lengths), generator=generator)[: 4 + seed % 7].sort().values
    batch = pack_rows([torch.randint(5, 60, (n,), generator=generator).numpy() for n in lengths], masked.numpy())
    labels = torch.randint(5, 60, (len(masked),), generator=generator)
    return replace(batch, labels=labels, next_sentence_label=torch.tensor([0, 1, 0]) if pairs else None)


class Bench:
    """A small model on the device with all that a step needs."""

    def __init__(self, arch="modern", optimizer="muon"):
        torch.manual_seed(1)
        config = BertConfig.preset("tiny", arch, vocab_size=60, hidden_size=64, num_attention_heads=1,
                                   intermediate_size=64, initializer_range=0.2)  # fmt: skip
        self.model = BertForPreTraining(config).to(CUDA).train()
        rates = {"learning_rate": None, "muon_learning_rate": None, "weight_decay": None}
        self.optimizers = Optimizers(self.model, optimizer=optimizer, muon_dtype=torch.float32, **rates)
        self.parallelism, self.readings = Parallelism(self.model, self.optimizers), LateReadings(CUDA)

    def capture(self, example, accumulates=False):
        place = StaticBatch(SHAPE, example, CUDA)
        return StepGraphs(self.parallelism, self.readings, place, nullcontext, accumulates)

    def eager_step(self, parts, whole, factor, step_share):
        self.optimizers.set_rates(factor, step_share)
        total = torch.zeros((), dtype=torch.float64, device=CUDA)
        for part in parts:
            shares = torch.tensor(shares_of(part, whole)).to(CUDA).unbind()
            loss = weighted_loss(self.model(SHAPE.padded(part).to(CUDA)), shares)
            loss.backward()
            total += loss.detach()
        self.optimizers.found_inf = self.readings.guard(total, self.optimizers.clip())
        self.optimizers.apply()

    def state(self):
        """Weights, the state of the optimizers, and the loss and norm of the last step."""
        with on_the_host():
            tensors = self.model.state_dict() | self.optimizers.state_tensors() | {"read": self.readings._values}
            return {name: inner_of(x.detach()).clone() for name, x in tensors.items()}


def differing(one, other):
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


def after_steps(passes=1, pairs=False, **made):
    """The states of a captured and of an eager model after three steps, each on other batches at other rates."""
    captured, eager = Bench(**made), Bench(**made)
    before = captured.state()
    graphs = captured.capture(batch_of(99, pairs), accumulates=passes > 1)
    eager.optimizers.keep_rates_on_device(CUDA)
    now = captured.state()
    assert differing(before, {name: now[name] for name in before}) == ["read"], "a capture must change nothing"
    for number, (factor, share) in enumerate(RATES):
        whole = [batch_of(10 * number + i, pairs) for i in range(passes)]
        graphs.step(whole, whole, factor, share)
        eager.eager_step(whole, whole, factor, share)
    return captured.state(), eager.state()


@pytest.mark.parametrize(
    ("passes", "pairs", "made"),
    [
        (1, False, {"arch": "modern"}),
        (2, True, {"arch": "classic"}),
        pytest.param(1, False, {"arch": "roformer", "optimizer": "adamw"}, marks=pytest.mark.slow),
    ],
)
def test_replays_have_the_bits_of_eager_steps_on_the_same_padded_batches(passes, pairs, made):
    assert differing(*after_steps(passes, pairs, **made)) == []


def test_a_step_is_a_replay_for_each_pass_and_one_more():
    bench = Bench()
    graphs = bench.capture(batch_of(0, False), accumulates=True)
    parts = [batch_of(1, False), batch_of(2, False)]
    graphs.step(parts, parts, 1.0, 0.0)  # allocates
    before, versions = LOG.snapshot(), [p._version for p in bench.model.parameters()]
    graphs.step(parts, parts, 1.0, 0.0)
    asked = {kind: counter - before[kind] for kind, counter in LOG.snapshot().items()}
    assert asked["launches"] == {"graph": 3} and complaints(asked) == []
    assert sum(asked["pinned"].values()) == 3, "two batches and the rates"
    changed = [p._version for p in bench.model.parameters()]
    assert all(new > old for new, old in zip(changed, versions, strict=True)), "copies of weights go by their version"


def test_a_loss_that_is_not_finite_changes_nothing_from_then_on(monkeypatch):
    bench = Bench()
    graphs = bench.capture(batch_of(0, False))
    graphs.step([batch_of(1, False)], [batch_of(1, False)], 1.0, 0.0)
    before = bench.state()
    for shares in ((float("nan"), 1.0), (1.0, 1.0)):
        monkeypatch.setattr(step_graphs, "shares_of", lambda part, whole, shares=shares: shares)
        graphs.step([batch_of(2, False)], [batch_of(2, False)], 1.0, 0.0)
        assert set(differing(before, bench.state())) <= {"read"}


def test_what_a_capture_forbids_is_noticed(monkeypatch):
    stock = Optimizers.clip
    with monkeypatch.context() as planted:
        planted.setattr(Optimizers, "clip", lambda self: stock(self) if stock(self).item() >= 0 else None)
        planted.setattr(step_graphs, "WARM_UPS", 0)
        with pytest.raises(CaptureError, match="item"):
            Bench().capture(batch_of(0, False))
    head = MaskedLMHead.forward
    monkeypatch.setattr(MaskedLMHead, "forward", lambda self, x: head(self, x) * torch.ones(()))
    with pytest.raises(CaptureError, match="CPU tensor"):
        Bench().capture(batch_of(0, False))


def test_numbers_that_the_host_keeps_are_noticed(monkeypatch):
    """A rate as a Python number, a batch that is copied while the graph is captured: the replay has the old one."""
    with monkeypatch.context() as planted:
        stock = Optimizers.apply

        def apply(self):
            for optimizer in self.parts.values():
                for group in optimizer.param_groups:
                    with on_the_host():
                        group["lr"] = float(inner_of(self._rates)[0])
            stock(self)

        planted.setattr(Optimizers, "apply", apply)
        captured, eager = after_steps()
        assert "read" in differing(captured, eager)
    read = StaticBatch.read
    monkeypatch.setattr(StaticBatch, "read", lambda self: (self._example.to(CUDA), read(self)[1]))
    captured, eager = after_steps()
    assert "read" in differing(captured, eager)


RECIPES = {
    "modern": ("--arch", "modern", "--window", 6),
    "classic": ("--arch", "classic", "--optimizer", "adamw"),
    "pairs": ("--arch", "classic", "--objective", "mlm+nsp"),
    "micro-batches": ("--arch", "roformer", "--micro-batch-tokens", 128, "--batch-ramp", "64"),
    "diffusion": ("--arch", "modern", "--objective", "diffusion"),
    "reference": ("--arch", "modern", "--impl", "reference"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_run_of_replays_equals_one_that_launches_every_kernel(train, name):
    """Batches padded and recorded, against batches as they are."""
    options = (*RECIPES[name], "--steps", 4, "--precision", "fp32")
    with watched() as steps:
        graphs = train(f"graphs-{name}", *options, "--cuda-graphs", "on")
    eager = train(f"eager-{name}", *options, "--cuda-graphs", "off")
    passes = [1, 3, 4, 4] if name == "micro-batches" else [1] * 4
    assert [(dict(step["launches"]), complaints(step)) for step in steps] == [({"graph": n + 1}, []) for n in passes]
    assert largest_difference(graphs, eager) <= 5e-6
    losses = [torch.tensor([row["loss"] for row in support.records(run, "heldout")]) for run in (graphs, eager)]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=0)


@pytest.mark.slow
def test_each_replay_drops_other_elements_and_a_resumed_run_the_same(train):
    options = ("--arch", "modern", "--steps", 4, "--dropout", 0.2, "--impl", "reference", "--cuda-graphs", "on")
    whole = train("dropped", *options)
    parts = train("dropped-parts", *options, "--stop-after", 2)
    train("dropped-parts", "--resume")
    assert largest_difference(whole, parts) == 0.0
    assert largest_difference(whole, train("kept", *options, "--dropout", 0)) > 1e-4


@pytest.mark.slow
def test_a_batch_without_room_is_trained_on_eagerly(train, monkeypatch):
    options = ("--arch", "modern", "--steps", 4, "--precision", "fp32")
    right = train("roomy", *options)
    turns = itertools.cycle((True, False))
    monkeypatch.setattr(StaticShape, "holds", lambda self, batch: next(turns))
    with watched() as steps:
        tight = train("tight", *options)
    assert [step["launches"]["graph"] for step in steps] == [2, 0, 2, 0]
    assert [complaints(step) for step in steps] == [[]] * 4
    assert largest_difference(right, tight) <= 5e-6
