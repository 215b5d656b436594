"""The training loop: steps, evaluations, checkpoints, a clean stop, and going on where a run stopped.

A step is a function of the weights, the optimizers' state, the random state, the step number and the loader's cursor;
all five are in a checkpoint, so a resumed run of a given number of steps continues bit for bit.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch

from fastbert import checkpoint
from fastbert.batch import PackedBatch
from fastbert.budget import Budget
from fastbert.data import BatchLoader
from fastbert.errors import InputError
from fastbert.evaluation import Evaluation, evaluate
from fastbert.masking import RateSchedule
from fastbert.model import BertForPreTraining
from fastbert.monitor import Monitor
from fastbert.optim import Optimizers, Schedule
from fastbert.run_directory import RunDirectory

SMOOTHING = 0.95  # of the loss shown, per step
PERFECT_ENOUGH = 2  # evaluations in a row without a wrong answer: the text is known by heart, and not by luck
RECORD_EVERY = 10  # steps between lines of metrics.jsonl
ENDING_S = 8.0  # seconds for the last checkpoint, the model, the picture, the examples and the probes


@dataclass(frozen=True)
class LoopOptions:
    """What the loop itself needs to know."""

    mask_rate: RateSchedule
    evaluations: int  # during the run, evenly over the budget
    checkpoint_every: int  # steps
    stop_after: int | None = None  # stop cleanly after this step, as Ctrl-C would
    stop_when_perfect: bool = False  # the evaluation text is learned by heart
    bf16: bool = False
    final_evaluation_scale: float = 1.0  # cost of the last evaluation in units of those during the run


def random_state() -> dict[str, torch.Tensor]:
    """Every generator a step may draw from, as tensors."""
    states = {"random/cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"random/cuda{i}": s for i, s in enumerate(torch.cuda.get_rng_state_all())}
    return states


def set_random_state(states: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(states["random/cpu"])
    cuda = [states[name] for name in sorted(states) if name.startswith("random/cuda")]
    if cuda and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(cuda)


class Trainer:
    """One run in one process."""

    def __init__(
        self,
        run: RunDirectory,
        model: BertForPreTraining,
        optimizers: Optimizers,
        schedule: Schedule,
        budget: Budget,
        loader: BatchLoader,
        evaluation_batches: Callable[[], Iterable[PackedBatch]],
        monitor: Monitor,
        options: LoopOptions,
        device: torch.device,
    ):
        self.run, self.model, self.optimizers, self.schedule = run, model, optimizers, schedule
        self.budget, self.loader, self.monitor, self.options, self.device = budget, loader, monitor, options, device
        self.evaluation_batches = evaluation_batches
        self.step, self.tokens = 0, 0
        self.loss = float("nan")  # smoothed
        self.stopped = False  # by a signal or by stop_after, before the budget was spent
        self.stop_signal = 0  # its number
        self.perfect_evaluations = 0  # in a row, up to now
        self.final_evaluation_share = 1.0  # of its tokens, where the whole would take too long

    # ---- state ----
    def save(self) -> None:
        state = {
            "tokens": self.tokens,
            "training_s": self.budget.training_s,
            "loss": self.loss,
            "loader": self.loader.state_dict(),
        }
        tensors = self.optimizers.state_tensors() | random_state()
        try:
            checkpoint.save(self.run.path, self.step, self.model.state_dict(), self.model.config, tensors, state)
        except OSError as error:
            steps = checkpoint.list_steps(self.run.path)
            kept = f"then --resume goes on from step {steps[-1]}" if steps else "then start again"
            raise InputError(
                f"{self.run.path}: the checkpoint of step {self.step} cannot be written ({error.strerror}): "
                f"free some space or make it writable, {kept}"
            ) from None

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Continue from a checkpoint of the same configuration."""
        try:
            self.model.load_state_dict(saved.model)
            self.optimizers.load_state_tensors(
                {name: t for name, t in saved.tensors.items() if not name.startswith("random/")}
            )
        except (RuntimeError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{saved.directory}: belongs to another model or optimizer ({reason})") from None
        self.step, self.tokens, self.loss = saved.step, saved.state["tokens"], saved.state["loss"]
        self.budget.spent_s = saved.state["training_s"]
        self.loader.load_state_dict(saved.state["loader"])
        set_random_state(saved.tensors)

    # ---- the loop ----
    def train(self) -> None:
        """Run until the budget is spent, a stop is asked for, or the text is known by heart."""
        self.model.train()
        self.budget.start()
        next_evaluation = self._next_evaluation(self.budget.progress(self.step))
        step_s = 0.0
        with asked_to_stop() as stop:
            while (progress := self.budget.progress(self.step)) < 1.0:
                began_s = time.monotonic()
                self._one_step(progress)
                step_s = 0.9 * step_s + 0.1 * (time.monotonic() - began_s) if step_s else time.monotonic() - began_s
                if self.options.checkpoint_every and self.step % self.options.checkpoint_every == 0:
                    self.save()
                if (now := self.budget.progress(self.step)) >= next_evaluation and now < 1.0:
                    self._evaluate_on_the_way()
                    # on a slow machine evaluations come further apart: at most a tenth of the time is theirs
                    after = self.budget.progress(self.step)
                    next_evaluation = self._next_evaluation(after + 9 * (after - now))
                    if self.options.stop_when_perfect and self.perfect_evaluations >= PERFECT_ENOUGH:
                        break
                if stop or self.step == self.options.stop_after:
                    self.stopped, self.stop_signal = True, stop[0] if stop else 0
                    break
                self.monitor.show(
                    now, self.step, self.loss, self._last_tokens / step_s, self.budget.left_s(self.step, step_s)
                )
        self.monitor.stop_bar()
        self.save()

    def autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16) if self.options.bf16 else nullcontext()

    def _one_step(self, progress: float) -> None:
        batch = self.loader.next_batch(self.options.mask_rate.rate(progress)).to(self.device)
        with self.autocast():
            loss = self.model(batch).loss
        loss.backward()
        factor = self.schedule(progress)
        norm = self.optimizers.step(factor)
        value = loss.item()
        self.loss = value if self.loss != self.loss else SMOOTHING * self.loss + (1 - SMOOTHING) * value
        self.step += 1
        self._last_tokens = batch.num_tokens
        self.tokens += batch.num_tokens
        if self.step % RECORD_EVERY == 0:
            self.monitor.record(
                "train", self.step, tokens=self.tokens, loss=value, gradient_norm=float(norm),
                learning_rate_factor=factor, training_s=round(self.budget.training_s, 2),
            )  # fmt: skip

    def _next_evaluation(self, progress: float) -> float:
        """The next multiple of 1/evaluations beyond ``progress``."""
        count = self.options.evaluations
        return (int(progress * count) + 1) / count if count else 2.0

    def evaluate(self, batches: Iterable[PackedBatch]) -> Evaluation:
        """Score batches and record the result, in the arithmetic of the training.

        A text to be learned by heart is scored in the exact arithmetic that predictions use.
        """
        autocast = nullcontext() if self.options.stop_when_perfect else self.autocast()
        result = evaluate(self.model, batches, autocast, self.device)
        self.monitor.record("heldout", self.step, tokens=self.tokens, **result.record())
        perfect = result.accuracy == 1.0 and result.next_sentence_accuracy in (None, 1.0)
        self.perfect_evaluations = self.perfect_evaluations + 1 if perfect else 0
        return result

    def _evaluate_on_the_way(self) -> None:
        began_s = time.monotonic()
        result = self.evaluate(self.evaluation_batches())
        self.monitor.say(f"{self.budget.progress(self.step):6.1%}  step {self.step:,}  evaluation: {result}")
        took_s = time.monotonic() - began_s
        self._keep_time_for_the_end(1.2 * took_s * self.options.final_evaluation_scale)

    def _keep_time_for_the_end(self, evaluation_s: float) -> None:
        """Reserve what the last evaluation will take, or a tenth of the budget for as much of it as fits."""
        if self.budget.minutes is not None:
            allowed_s = 0.1 * self.budget.minutes * 60.0
            self.final_evaluation_share = min(1.0, allowed_s / max(evaluation_s, 1e-6))
            self.budget.reserve_s = min(ENDING_S, allowed_s) + min(evaluation_s, allowed_s)


@contextmanager
def asked_to_stop():
    """Yield a list that Ctrl-C and SIGTERM put their number into; a second Ctrl-C interrupts at once."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # signals belong to the main thread
        yield asked
        return

    def ask(number, frame):
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
