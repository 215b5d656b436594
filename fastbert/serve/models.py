"""The models and runs of a server: found once by name, loaded when first used.

Requests give names, never paths: a name that was not found at the start does not exist.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastbert.system.errors import InputError

if TYPE_CHECKING:
    from fastbert.bert import Bert
    from fastbert.inference.frozen_model import Precision

KEPT = 3  # models in memory


class NoSuchModel(InputError):
    """A name that is not served."""


@dataclass(frozen=True)
class Served:
    """A directory with a model, a run, or both."""

    name: str
    path: Path

    @property
    def is_run(self) -> bool:
        return (self.path / "run.json").is_file()

    @property
    def has_model(self) -> bool:
        """Whether there are weights, at least of a checkpoint."""
        return (self.path / "config.json").is_file() or any(self.path.glob("checkpoints/step-*"))


def find(path: Path) -> list[Served]:
    """A model or run, or all of those in a directory, the newest first.

    Raises:
        InputError: there is none.
    """
    if not path.is_dir():
        raise InputError(f"{path}: no such directory. Try: the directory of a model, or of runs")
    own = Served(path.resolve().name, path)
    if own.is_run or own.has_model:
        return [own]
    inside = [Served(p.name, p) for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")]
    found = [served for served in inside if served.is_run or served.has_model]
    if not found:
        raise InputError(f"{path}: holds no model and no run. Try: python -m fastbert.train, then its directory")
    return sorted(found, key=lambda served: (served.path.stat().st_mtime, served.name), reverse=True)


class Models:
    """What is served, by name.

    Args:
        served: as :func:`find` gives them.
        device, precision: of the models, as in :func:`fastbert.load`.
        only_runs: show runs and load no model.
    """

    def __init__(
        self,
        served: list[Served],
        device: str | None = None,
        precision: "Precision" = "auto",
        only_runs: bool = False,
    ):
        self.by_name = {each.name: each for each in served}
        self.device, self.precision, self.only_runs = device, precision, only_runs
        self._loaded: OrderedDict[str, Bert] = OrderedDict()
        self._lock = threading.Lock()  # of the line above, held for a moment
        self._loading = threading.Lock()  # one model at a time; those in memory answer meanwhile

    @property
    def names(self) -> list[str]:
        """Of the models that can be loaded now, the default first."""
        return [name for name, served in self.by_name.items() if served.has_model and not self.only_runs]

    @property
    def runs(self) -> list[str]:
        return [name for name, served in self.by_name.items() if served.is_run]

    def name_of(self, name: str | None) -> str:
        """The name itself, or the default's.

        Raises:
            NoSuchModel: it is not served.
        """
        if name is None:
            found = next((each for each, served in self.by_name.items() if served.has_model), None)
        else:
            served = self.by_name.get(name)
            found = name if served is not None and served.has_model else None
        if found is None or self.only_runs:
            names = self.names
            known = ", ".join(names) or "none yet: the run has not saved a checkpoint"
            raise NoSuchModel(f"model {name!r:.80}: is not served here. Try: {known}")
        return found

    def is_loaded(self, name: str) -> bool:
        return name in self._loaded

    def get(self, name: str) -> "Bert":
        """Load a model, or take it from memory; the least recently used ones are dropped.

        Raises:
            InputError: it cannot be loaded.
        """
        from fastbert.bert import load

        if found := self._kept(name):
            return found
        with self._loading:
            if found := self._kept(name):
                return found
            served = self.by_name[name]
            try:
                loaded = load(served.path, device=self.device, precision=self.precision)
            except InputError as error:  # clients see names, not paths
                raise InputError(str(error).replace(str(served.path), name)) from None
            with self._lock:
                self._loaded[name] = loaded
                while len(self._loaded) > KEPT:
                    self._loaded.popitem(last=False)
            return loaded

    def _kept(self, name: str) -> "Bert | None":
        with self._lock:
            if name in self._loaded:
                self._loaded.move_to_end(name)
            return self._loaded.get(name)
