"""The directory of a run: claimed before anything is computed, described in ``run.json``.

A run that fails before its first checkpoint leaves nothing behind; a directory with another run is never touched.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastbert.runs import checkpoint
from fastbert.runs.lock import NAME as LOCK
from fastbert.runs.lock import RunLock
from fastbert.system.atomic_write import written_whole
from fastbert.system.config_file import write_options
from fastbert.system.environment import describe
from fastbert.system.errors import InputError
from fastbert.system.json_files import Fields, read_object

RUNS = Path("runs")  # where runs go when no --output is given: runs/001, runs/002 …
DESCRIPTION_TMP = "run.json.tmp"  # left by a start that was killed


class RunDirectory:
    """A claimed directory; a context manager that cleans up after a failed start and releases the lock."""

    def __init__(self, path: Path, created: bool, description: dict[str, Any], lock: RunLock | None):
        self.path, self.description = path, description
        self._created, self._lock = created, lock

    @classmethod
    def claim(cls, output: str | None, options: Any, job: str | None = None) -> "RunDirectory":
        """Create the directory of a new run; ``options`` go to ``run.json``, ``job`` is torchrun's.

        Raises:
            InputError: the directory is not empty, in use, or not writable.
        """
        path = Path(output) if output else next_free(RUNS)
        while True:
            created = not path.exists()
            try:
                path.mkdir(parents=True, exist_ok=True)
                lock = RunLock.acquire(path)
            except InputError:
                if output:
                    raise
                path = next_free(RUNS)  # another run has taken this one
                continue
            except FileExistsError:
                raise InputError(f"{path}: exists and is not an empty directory. Try: another --output") from None
            except OSError as error:
                if created and path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                raise InputError(f"{path}: cannot be written ({error.strerror}). Try: another --output") from None
            if output or created:
                break
            lock.release()
            path = next_free(RUNS)
        try:
            cls._refuse_occupied(path)
            run = cls(path, created, describe(options) | ({"job": job} if job else {}), lock)
            run.write_description()
        except OSError as error:
            if created:
                shutil.rmtree(path, ignore_errors=True)
            lock.release()
            raise InputError(f"{path}: cannot be written ({error.strerror}). Try: another --output") from None
        except BaseException:
            lock.release()
            raise
        return run

    @staticmethod
    def _refuse_occupied(path: Path) -> None:
        if (path / "run.json").exists():
            raise InputError(f"{path}: already has a run. Try: --resume to continue it, or another --output")
        if {p.name for p in path.iterdir()} - {LOCK, DESCRIPTION_TMP}:
            (path / LOCK).unlink(missing_ok=True)  # leave nothing in a directory that is not ours
            raise InputError(f"{path}: exists and is not an empty directory. Try: another --output")

    @classmethod
    def reopen(cls, output: str | None) -> "RunDirectory":
        """Open an existing run to resume it: ``output``, or the newest in ``runs/``.

        Raises:
            InputError: there is no run, its ``run.json`` cannot be read, or it is in use.
        """
        if output is None:
            found = sorted(RUNS.glob("*/run.json"), key=lambda p: p.stat().st_mtime)
            if not found:
                raise InputError(f"--resume: no run in {RUNS}/. Try: --output DIR")
            path = found[-1].parent
        else:
            path = Path(output)
        if not (path / "run.json").exists():
            raise InputError(f"{path}: has no run to resume. Try: the --output of an earlier run")
        remedy = "restore it, or start a new run"
        description = read_object(path / "run.json", remedy)
        options = Fields(description, str(path / "run.json"), remedy).inner("options")
        if "data" not in options:  # needed to resume
            raise options.refuse("data", "the paths of the text")
        if description.get("options_sha256", (own := _digest(dict(options.values)))) != own:
            raise InputError(f"{path / 'run.json'}: the options were changed since the run began. Try: {remedy}")
        try:
            lock = RunLock.acquire(path)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror}). Try: make it writable") from None
        return cls(path, False, description, lock)

    @staticmethod
    def of_job(output: str | None, job: str | None, restarted: bool = True) -> Path | None:
        """The run that an earlier start of the same torchrun job began: ``output``, or the newest of that job.

        Args:
            restarted: torchrun has restarted this job, so ``output`` is ours; else the job in ``run.json`` decides.
        """
        if output is not None:
            described = Path(output) / "run.json"
            ours = described.exists() and (restarted or read_object(described, "restore it").get("job") == job)
            return Path(output) if ours else None
        for path in sorted(RUNS.glob("*/run.json"), key=lambda p: p.stat().st_mtime, reverse=True):
            if read_object(path, "remove it").get("job") == job:
                return path.parent
        return None

    @classmethod
    def follow(cls, path: Path, description: dict[str, Any]) -> "RunDirectory":
        """The directory for ranks other than 0: read-only."""
        return cls(path, False, description, None)

    def write_description(self, **news: Any) -> None:
        """Add ``news`` to ``run.json``, atomically."""
        if self._lock is None:
            return
        self.description |= news
        self.description["options_sha256"] = _digest(self.description["options"])
        with written_whole(self.path / "run.json") as temporary:
            temporary.write_text(json.dumps(self.description, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        write_options(self.path, self.description["options"], "train")

    def release(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, kind, error, trace) -> None:
        if self._lock is None:
            return
        try:
            if kind is None or checkpoint.list_steps(self.path) or "resumed" in self.description:
                return
            # nothing to keep: a second try must find an empty directory
            for child in self.path.iterdir():
                shutil.rmtree(child, ignore_errors=True) if child.is_dir() else child.unlink(missing_ok=True)
            if self._created:
                self.path.rmdir()
        finally:
            self.release()


def _digest(options: Any) -> str:
    """Checksum of the options, to notice edits."""
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()


@contextmanager
def output_directory(
    output: str | None, default_parent: Path, state: str = "", resume: bool = False
) -> Iterator[tuple[Path, Path]]:
    """Yield a temporary directory and the final one, empty or new, that it becomes; after an error nothing is left.

    Args:
        output: of the command; None: the next free number in ``default_parent``.
        default_parent: such as ``runs``.
        state: file of an unfinished work in it: a directory that has it stays, and is where ``resume`` goes on.
        resume: go on there.

    Raises:
        InputError: the final directory is not empty or cannot be written, or there is nothing to go on with.
    """
    final = Path(output) if output else next_free(default_parent)
    partial = final.with_name(f".{final.name}.partial")
    reopened = resume and _reopen(final, partial, state)
    if not resume:
        if final.exists() and (not final.is_dir() or any(final.iterdir())):
            raise InputError(f"{final}: exists and is not an empty directory. Try: another --output")
        shutil.rmtree(partial, ignore_errors=True)
    made = [p for p in (final.parent, *final.parent.parents) if not p.exists()]
    try:
        partial.mkdir(parents=True, exist_ok=resume)
    except OSError as error:
        raise InputError(f"{final}: cannot be written ({error.strerror}). Try: another --output") from None
    try:
        yield partial, final
        if final.exists():
            final.rmdir()
        partial.rename(final)
    finally:
        if not (state and (partial / state).is_file()):
            shutil.rmtree(partial, ignore_errors=True)
        elif reopened and not final.exists():
            partial.rename(final)
        for parent in made:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()


def _reopen(final: Path, partial: Path, state: str) -> bool:
    """Make the unfinished directory the temporary one again; returns whether it was the final one."""
    finished = (final / state).is_file()
    if finished:
        shutil.rmtree(partial, ignore_errors=True)
        final.rename(partial)
    if not (partial / state).is_file():
        raise InputError(f"{final}: has no unfinished training. Try: without --resume")
    return finished


def next_free(parent: Path) -> Path:
    """``parent/001``, or the next number."""
    numbers = [int(p.name) for p in parent.glob("*") if p.name.isdigit()] if parent.is_dir() else []
    return parent / f"{max(numbers, default=0) + 1:03d}"


def pretraining_optimizer(directory: str | Path) -> str:
    """The optimizer that trained a model: "muon" if its run.json or finetune.json says so, otherwise "adamw"."""
    for name, part in (("run.json", "options"), ("finetune.json", "recipe")):
        try:
            record = json.loads((Path(directory) / name).read_text(encoding="utf-8"))[part]["optimizer"]
        except (OSError, ValueError, KeyError, TypeError):  # missing or not ours: this only decides a default
            continue
        return "muon" if record == "muon" else "adamw"
    return "adamw"
