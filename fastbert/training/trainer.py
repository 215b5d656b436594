"""The training loop: steps, evaluations, checkpoints, a clean stop, and going on where a run stopped.

A step is a function of the weights, the optimizers' state, the random state, the step number and the loader's cursor;
all five are in a checkpoint, so a resumed run of a given number of steps continues bit for bit, on the same number of
ranks; on another one, within the order of the sums.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fastbert.batch import PackedBatch
from fastbert.data import BatchLoader
from fastbert.data.batches.masking import RateSchedule
from fastbert.distributed.shared_memory import SharedMemory
from fastbert.distributed.world import World, is_lost_peer
from fastbert.evaluation.examples import Evaluation, evaluate
from fastbert.model import BertForPreTraining, PreTrainingOutput
from fastbert.optim.optimizers import BatchRamp, Optimizers, Schedule
from fastbert.runs import checkpoint
from fastbert.runs.directory import RunDirectory
from fastbert.runs.metrics_log import Monitor
from fastbert.system.background import Background, HostCopy
from fastbert.system.errors import InputError
from fastbert.training.budget import Budget
from fastbert.training.divergence import Diverged, Watch
from fastbert.training.estimate import measure_step
from fastbert.weights.huggingface import config_to_hf

if TYPE_CHECKING:
    from fastbert.distributed.fsdp import ShardFiles

SMOOTHING = 0.95  # of the loss shown, per step
PERFECT_ENOUGH = 2  # evaluations in a row without a wrong answer: the text is known by heart, and not by luck
RECORD_EVERY = 10  # steps between lines of metrics.jsonl
DEFAULT_EVERY = 500  # steps between checkpoints
COST = 0.01  # of the time that checkpoints may take by default
EVALUATION_COST = 0.05  # of the time that evaluations on the way may take
ENDING_S = 8.0  # seconds for the last checkpoint, the model, the picture, the examples and the probes


@dataclass(frozen=True)
class LoopOptions:
    """What the loop itself needs to know."""

    mask_rate: RateSchedule
    evaluations: int  # during the run, evenly over the budget
    checkpoint_every: int | None  # steps; None: DEFAULT_EVERY, further apart where that would cost more than COST
    keep: checkpoint.Keep = field(default_factory=checkpoint.Keep)
    stop_after: int | None = None  # stop cleanly after this step, as Ctrl-C would
    stop_when_perfect: bool = False  # the evaluation text is learned by heart
    bf16: bool = False
    final_evaluation_scale: float = 1.0  # cost of the last evaluation in units of those during the run
    micro_batches: int = 1  # forward passes a rank makes for one batch
    batch_ramp: BatchRamp | None = None  # batches of a step; None: one
    identity: str = ""  # of vocabulary and text: a checkpoint of another is refused


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Every generator a step of this rank may draw from, as tensors."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_state(states: dict[str, Tensor], device: torch.device) -> None:
    if "cpu" in states:
        torch.set_rng_state(states["cpu"])
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)


class Trainer:
    """One run, on this rank.

    Args:
        engine: what runs forward: ``model`` itself, or DDP around it.
        shards: where sharded optimizer state is saved; None: every rank has the whole.
    """

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
        world: World | None = None,
        engine: nn.Module | None = None,
        shards: "ShardFiles | None" = None,
    ):
        self.run, self.model, self.optimizers, self.schedule = run, model, optimizers, schedule
        self.budget, self.loader, self.monitor, self.options, self.device = budget, loader, monitor, options, device
        self.evaluation_batches = evaluation_batches
        self.batch_ramp = options.batch_ramp or BatchRamp(loader.plan.batch_tokens)
        self.world, self.engine, self.shards = world or World(), engine or model, shards
        self.memory = engine if isinstance(engine, SharedMemory) else None
        self.step, self.tokens = 0, 0
        self.loss = float("nan")  # smoothed
        self.stopped = False  # by a signal or by stop_after, before the budget was spent
        self.stop_signal = 0  # its number
        self.perfect_evaluations = 0  # in a row, up to now
        self.evaluation_s = 0.0  # of all evaluations up to now, earlier sittings included
        self.final_evaluation_share = 1.0  # of its tokens, where the whole would take too long
        self.next_evaluation: float | None = None  # progress at which it is due
        self.foreseen_evaluation_s = 0.0  # what one on the way will take; 0: not known
        self.writer = Background("checkpoint")
        self.store_check = Background("store-check")  # nothing is saved before the tokens are known to be whole
        self._copy = HostCopy()
        self._place = loader.state_dict()  # after the last finished step
        self._saved_step = 0 if not checkpoint.list_steps(run.path) else -1
        self._copy_s, self._saved_at_s = 0.0, time.monotonic()
        self._watch = Watch(model.config.vocab_size)
        self._last_tokens, self._step_s = 0, 0.0

    # ---- state ----
    def save(self) -> None:
        """Copy the state to host memory and let a thread write it, once the checkpoint before is on the disk."""
        self._wait_for_writer()
        self.store_check.wait()
        began_s = time.monotonic()
        state = {
            "tokens": self.tokens,
            "training_s": self.budget.training_s,
            "prepared_s": self.budget.prepared_s,
            "reserve_s": self.budget.reserve_s,
            "final_evaluation_share": self.final_evaluation_share,
            "loss": self.loss,
            "loader": self._place,
            "next_evaluation": self.next_evaluation,
            "perfect_evaluations": self.perfect_evaluations,
            "evaluation_s": self.evaluation_s,
            "metrics_bytes": self.monitor.metrics_bytes,
            "identity": self.options.identity,
            "world_size": self.world.size,
        }
        tensors = {
            f"random/{rank}/{name}": value
            for name, mine in random_state(self.device).items()
            for rank, value in enumerate(self.world.gather(mine))
        }
        write_shards: Callable[[Path], None] | None = None
        if self.shards is not None:
            from fastbert.distributed.fsdp import full_state

            shards, files = self.shards.copy(self.optimizers.state_tensors()), self.shards
            model = full_state(self.model, keep=self.world.main)

            def write_shards(directory: Path) -> None:
                files.write(shards, directory)
        else:
            tensors |= self.optimizers.state_tensors()
            model = self.model.state_dict()
        step = self._saved_step = self.step
        if self.world.main:
            copied = self._copy.take({f"model/{n}": t for n, t in model.items()} | tensors)
            weights = {n.removeprefix("model/"): t for n, t in copied.items() if n.startswith("model/")}
            others = {n: t for n, t in copied.items() if not n.startswith("model/")}
            config, keep, path = self.model.config, self.options.keep, self.run.path
            self.writer.submit(lambda: checkpoint.save(path, step, weights, config, others, state, keep, write_shards))
        elif write_shards is not None:
            place = checkpoint.partial_folder(self.run.path, step) / checkpoint.SHARDS
            self.writer.submit(lambda: write_shards(place))
        self._copy_s, self._saved_at_s = time.monotonic() - began_s, time.monotonic()

    def _save_due(self) -> bool:
        """Whether a checkpoint is due, on rank 0's clock; by default none that costs more than COST of the time."""
        every = DEFAULT_EVERY if self.options.checkpoint_every is None else self.options.checkpoint_every
        if not every or self.step % every or self.step == self._saved_step:
            return False
        if self.options.checkpoint_every is None:
            cost_s = self._copy_s + self.writer.cpu_s
            return not self.writer.busy and time.monotonic() - self._saved_at_s >= cost_s / COST
        return True

    def _wait_for_writer(self) -> None:
        """Wait for the checkpoint in flight; what it failed with ends the run."""
        try:
            self.writer.wait()
        except OSError as error:
            steps = checkpoint.list_steps(self.run.path)
            kept = f"then --resume goes on from step {steps[-1]}" if steps else "then start again"
            raise InputError(
                f"{self.run.path}: the checkpoint of step {self._saved_step} cannot be written ({error.strerror}): "
                f"free some space or make it writable, {kept}"
            ) from None
        except FloatingPointError as error:
            self._watch.healthy = False
            raise self._diverged(f"{error} is no longer finite") from None

    def close(self) -> None:
        """Let the checkpoint in flight reach the disk."""
        self.loader.close()
        self._wait_for_writer()
        self.store_check.wait()

    def abandon(self) -> None:
        """After a failure: stop the threads, let a checkpoint in flight end, and say no more."""
        self.loader.close()
        for thread in (self.writer, self.store_check):
            with suppress(Exception):
                thread.wait()

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Continue from a checkpoint of the same configuration, vocabulary and text."""
        state = saved.state
        if config_to_hf(saved.config) != config_to_hf(self.model.config):
            raise InputError(f"{saved.directory}: belongs to a model of another configuration: restore run.json")
        if state.get("identity", self.options.identity) != self.options.identity:
            raise InputError(f"{saved.directory}: was trained with another vocabulary or text: restore them")
        try:
            optimizer = {name: t for name, t in saved.tensors.items() if not name.startswith("random/")}
            if self.shards is not None:
                from fastbert.distributed.fsdp import load_full_state

                load_full_state(self.model, saved.model)
            else:
                self.model.load_state_dict(saved.model)
            self.optimizers.load_state_tensors(optimizer)
            self.step, self.tokens, self.loss = saved.step, state["tokens"], state["loss"]
            self.budget.spent_s = state["training_s"]
            self.loader.load_state_dict(state["loader"])
        except (RuntimeError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{saved.directory}: belongs to another model or optimizer ({reason})") from None
        self.budget.prepared_s = state.get("prepared_s")
        self.budget.reserve_s = state.get("reserve_s", self.budget.reserve_s)
        self.final_evaluation_share = state.get("final_evaluation_share", 1.0)
        self.next_evaluation = state.get("next_evaluation")
        self.perfect_evaluations = state.get("perfect_evaluations", 0)
        self.evaluation_s = state.get("evaluation_s", 0.0)
        self._place, self._saved_step = self.loader.state_dict(), saved.step
        mine = f"random/{self.world.rank}/"
        states = {n.removeprefix(mine): t for n, t in saved.tensors.items() if n.startswith(mine)}
        set_random_state(states, self.device)

    # ---- the loop ----
    def rehearse(self) -> float:
        """Seconds of a step's forward and backward pass. Nothing remains of it but warm caches.

        DDP deals gradients into other buckets after its first pass: rehearsed, a resumed run sums as a whole one.
        """
        state = random_state(self.device)
        tokens = self.loader.plan.batch_tokens
        batch = next(self.loader.evaluation_batches(self.options.mask_rate.rate(0.0), max_tokens=tokens))
        was_training = self.model.training
        self.model.train()
        seconds = measure_step(lambda: self._gradients(batch)) * tokens / max(batch.num_tokens, tokens // 4)
        self.model.train(was_training)
        self.model.zero_grad(set_to_none=True)
        set_random_state(state, self.device)
        return seconds

    def train(self) -> None:
        """Run until the budget is spent, a stop is asked for, or the text is known by heart."""
        self.model.train()
        self.world.expect_steps()
        self.budget.start()
        try:
            with asked_to_stop() as stop:
                self._loop(stop)
        except (RuntimeError, torch.distributed.DistError) as error:
            if self.world.size == 1 or not is_lost_peer(error):
                raise
            # torchrun sends SIGTERM a moment after a death: what is to be saved and said comes first
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise self._peer_lost(error) from None
        self.monitor.stop_bar()
        if self.step != self._saved_step:
            self.save()

    def _loop(self, stop: list[int]) -> None:
        if self.next_evaluation is None:
            (self.next_evaluation,) = self.world.agree(self._first_evaluation())
        while True:
            if not self.writer.busy:
                self._wait_for_writer()
            self.store_check.check()
            # rank 0's clock; a signal to any rank stops all
            clock = (self.budget.progress(self.step), self._save_due()) if self.world.main else (0.0, False)
            progress, save_due, asked = self.world.highest(*clock, stop[0] if stop else 0)
            if save_due:
                self.save()
            if progress >= 1.0:
                return
            if asked or self.step == self.options.stop_after:
                self.stopped, self.stop_signal = True, int(asked)
                return
            if progress >= self.next_evaluation:
                if self._evaluate_on_the_way(progress):
                    return
                continue
            began_s = time.monotonic()
            self._one_step(progress)
            took_s = time.monotonic() - began_s
            self._step_s = 0.9 * self._step_s + 0.1 * took_s if self._step_s else took_s
            left_s = self.budget.left_s(self.step, self._step_s)
            self.monitor.show(progress, self.step, self.loss, self._last_tokens / self._step_s, left_s)

    def autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16) if self.options.bf16 else nullcontext()

    def _one_step(self, progress: float) -> None:
        rate = self.options.mask_rate.rate(progress)
        batches = [self.loader.next_batch(rate) for _ in range(self.batch_ramp.batches(progress))]
        value = self._gradients(*batches)
        norm = self.optimizers.clip()
        if problem := self._watch.problem(value, float(norm)):
            raise self._diverged(problem)
        factor = self.schedule(progress)
        # a step's share of the budget, as the steps so far have been: the same after a resume and on every rank
        self.optimizers.update(factor, share=progress / self.step if self.step else 0.0)
        if self.memory:
            self.memory.updated()
        self.loss = value if self.loss != self.loss else SMOOTHING * self.loss + (1 - SMOOTHING) * value
        self.step += 1
        self._place = self.loader.state_dict()
        self._last_tokens = sum(batch.num_tokens for batch in batches)
        self.tokens += self._last_tokens
        if self.step % RECORD_EVERY == 0:
            self.monitor.record(
                "train", self.step, tokens=self.tokens, loss=value, gradient_norm=float(norm),
                learning_rate_factor=factor, training_s=round(self.budget.training_s, 2),
            )  # fmt: skip

    def _gradients(self, *batches: PackedBatch) -> float:
        """Work out the gradients of the mean loss of global batches; returns that loss, the same on every rank."""
        parts = [part for batch in batches for part in self.world.part(batch, self.options.micro_batches)]
        value = torch.zeros((), dtype=torch.float64)
        self.optimizers.narrow_gradients(len(parts) == 1 and self.world.size == 1)
        for number, part in enumerate(parts, 1):
            # gradients of the ranks meet in the last pass; FSDP reduces in each, which keeps no whole gradient
            ddp = self.engine if isinstance(self.engine, nn.parallel.DistributedDataParallel) else None
            with ddp.no_sync() if ddp and number < len(parts) else nullcontext():
                with self.autocast():
                    loss = share_of_loss(self.engine(part.to(self.device)), part, batches)
                # DDP and FSDP take the mean over the ranks of what is a part of the sum
                (loss * self.world.size if self.world.size > 1 and not self.memory else loss).backward()
            value += loss.item()
        if self.memory:
            self.memory.exchange()
        return self.world.sum(value).item()

    def _diverged(self, problem: str) -> InputError:
        """Keep the last good state, and say what to change."""
        if self.step != self._saved_step and self._watch.healthy and self.shards is None:  # alike on all ranks
            with suppress(OSError, FloatingPointError, InputError):  # the step that failed has changed nothing
                self.save()
                self.writer.wait()
        return Diverged(self.run.path, self.step, problem, checkpoint.list_steps(self.run.path), self.optimizers.peaks)

    def _peer_lost(self, error: BaseException) -> InputError:
        """Another process has died: rank 0 saves what every rank has, the state after the last finished step.

        Not from shards or shared memory: there the dead may have begun an update that nobody can finish.
        """
        reason = " ".join(str(error).split())[:160]
        if self.world.main and not self.shards and not self.memory and self.step != self._saved_step:
            self.world = World()  # nobody is left to meet
            self.save()
        self._wait_for_writer()
        steps = checkpoint.list_steps(self.run.path)
        where = f"--resume goes on from step {steps[-1]}" if steps else "start again"
        return InputError(
            f"{self.run.path}: another process of this run has died or cannot be reached ({reason}): "
            f"see its own message; {where}"
        )

    def _next_evaluation(self, progress: float) -> float:
        """The next multiple of 1/evaluations beyond ``progress``."""
        count = self.options.evaluations
        return (int(progress * count) + 1) / count if count else 2.0

    def evaluate(self, batches: Iterable[PackedBatch]) -> Evaluation:
        """Score batches and record the result, in the arithmetic of the training.

        A text to be learned by heart is scored in the exact arithmetic that predictions use. The record tells when the
        evaluation began and what all before it took, so that loss can be drawn against the time of training alone.
        """
        began_s, elapsed_s, earlier_s = time.monotonic(), self.budget.elapsed_s, self.evaluation_s
        autocast = nullcontext() if self.options.stop_when_perfect else self.autocast()
        mine = (part.to(self.device) for batch in batches for part in self.world.part(batch))
        result = evaluate(self.model, mine, autocast, self.device, self.world.sum)
        self.monitor.record(
            "heldout", self.step, tokens=self.tokens, elapsed_s=round(elapsed_s, 3),
            evaluation_s=round(earlier_s, 3), **result.record(),
        )  # fmt: skip
        self.evaluation_s = earlier_s + time.monotonic() - began_s
        perfect = result.accuracy == 1.0 and result.next_sentence_accuracy in (None, 1.0)
        self.perfect_evaluations = self.perfect_evaluations + 1 if perfect else 0
        return result

    def _first_evaluation(self) -> float:
        """Progress at which the first one is due; by the cost that was foreseen, room is left for the last one."""
        progress = self.budget.progress(self.step)
        due = self._next_evaluation(progress)
        if self.budget.minutes is None or not self.foreseen_evaluation_s:
            return due
        self._keep_time_for_the_end(1.2 * self.foreseen_evaluation_s * self.options.final_evaluation_scale)
        return max(due, progress + self.foreseen_evaluation_s / (EVALUATION_COST * self.budget.total_s))

    def _evaluate_on_the_way(self, due_at: float) -> bool:
        """Evaluate, set the time of the next one; returns whether the text is known by heart."""
        began_s = time.monotonic()
        result = self.evaluate(self.evaluation_batches())
        (after,) = self.world.agree(self.budget.progress(self.step))
        self.monitor.say(f"{after:6.1%}  step {self.step:,}  evaluation: {result}")
        took_s = time.monotonic() - began_s
        self._keep_time_for_the_end(1.2 * took_s * self.options.final_evaluation_scale)
        # on a slow machine or in a short run evaluations come further apart
        self.next_evaluation = self._next_evaluation(after + (1 / EVALUATION_COST - 1) * (after - due_at))
        return self.options.stop_when_perfect and self.perfect_evaluations >= PERFECT_ENOUGH

    def _keep_time_for_the_end(self, evaluation_s: float) -> None:
        """Reserve what the last evaluation will take, or a tenth of the budget for as much of it as fits."""
        if self.budget.minutes is not None:
            allowed_s = 0.1 * self.budget.minutes * 60.0
            self.final_evaluation_share = min(1.0, allowed_s / max(evaluation_s, 1e-6))
            self.budget.reserve_s = min(ENDING_S, allowed_s) + min(evaluation_s, allowed_s)


def share_of_loss(out: PreTrainingOutput, part: PackedBatch, whole: Sequence[PackedBatch]) -> Tensor:
    """The part's share of the loss of whole batches: means weighed by their labels."""
    if len(whole) == 1 and part is whole[0]:
        assert out.loss is not None
        return out.loss
    shares = []
    if out.masked_lm_loss is not None:
        shares.append(out.masked_lm_loss * (weight_of_labels(part) / max(sum(map(weight_of_labels, whole)), 1)))
    if out.next_sentence_loss is not None:
        shares.append(out.next_sentence_loss * (num_pairs(part) / max(sum(map(num_pairs, whole)), 1)))
    return torch.stack(shares).sum()


def weight_of_labels(batch: PackedBatch) -> float:
    """What the mean loss of a batch was divided by; a weight is at least 1."""
    if batch.label_weights is not None:
        return batch.label_weights.sum().item()
    return 0 if batch.labels is None else batch.labels.shape[0]


def num_pairs(batch: PackedBatch) -> int:
    return 0 if batch.next_sentence_label is None else int((batch.next_sentence_label != -100).sum())


@contextmanager
def asked_to_stop() -> Iterator[list[int]]:
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
