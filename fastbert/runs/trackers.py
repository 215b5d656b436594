"""Where the scalars of a run go besides metrics.jsonl: TensorBoard, Trackio, Weights & Biases.

Nothing leaves this machine unless the user's own settings of these programs say so.
"""

import importlib.util
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from fastbert.system.errors import InputError

PACKAGES = {"tensorboard": "tensorboard", "trackio": "trackio", "wandb": "wandb"}
PROJECT = "fastbert"


class Tracker(Protocol):
    """A destination of scalars."""

    def add(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in ``tensorboard/`` of the run."""

    def __init__(self, run: Path, first_step: int):
        from torch.utils.tensorboard import SummaryWriter  # slow import

        if threading.excepthook is threading.__excepthook__:
            threading.excepthook = _unless_kept
        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=first_step or None)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


def _unless_kept(failed: Any) -> None:
    """Print an exception of a thread, unless the thread keeps it: TensorBoard raises it again where a file is written,
    and there a full disk becomes one line."""
    if getattr(failed.thread, "exception", None) is not failed.exc_value:
        threading.__excepthook__(failed)


class Trackio:
    """A local database, shown by ``trackio show``."""

    def __init__(self, run: Path, first_step: int):
        import trackio

        self._module: Any = trackio
        trackio.init(project=PROJECT, name=run.resolve().name, resume="allow" if first_step else "never")

    def add(self, step: int, values: Mapping[str, float]) -> None:
        self._module.log(dict(values), step=step)

    def close(self) -> None:
        self._module.finish()


class WeightsAndBiases:
    """Files in ``wandb/`` of the run; ``wandb sync`` uploads them, or WANDB_MODE=online does at once."""

    def __init__(self, run: Path, first_step: int):
        import wandb

        mode = os.environ.get("WANDB_MODE", "offline")
        self._run: Any = wandb.init(project=PROJECT, name=run.resolve().name, dir=str(run), mode=mode)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


_CLASSES: dict[str, Callable[[Path, int], Tracker]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "wandb": WeightsAndBiases,
}


def names_of(text: str) -> list[str]:
    """The trackers of ``--log``.

    Raises:
        InputError: an unknown one, or one whose package is missing.
    """
    names = [name.strip() for name in text.split(",") if name.strip() not in ("", "none")]
    for name in names:
        if name not in PACKAGES:
            raise InputError(f"--log {text}: {name} is unknown. Try: {', '.join(PACKAGES)} or none")
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise InputError(f"--log {name}: the package is missing. Try: pip install {PACKAGES[name]}")
    return names


def open_trackers(names: Sequence[str], run: Path, first_step: int) -> list[Tracker]:
    return [_CLASSES[name](run, first_step) for name in names]
