"""The training loop: steps, evaluations, checkpoints, clean stops and resuming.

A step is a function of the weights, the optimizer state, the random state, the step number and the loader's position.
All five are in a checkpoint, so a resumed run of a given number of steps continues bit for bit on the same number of
ranks, and within the order of the sums on another.
"""

import functools
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress

import torch
from torch import Tensor

from fastbert.batch import PackedBatch
from fastbert.data import BatchLoader
from fastbert.data.batches.mixed_loader import MixedLoader
from fastbert.distributed.parallelism import Parallelism
from fastbert.distributed.world import World, is_lost_peer
from fastbert.model import BertForPreTraining
from fastbert.runs import checkpoint
from fastbert.runs.directory import RunDirectory
from fastbert.runs.metrics_log import Monitor
from fastbert.system.background import Background
from fastbert.system.devices import autocast, random_state, set_random_state
from fastbert.system.errors import InputError
from fastbert.system.stop_signals import stop_signals
from fastbert.training.budget import Budget
from fastbert.training.checkpointing import Checkpointer, restore_random_state
from fastbert.training.divergence import Diverged, DivergenceMonitor
from fastbert.training.estimate import measure_step, slowdown
from fastbert.training.evaluation_schedule import EvaluationSchedule
from fastbert.training.late_readings import LateReadings, Step
from fastbert.training.loss_shares import share_of_loss
from fastbert.training.plan import TrainingPlan
from fastbert.training.step_graphs import StepGraphs, capture_step
from fastbert.training.validation import Evaluation, evaluate
from fastbert.weights.huggingface import config_to_hf

LOSS_SMOOTHING = 0.95  # of the displayed loss, per step
STEP_SMOOTHING = 0.9  # of the displayed speed, per step
PERFECT_STREAK_TO_STOP = 2  # evaluations without a wrong answer: the text is memorized, and not by chance
RECORD_EVERY = 10  # steps between lines of metrics.jsonl
RATE_FACTORS = {"adamw": "learning_rate_factor", "muon": "muon_rate_factor"}  # their names in metrics.jsonl


class Trainer:
    """One run, on this rank.

    Args:
        plan: all settings.
        run: its directory.
        model: to be trained, on its device.
        parallelism: runs the forward pass; has the optimizers.
        loader: of training batches.
        evaluation_batches: makes the batches of an evaluation during the run.
        monitor: log and progress bar.
        world: the ranks.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        run: RunDirectory,
        model: BertForPreTraining,
        parallelism: Parallelism,
        loader: BatchLoader | MixedLoader,
        evaluation_batches: Callable[[], Iterable[PackedBatch]],
        monitor: Monitor,
        world: World | None = None,
    ):
        self.plan, self.run, self.model, self.parallelism = plan, run, model, parallelism
        self.optimizers, self.device = parallelism.optimizers, plan.device
        self.loader, self.evaluation_batches, self.monitor = loader, evaluation_batches, monitor
        self.replay_batches: Callable[[], Iterable[PackedBatch]] | None = None  # as evaluation_batches, of --replay
        self.world = world or World()
        self.budget = Budget(minutes=plan.minutes, steps=plan.steps)
        self.evaluations = EvaluationSchedule(plan.evaluations, plan.final_eval_scale, self.budget)
        self.checkpointer = Checkpointer(run.path, model.config, plan.checkpoint_every, plan.retention)
        self.divergence = DivergenceMonitor(model.config.vocab_size)
        self.store_check = Background("store-check")  # nothing is saved before the tokens are verified
        # ranks add their losses on the host, which has to wait
        late = plan.device.type == "cuda" and self.world.size == 1
        self.readings = LateReadings(plan.device) if late else None
        self.graphs: StepGraphs | None = None  # None: every kernel is launched by itself
        self.step, self.tokens = 0, 0
        self.loss = float("nan")  # smoothed
        self.stopped = False  # by a signal or --stop-after, before the budget was spent
        self.stop_signal = 0  # its number
        self.after_evaluation: Callable[[], None] = lambda: None
        self.perfect_streak = 0  # evaluations in a row without a wrong answer
        self.evaluation_s = 0.0  # total over all sessions of the run
        self.estimated_eval_s = 0.0  # of an evaluation during the run; 0: not known
        self.foreseen_speed = 0.0  # tokens/s of the pass measured before the first step; 0: not known, or told already
        self._loader_state = loader.state_dict()  # after the last finished step
        self._step_tokens, self._step_s = 0, 0.0

    # ---- a step ----
    def train_step(self, progress: float) -> None:
        """One optimizer step at ``progress``, the fraction of the budget that is spent."""
        mask_rate = self.plan.mask_rate.rate(progress)
        batches = [self.loader.next_batch(mask_rate) for _ in range(self.plan.batch_ramp.batches(progress))]

        schedules = {"adamw": self.plan.schedule, "muon": self.plan.muon_schedule}
        factors = {name: schedules[name](progress) for name in self.optimizers.parts}
        # mean share of the steps so far: the same after a resume and on every rank
        share = progress / self.step if self.step else 0.0
        self._step_tokens = sum(batch.num_tokens for batch in batches)
        step = Step(self.step + 1, self.tokens, self._step_tokens, self._loader_state, factors)
        if self.graphs is not None and self.graphs.hold(parts := self._micro_batches(batches)):
            self.graphs.step(parts, batches, factors, share)  # the same, recorded
        else:
            loss, norm = self.forward_backward(batches), self.optimizers.clip()
            if self.readings is None:
                self._check(step, float(loss), float(norm))
            else:
                self.optimizers.found_inf = self.readings.guard(loss, norm)
            self.optimizers.update(factors, share)

        self.step += 1
        self.tokens += self._step_tokens
        self._loader_state = self.loader.state_dict()
        if self.readings is None:
            self._record(step, float(loss), float(norm))
        elif earlier := self.readings.exchange(step):
            self._settle(*earlier)

    def settle(self) -> None:
        """Check and record the step whose loss and norm are still on their way from the device."""
        if self.readings is not None and (last := self.readings.exchange(None)):
            self._settle(*last)

    def _settle(self, step: Step, loss: float, norm: float) -> None:
        self._check(step, loss, norm)
        self._record(step, loss, norm)

    def _check(self, step: Step, loss: float, norm: float) -> None:
        """Raise if the step's gradients were unusable; no update since has changed anything."""
        if problem := self.divergence.problem(loss, norm):
            self.step, self.tokens, self._loader_state = step.number - 1, step.tokens_before, step.loader_before
            self.readings = None  # the step after it has changed nothing either
            raise self._diverged(problem)

    def _record(self, step: Step, loss: float, norm: float) -> None:
        self.loss = loss if self.loss != self.loss else LOSS_SMOOTHING * self.loss + (1 - LOSS_SMOOTHING) * loss
        if step.number % RECORD_EVERY == 0:
            self.monitor.record(
                "train", step.number, tokens=step.tokens_before + step.num_tokens, loss=loss, gradient_norm=norm,
                training_s=round(self.budget.training_s, 2),
                **{RATE_FACTORS[name]: factor for name, factor in step.factors.items()},
            )  # fmt: skip

    def forward_backward(self, batches: Sequence[PackedBatch]) -> Tensor:
        """Compute the gradients of the mean loss of global batches; returns that loss, the same on every rank."""
        micro_batches = self._micro_batches(batches)
        # gradients that are summed over passes or ranks need float32
        self.optimizers.keep_bf16_gradients(len(micro_batches) == 1 and self.world.size == 1)
        losses = []
        for number, part in enumerate(micro_batches, 1):
            with nullcontext() if number == len(micro_batches) else self.parallelism.no_sync():
                with self.autocast():
                    loss = share_of_loss(self.parallelism.forward(part.to(self.device)), part, batches)
                (loss * self.parallelism.backward_scale).backward()
            losses.append(loss.detach())
        total = functools.reduce(torch.add, (loss.double() for loss in losses))
        return total if self.world.size == 1 else self.world.sum(total.cpu())

    def _micro_batches(self, batches: Sequence[PackedBatch]) -> list[PackedBatch]:
        return [part for batch in batches for part in self.world.shard(batch, self.plan.micro_batches)]

    def autocast(self) -> AbstractContextManager:
        return autocast(self.device, self.plan.dtype == torch.bfloat16)

    def warm_up(self) -> float:
        """Capture the step if it is to be captured, and run a pass without effect on the training; returns its seconds.

        DDP reassigns its buckets after the first pass: with a warm-up, a resumed run sums in the same order.
        """
        state = random_state(self.device)
        was_training = self.model.training
        self.model.train()
        self.graphs = capture_step(
            self.plan, self.parallelism, self.readings, self.loader, self.autocast, self.monitor.log
        )
        if self.graphs is not None:
            seconds = measure_step(self.graphs.try_pass) * self.plan.micro_batches
        else:
            tokens = self.plan.batch_ramp.unit
            batch = next(self.loader.evaluation_batches(self.plan.mask_rate.rate(0.0), max_tokens=tokens))
            compiles = self.device.type == "cuda"
            seconds = measure_step(lambda: float(self.forward_backward([batch])), compiles=compiles)
            seconds *= tokens / max(batch.num_tokens, tokens // 4)
        self.model.train(was_training)
        self.model.zero_grad(set_to_none=True)
        set_random_state(state, self.device)
        return seconds

    # ---- the loop ----
    def train(self) -> None:
        """Run until the budget is spent, a stop is requested, or the text is memorized."""
        self.model.train()
        self.world.start_training()
        self.budget.start()
        try:
            with stop_signals() as received:
                self._train(received)
            self.settle()
        except (RuntimeError, torch.distributed.DistError) as error:
            if self.world.size == 1 or not is_lost_peer(error):
                raise
            # torchrun sends SIGTERM soon after a death: save and report first
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise self._lost_peer(error) from None
        self.monitor.stop_bar()
        if self.step != self.checkpointer.saved_step:
            self.save()

    def _train(self, received: list[int]) -> None:
        if self.evaluations.due is None:
            first = self.evaluations.first(self.budget.progress(self.step), self.estimated_eval_s)
            (self.evaluations.due,) = self.world.broadcast(first)
        if self.plan.init is not None and self.step == 0:
            self.monitor.log(f"before the first step: {self.evaluate(self.evaluation_batches())}")
            self.evaluate_replay()
        while True:
            if not self.checkpointer.busy:
                self._wait_for_checkpoint()
            self.store_check.check()
            # rank 0's clock; a signal to any rank stops all
            clock = self.budget.progress(self.step), self.checkpointer.due(self.step)
            progress, save, stop = self.world.all_max(
                *(clock if self.world.main else (0.0, False)), received[0] if received else 0
            )
            if save:
                self.save()
            if progress >= 1.0:
                return
            if stop or self.step == self.plan.stop_after:
                self.stopped, self.stop_signal = True, int(stop)
                return
            if progress >= self.evaluations.due:
                if self._evaluate(progress):
                    return
                continue
            began_s = time.monotonic()
            self.train_step(progress)
            took_s = time.monotonic() - began_s
            self._step_s = STEP_SMOOTHING * self._step_s + (1 - STEP_SMOOTHING) * took_s if self._step_s else took_s
            left_s = self.budget.left_s(self.step, self._step_s)
            self.monitor.update_bar(progress, self.step, self.loss, self._step_tokens / self._step_s, left_s)

    # ---- evaluation ----
    def _evaluate(self, progress: float) -> bool:
        """Evaluate during the run; returns whether the text is memorized and training should stop."""
        self.settle()
        began_s = time.monotonic()
        result = self.evaluate(self.evaluation_batches())
        (now,) = self.world.broadcast(self.budget.progress(self.step))
        self.monitor.log(f"{now:6.1%}  step {self.step:,}  evaluation: {result}")
        if self._step_s and (slow := slowdown(self.foreseen_speed, self._step_tokens / self._step_s)):
            self.monitor.log(slow)
            self.foreseen_speed = 0.0
        self.after_evaluation()
        self.evaluations.evaluated(progress, now, time.monotonic() - began_s)
        return self.plan.stop_when_memorized and self.perfect_streak >= PERFECT_STREAK_TO_STOP

    def evaluate_replay(self) -> None:
        """Log the loss on the held-out part of ``--replay``."""
        if self.replay_batches is not None:
            self.monitor.log(f"replayed text, {self.step:,} steps: {self.evaluate(self.replay_batches(), 'replay')}")

    def evaluate(self, batches: Iterable[PackedBatch], kind: str = "heldout") -> Evaluation:
        """Score batches and record the result as one of its ``kind``.

        Precision is that of training; for a text to be memorized, the exact one that predictions use. The record says
        when the evaluation began and how long all before it took, to plot the loss over training time alone.
        """
        began_s, elapsed_s, earlier_s = time.monotonic(), self.budget.elapsed_s, self.evaluation_s
        autocast = nullcontext() if self.plan.stop_when_memorized else self.autocast()
        mine = (part.to(self.device) for batch in batches for part in self.world.shard(batch))
        result = evaluate(self.model, mine, autocast, self.device, self.world.sum)
        self.monitor.record(
            kind, self.step, tokens=self.tokens, elapsed_s=round(elapsed_s, 3),
            evaluation_s=round(earlier_s, 3), **result.record(),
        )  # fmt: skip
        self.evaluation_s = earlier_s + time.monotonic() - began_s
        if kind == "heldout":
            self.perfect_streak = self.perfect_streak + 1 if result.perfect else 0
        return result

    # ---- state ----
    def save(self) -> None:
        """Start writing a checkpoint, once the previous one is on the disk."""
        self.settle()
        self._wait_for_checkpoint()
        self.store_check.wait()
        state = {
            "tokens": self.tokens,
            "training_s": self.budget.training_s,
            "prepared_s": self.budget.prepared_s,
            "reserve_s": self.budget.reserve_s,
            "final_evaluation_share": self.evaluations.final_share,
            "loss": self.loss,
            "loader": self._loader_state,
            "next_evaluation": self.evaluations.due,
            "perfect_evaluations": self.perfect_streak,
            "evaluation_s": self.evaluation_s,
            "metrics_bytes": self.monitor.metrics_bytes,
            "identity": self.plan.identity,
            "world_size": self.world.size,
        }
        self.checkpointer.save(self.step, state, self.parallelism, self.device, self.world)

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Continue from a checkpoint with the same configuration, vocabulary and text."""
        state = saved.state
        if config_to_hf(saved.config) != config_to_hf(self.model.config):
            raise InputError(f"{saved.directory}: its model has another configuration. Try: restore run.json")
        if state.get("identity", self.plan.identity) != self.plan.identity:
            raise InputError(f"{saved.directory}: trained with another vocabulary or text. Try: restore them")
        try:
            optimizer = {name: t for name, t in saved.tensors.items() if not name.startswith("random/")}
            self.parallelism.load(saved.model, optimizer)
            self.step, self.tokens, self.loss = saved.step, state["tokens"], state["loss"]
            self.budget.spent_s = state["training_s"]
            self.loader.load_state_dict(state["loader"])
        except (RuntimeError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{saved.directory}: of another model or optimizer ({reason}). Try: an earlier checkpoint"
            ) from None
        self.budget.prepared_s = state.get("prepared_s")
        self.budget.reserve_s = state.get("reserve_s", self.budget.reserve_s)
        self.evaluations.final_share = state.get("final_evaluation_share", 1.0)
        self.evaluations.due = state.get("next_evaluation")
        self.perfect_streak = state.get("perfect_evaluations", 0)
        self.evaluation_s = state.get("evaluation_s", 0.0)
        self._loader_state, self.checkpointer.saved_step = self.loader.state_dict(), saved.step
        restore_random_state(saved, self.world.rank, self.device)

    def gather_model(self) -> None:
        """After sharded training: give the main rank the whole model."""
        state = self.parallelism.full_state(keep=self.world.main)
        if state is not None and self.world.main:
            self.model = BertForPreTraining(self.model.config).to(self.device)
            self.model.load_state_dict(state)

    def close(self) -> None:
        """Stop the threads; the checkpoint reaches the disk."""
        self.loader.close()
        self._wait_for_checkpoint()
        self.store_check.wait()

    def close_after_failure(self) -> None:
        """Stop the threads without further errors; the checkpoint is written if it can be."""
        self.loader.close()
        for wait in (self.checkpointer.wait, self.store_check.wait):
            with suppress(Exception):
                wait()

    # ---- failures ----
    def _wait_for_checkpoint(self) -> None:
        try:
            self.checkpointer.wait()
        except FloatingPointError as error:
            self.divergence.healthy = False
            raise self._diverged(f"{error} is no longer finite") from None

    def _diverged(self, problem: str) -> InputError:
        """Save the last good state and explain what to change."""
        # all ranks notice it at the same step, and the failed step has changed nothing
        if self.step != self.checkpointer.saved_step and self.divergence.healthy and not self.parallelism.sharded:
            with suppress(OSError, FloatingPointError, InputError):
                self.save()
                self.checkpointer.wait()
        return Diverged(self.run.path, self.step, problem, checkpoint.list_steps(self.run.path), self.optimizers.peaks)

    def _lost_peer(self, error: BaseException) -> InputError:
        """Another process has died: save the state after the last finished step if this rank has all of it."""
        reason = " ".join(str(error).split())[:160]
        if self.world.main and not self.parallelism.sharded and self.step != self.checkpointer.saved_step:
            self.world = World()  # no collectives from here on
            self.save()
        self._wait_for_checkpoint()
        steps = checkpoint.list_steps(self.run.path)
        remedy = f"--resume, which continues from step {steps[-1]}" if steps else "start again"
        return InputError(
            f"{self.run.path}: another process of this run has died or cannot be reached ({reason}); see its own "
            f"message. Try: {remedy}"
        )
