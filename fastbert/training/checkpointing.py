"""When a checkpoint is due, and writing it in a background thread while training continues."""

import time
from pathlib import Path
from typing import Any

import torch

from fastbert.config import BertConfig
from fastbert.distributed.parallelism import Parallelism
from fastbert.distributed.world import World
from fastbert.runs import checkpoint
from fastbert.system.background import Background, HostCopy
from fastbert.system.devices import random_state, set_random_state
from fastbert.system.errors import InputError

DEFAULT_EVERY = 500  # steps between checkpoints
MAX_CHECKPOINT_SHARE = 0.01  # of the training time, by default


class Checkpointer:
    """Saves the checkpoints of a run.

    Args:
        run: directory of the run.
        config: of the model.
        every: steps between checkpoints; 0: none; None: DEFAULT_EVERY, less often if that would cost more than
            MAX_CHECKPOINT_SHARE of the time.
        retention: which checkpoints stay.
    """

    def __init__(self, run: Path, config: BertConfig, every: int | None, retention: checkpoint.RetentionPolicy):
        self.run, self.saved_step = run, -1 if checkpoint.list_steps(run) else 0
        self._config, self._every, self._retention = config, every, retention
        self._writer, self._host = Background("checkpoint"), HostCopy()
        self._copy_s, self._saved_at_s = 0.0, time.monotonic()

    def due(self, step: int) -> bool:
        """Whether to save now, by this rank's clock."""
        every = DEFAULT_EVERY if self._every is None else self._every
        if not every or step % every or step == self.saved_step:
            return False
        if self._every is None:
            cost_s = self._copy_s + self._writer.cpu_s
            return not self.busy and time.monotonic() - self._saved_at_s >= cost_s / MAX_CHECKPOINT_SHARE
        return True

    def save(
        self, step: int, state: dict[str, Any], parallelism: Parallelism, device: torch.device, world: World
    ) -> None:
        """Copy the state to host memory and start writing it; all ranks call it, after :meth:`wait`.

        Args:
            step: number of finished steps.
            state: the JSON-able part.
            parallelism: has model and optimizer state.
            device: with random state.
            world: ranks whose random state is saved.
        """
        began_s = time.monotonic()
        tensors = {
            f"random/{rank}/{name}": value
            for name, mine in random_state(device).items()
            for rank, value in enumerate(world.gather(mine))
        }
        snapshot = parallelism.snapshot()
        tensors |= snapshot.optimizer
        write_shards = snapshot.write_shards
        self.saved_step = step
        if world.main:
            copied = self._host.take({f"model/{n}": t for n, t in snapshot.model.items()} | tensors)
            weights = {n.removeprefix("model/"): t for n, t in copied.items() if n.startswith("model/")}
            others = {n: t for n, t in copied.items() if not n.startswith("model/")}
            arguments = (self.run, step, weights, self._config, others, state, self._retention, write_shards)
            self._writer.submit(lambda: checkpoint.save(*arguments))
        elif write_shards is not None:
            folder = checkpoint.partial_folder(self.run, step) / checkpoint.SHARDS
            self._writer.submit(lambda: write_shards(folder))
        self._copy_s, self._saved_at_s = time.monotonic() - began_s, time.monotonic()

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._writer.busy

    def wait(self) -> None:
        """Wait until the checkpoint is on the disk.

        Raises:
            InputError: it cannot be written.
            FloatingPointError: a tensor of this name is not finite; nothing is written.
        """
        try:
            self._writer.wait()
        except OSError as error:
            steps = checkpoint.list_steps(self.run)
            then = f"then continue from step {steps[-1]} with --resume" if steps else "then start again"
            raise InputError(
                f"{self.run}: the checkpoint of step {self.saved_step} cannot be written ({error.strerror}). "
                f"Try: free some space or make the directory writable, {then}"
            ) from None


def restore_random_state(saved: checkpoint.Checkpoint, rank: int, device: torch.device) -> None:
    """Set the generators of this rank as they were at the checkpoint, if it has them."""
    prefix = f"random/{rank}/"
    states = {n.removeprefix(prefix): t for n, t in saved.tensors.items() if n.startswith(prefix)}
    set_random_state(states, device)
