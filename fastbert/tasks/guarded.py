"""The loop of every fine-tuning: it keeps the best weights, stops in order, and can go on later.

A training that diverges, or that Ctrl-C or SIGTERM stops, ends with the best weights so far, as one that reaches its
last step; without evaluations these are the weights at the end of the last epoch that did no harm. A training that goes
on from its saved state ends with the same bits as one that was never stopped.
"""

import itertools
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fastbert.optim.optimizers import load_state_tensors, state_tensors
from fastbert.system.devices import random_state, set_random_state
from fastbert.system.errors import InputError
from fastbert.system.stop_signals import stop_signals
from fastbert.tasks.saved_training import SavedTraining
from fastbert.tasks.scores import better

SAVE_EVERY_S = 60.0  # at least, between savings of the state, so that they cost little
MAX_LOSS_INCREASE = 1e3  # times the first loss (at least 1): training has diverged
Weights = dict[str, Tensor]


@dataclass
class Progress:
    """Where a training is; ``history`` has a record for each evaluation."""

    steps: int = 0
    tokens: int = 0
    best: float | None = None
    best_step: int = 0
    stopped_early: bool = False
    interrupted: int = 0  # by the signal of this number
    diverged: str = ""  # what happened, and the remedy
    training_s: float = 0.0
    first_loss: float = 0.0
    loss: float = 0.0  # of the last step
    waited: int = 0  # evaluations without improvement
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Course:
    """How long a training is, and what is looked at on the way.

    Attributes:
        total: steps.
        every: steps between evaluations, or between savings of the state where there are none.
        factor: step, from 1 → factor of the peak learning rates.
        score: measures of the model as it is; None: no evaluations.
        measure: the one of them that decides.
        patience: evaluations without improvement before training stops; 0: never.
        clip_norm: bound of the gradient norm; 0: none.
    """

    total: int
    every: float
    factor: Callable[[int], float]
    score: Callable[[], dict[str, float]] | None = None
    measure: str = ""
    patience: int = 0
    clip_norm: float = 1.0


class Diverged(InputError):
    """Training has diverged; the message names the step and the remedy."""


def run_steps(
    optimizers: Sequence[torch.optim.Optimizer],
    batches: Iterable[Any],
    loss_of: Callable[[Any], Tensor],
    factor: Callable[[int], float],
    clip_norm: float,
    progress: Progress | None = None,
) -> Iterator[float]:
    """Take an optimizer step for each batch and yield its loss.

    Args:
        optimizers: whose groups have a ``peak`` learning rate.
        loss_of: the loss of a batch.
        factor: step, from 1 → factor of the peak.
        clip_norm: bound of the gradient norm; 0: none.
        progress: its steps are counted, and its first loss is set; None: training begins.

    Raises:
        Diverged: before an update with a loss or gradient that is not finite, or a loss that has exploded.
    """
    progress = progress or Progress()
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    parameters = [p for group in groups for p in group["params"]]
    for batch in batches:
        step = progress.steps + 1
        loss = loss_of(batch)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, clip_norm or float("inf")).item()
        value = loss.item()
        limit = MAX_LOSS_INCREASE * max(progress.first_loss or value, 1.0)
        if not (math.isfinite(norm) and value < limit):
            what = f"the loss is {value:.3g}" if not value < limit else f"the gradient norm is {norm}"
            peak = max(group["peak"] for group in groups)
            raise Diverged(f"step {step}: {what}: training has diverged. Try: a learning rate below {peak:g}")
        progress.first_loss, progress.loss = progress.first_loss or value, value
        for group in groups:
            group["lr"] = group["peak"] * factor(step)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        progress.steps = step
        yield value


def train_guarded(
    model: nn.Module,
    optimizers: Mapping[str, torch.optim.Optimizer],
    batches: Iterable[Any],
    loss_of: Callable[[Any], Tensor],
    course: Course,
    progress: Progress,
    *,
    device: torch.device,
    report: Callable[[Progress, float, dict[str, float] | None], None] = lambda progress, share, scores: None,
    saved: SavedTraining | None = None,
) -> None:
    """Train in place, see the module.

    Args:
        model: whose state is kept; in training mode.
        optimizers: by name, of named parameters, whose groups have a ``peak`` learning rate.
        batches: all of the training, in order; ``loss_of`` gives the loss of one.
        course: steps, evaluations, schedule.
        progress: filled.
        device: of the model.
        report: called after every step with the loss's place in the training, from 0 to 1, and after an evaluation
            with its scores.
        saved: where the state is saved, and taken from.

    Raises:
        Diverged: before there are weights to keep.
    """
    guard = _Guard(model, optimizers, course, progress, device, saved)
    ahead = itertools.islice(batches, progress.steps, None)
    steps = run_steps([*optimizers.values()], ahead, loss_of, course.factor, course.clip_norm, progress)
    try:
        with stop_signals() as received:
            for loss in steps:
                scores = guard.after_step(loss)
                report(progress, progress.steps / course.total, scores)
                if course.patience and progress.waited >= course.patience:
                    progress.stopped_early = progress.steps < course.total
                    break
                if received and progress.steps < course.total:
                    progress.interrupted = received[0]
                    guard.save()
                    break
    except Diverged as error:
        if saved is not None:
            saved.discard()
        if guard.best is None:
            raise
        progress.diverged = str(error)
    except KeyboardInterrupt:
        if not progress.steps:
            raise
        progress.interrupted = int(signal.SIGINT)
    guard.finish()


class _Guard:
    """The weights that are kept of a training, and its state in a file."""

    def __init__(
        self,
        model: nn.Module,
        optimizers: Mapping[str, torch.optim.Optimizer],
        course: Course,
        progress: Progress,
        device: torch.device,
        saved: SavedTraining | None,
    ):
        self.model, self.optimizers, self.course = model, optimizers, course
        self.progress, self.device, self.saved = progress, device, saved
        self.best: Weights | None = None
        self.last: Weights | None = None  # of the end of an epoch: harmless if the next step is
        if saved is not None and (found := saved.take()) is not None:
            self._restore(*found)
        self._spent_s, self._saved_at_s = progress.training_s, time.monotonic()
        self._began_s = self._saved_at_s

    def after_step(self, loss: float) -> dict[str, float] | None:
        """Evaluate and save where that is due; returns the scores."""
        progress, course = self.progress, self.course
        if self.last is not None:
            self.best, self.last, progress.best_step = self.last, None, progress.steps - 1
        reached = int((progress.steps + 1e-6) / course.every) > int((progress.steps - 1 + 1e-6) / course.every)
        if not reached and (course.score is None or progress.steps < course.total):
            return None
        scores = self._evaluate(loss)
        if progress.steps < course.total and time.monotonic() - self._saved_at_s >= SAVE_EVERY_S:
            self.save()
            self._saved_at_s = time.monotonic()
        return scores

    def _evaluate(self, loss: float) -> dict[str, float] | None:
        """Copy the weights if they are the best; without evaluations they are a candidate."""
        progress, measure = self.progress, self.course.measure
        if self.course.score is None:
            self.last = _copy(self.model)
            return None
        scores = self.course.score()
        progress.history.append({"step": progress.steps, "train_loss": loss, **scores})
        progress.waited += 1
        if better(measure, scores[measure], progress.best):
            progress.best, progress.best_step, progress.waited = scores[measure], progress.steps, 0
            self.best = _copy(self.model)
        return scores

    def finish(self) -> None:
        """Put the best weights in place: those of the best evaluation, or without any the last ones that were good."""
        progress = self.progress
        chosen = bool(progress.diverged) or self.course.score is not None
        if self.best is not None and chosen and progress.best_step != progress.steps:
            self.model.load_state_dict(self.best)
        self._count_time()

    def _count_time(self) -> None:
        self.progress.training_s = self._spent_s + time.monotonic() - self._began_s

    # ---- the state ----
    def save(self) -> None:
        if self.saved is None:
            return
        self._count_time()
        parts = {
            "model": self.model.state_dict(), "optimizer": state_tensors(self.optimizers),
            "random": random_state(self.device), "best": self.best or {}, "last": self.last or {},
        }  # fmt: skip
        tensors = {f"{part}:{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
        self.saved.save(tensors, {"progress": asdict(self.progress) | {"interrupted": 0}})

    def _restore(self, tensors: Weights, record: dict[str, Any]) -> None:
        parts: dict[str, Weights] = {}
        for name, tensor in tensors.items():
            part, _, inner = name.partition(":")
            parts.setdefault(part, {})[inner] = tensor
        try:
            self.model.load_state_dict(parts["model"])
            load_state_tensors(self.optimizers, parts.get("optimizer", {}))
            vars(self.progress).update(vars(Progress(**record["progress"])))
            set_random_state(parts["random"], self.device)
        except (KeyError, TypeError, RuntimeError) as error:
            reason = str(error).splitlines()[0][:100]
            raise InputError(f"--resume: the training began with another model or other data ({reason})") from None
        self.best, self.last = parts.get("best"), parts.get("last")


def _copy(model: nn.Module) -> Weights:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}
