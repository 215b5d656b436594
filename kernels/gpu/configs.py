"""Block sizes, warps and stages of every kernel: a static table next to each kernel, overlaid by a JSON file.

A table maps (architecture, element bytes, size) to a :class:`Config`. The static entries were chosen with the
ahead-of-time audit (``python kernels/audit/audit.py``): no spills, the shared memory fits. ``python -m
fastbert.tune`` measures on a GPU and writes the overlay, whose place is the environment variable ``FASTBERT_TUNED`` or
``~/.cache/fastbert/kernels.json``; a key is ``"op/architecture/element bytes/size"``.
"""

import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path

from fastbert.kernels.launch import Config

generation = 0  # counts the changes of what :func:`pick` picks
_forced: dict[str, Config] = {}
_asked: dict[str, tuple[str, Config]] | None = None


def tile(block_m: int, block_n: int, num_warps: int, num_stages: int) -> Config:
    """A two-dimensional kernel's configuration."""
    return Config({"BLOCK_M": block_m, "BLOCK_N": block_n}, num_warps, num_stages)


def overlay_path() -> Path:
    """Where ``fastbert.tune`` writes and every launcher looks."""
    return Path(os.environ.get("FASTBERT_TUNED") or Path.home() / ".cache" / "fastbert" / "kernels.json")


@functools.cache
def _overlay(tuned: str | None) -> dict[str, Config]:
    """The overlay's entries, by the value of ``FASTBERT_TUNED``: a launch has no time to look for a file."""
    path = overlay_path()
    if not path.is_file():
        return {}
    entries = json.loads(path.read_text())
    return {key: Config(e["blocks"], e["num_warps"], e["num_stages"]) for key, e in entries.items()}


def key_of(op: str, arch: str, itemsize: int, size: int | str) -> str:
    return f"{op}/{arch}/{itemsize}/{size}"


def pick(op: str, arch: str, itemsize: int, size: int | str, static: Config) -> Config:
    """The forced, tuned or static configuration, in this order."""
    if _asked is not None:
        _asked[key_of(op, arch, itemsize, size)] = op, static
    if op in _forced:
        return _forced[op]
    entries = _overlay(os.environ.get("FASTBERT_TUNED"))
    return entries.get(key_of(op, arch, itemsize, size), static) if entries else static


@contextlib.contextmanager
def forced(**configs: Config) -> Iterator[None]:
    """Use these configurations, by op name, instead of the tables (tests and the tuner)."""
    global _forced, generation
    before, _forced = _forced, {**_forced, **configs}
    generation += 1
    try:
        yield
    finally:
        _forced = before
        generation += 1


@contextlib.contextmanager
def observed() -> Iterator[dict[str, tuple[str, Config]]]:
    """Collect the requests of launchers inside the with block: key → (op, static configuration)."""
    global _asked, generation
    before, _asked = _asked, {}
    generation += 1
    try:
        yield _asked
    finally:
        _asked = before
        generation += 1


def write_overlay(path: Path, chosen: dict[str, Config]) -> None:
    """Add to the overlay file, through a temporary name; launchers of this process see it at once."""
    entries = json.loads(path.read_text()) if path.is_file() else {}
    entries |= {key: dataclasses.asdict(config) for key, config in chosen.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(entries, indent=2, sort_keys=True) + "\n")
    temporary.replace(path)
    _overlay.cache_clear()
    global generation
    generation += 1
