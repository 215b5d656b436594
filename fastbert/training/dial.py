"""The size of a new model: the preset whose loss is foreseen to be the lowest when the time is over.

In the same time a small model sees more text; from the same text a large one learns more. What each size learns is
known from runs of the default recipe (benchmarks/recipe/dial.py); how fast each is here is measured, by a step of it.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

import fastbert
from fastbert.batch import PackedBatch
from fastbert.distributed.world import World
from fastbert.optim.optimizers import Optimizers
from fastbert.runs.metrics_log import clock
from fastbert.system.devices import autocast, set_threads
from fastbert.system.errors import InputError
from fastbert.training.estimate import check_memory, measure_step
from fastbert.training.evaluation_data import EvaluationText
from fastbert.training.loaders import training_loader
from fastbert.training.plan import TrainingPlan
from fastbert.training.prepare_data import TrainingText
from fastbert.training.setup import build_model

LEAST_TOKENS = 400_000  # of a run whose loss the curves can tell
STEPS_SHARE = 0.95  # of the time that is left; the rest goes to evaluations and the end of the run


@dataclass(frozen=True)
class Curve:
    """Held-out loss of a finished run as a function of its tokens: ``floor + scale · (million tokens)^−power``."""

    floor: float
    scale: float
    power: float

    def loss(self, tokens: float) -> float:
        return self.floor + self.scale * (tokens / 1e6) ** -self.power


# from small to large, on the bundled Portuguese: benchmarks/recipe/fit_dial.py; larger presets were not measured
CURVES = {"tiny": Curve(2.468, 1.992, 0.375), "mini": Curve(1.630, 2.618, 0.286)}


@dataclass(frozen=True)
class Choice:
    """A preset, and what is foreseen for it and for those it was preferred to."""

    preset: str
    tokens: Mapping[str, float]  # preset -> tokens that it sees
    seconds: float
    measured_recipe: bool  # the curves are of this architecture and objective

    def __str__(self) -> str:
        foreseen = []
        for preset, tokens in self.tokens.items():
            told = self.measured_recipe and tokens >= LEAST_TOKENS
            loss = f" and a loss of about {CURVES[preset].loss(tokens):.1f}" if told else ""
            foreseen.append(f"{preset} {tokens / 1e6:,.1f} million tokens{loss}")
        return (
            f"size: {self.preset}; in the {clock(self.seconds)} left, on text like novels: {', '.join(foreseen)} "
            "(--preset overrides)"
        )


def with_best_size(
    plan_of: Callable[[str | None], TrainingPlan],
    text: TrainingText,
    evaluation: EvaluationText,
    world: World,
    log: Callable[[str], None],
) -> TrainingPlan:
    """The plan of a run, with the size that is foreseen to end lowest if nothing else decides it.

    Sets the number of threads, too.

    Args:
        plan_of: preset -> the plan with it, unless something else decides.
        text, evaluation: of the run.
        world: the ranks; each sees its share of the tokens.
        log: gets a line that tells the choice.
    """
    plan = plan_of(None)
    set_threads(plan.threads, world.local_size)
    if not plan.size_open:
        return plan

    choice = choose(plan, plan_of, text, evaluation, world)
    log(str(choice))
    return plan_of(choice.preset)


def choose(
    plan: TrainingPlan,
    plan_of: Callable[[str], TrainingPlan],
    text: TrainingText,
    evaluation: EvaluationText,
    world: World,
) -> Choice:
    """Measure one preset after another, from small to large, until a larger one is foreseen to end no lower.

    All ranks measure at once, as they will train, and the slowest one counts.

    Args:
        plan: of any preset, with minutes, on a CPU; the rest as in :func:`with_best_size`.
    """
    assert plan.minutes is not None
    loader = training_loader(plan, evaluation, text)
    batch = next(loader.evaluation_batches(plan.mask_rate.rate(0.0), max_tokens=plan.pass_tokens))
    loader.close()
    (spent_s,) = world.broadcast(time.monotonic() - fastbert.IMPORTED_AT_S)
    left_s = max(plan.minutes * 60.0 - spent_s, 1.0)
    tokens: dict[str, float] = {}
    best = ""
    for preset, curve in CURVES.items():
        candidate = plan_of(preset)
        if best and not _fits(candidate, world):
            break
        (seconds,) = world.all_max(step_seconds(candidate, batch))
        tokens[preset] = STEPS_SHARE * left_s / seconds * batch.num_tokens * world.size
        if best and curve.loss(tokens[preset]) >= CURVES[best].loss(tokens[best]):
            break
        best = preset
    return Choice(best, tokens, left_s, measured_recipe=(plan.arch, plan.objective) == ("modern", "mlm"))


def _fits(plan: TrainingPlan, world: World) -> bool:
    try:
        check_memory(plan, world)
    except InputError:
        lacks = 1.0
    else:
        lacks = 0.0
    return not any(world.all_max(lacks))


def step_seconds(plan: TrainingPlan, batch: PackedBatch) -> float:
    """Seconds of a whole step on ``batch`` by a model that is then discarded."""
    model = build_model(plan).to(plan.device)
    optimizers = Optimizers(model, **plan.optimizer_settings)

    def step() -> None:
        with autocast(plan.device, plan.dtype == torch.bfloat16):
            loss = model(batch).loss
        loss.backward()
        optimizers.step(1.0)

    return measure_step(step, max_s=0.5, times=8)
