"""The directory of a run: claimed before anything is computed, described in ``run.json``, never half-written.

A run that fails before its first checkpoint leaves nothing behind; a directory that holds another run is never touched.
"""

import hashlib
import json
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from fastbert.runs import checkpoint
from fastbert.runs.lock import NAME as LOCK
from fastbert.runs.lock import RunLock
from fastbert.system.atomic_write import written_whole
from fastbert.system.errors import InputError
from fastbert.system.json_files import Fields, read_object

RUNS = Path("runs")  # where runs go when no --output is given: runs/001, runs/002 …
DESCRIPTION_TMP = "run.json.tmp"  # left by a start that was killed
VERSIONED = ("fastbert", "torch", "numpy", "safetensors", "triton", "transformers")


class RunDirectory:
    """A claimed directory; use as a context so that a failed start is cleaned up and the lock is freed."""

    def __init__(self, path: Path, created: bool, description: dict[str, Any], lock: RunLock | None):
        self.path, self.description = path, description
        self._created, self._lock = created, lock

    @classmethod
    def claim(cls, output: str | None, options: Any, job: str | None = None) -> "RunDirectory":
        """Make a new run's directory; ``options`` is the dataclass to be kept in ``run.json``, ``job`` torchrun's name.

        Raises:
            InputError: the directory holds something already, another process is at work there, or it cannot be
                written.
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
                path = next_free(RUNS)  # another run began in the one we meant to take
                continue
            except FileExistsError:
                raise InputError(f"{path}: exists and is not an empty directory: choose another --output") from None
            except OSError as error:
                if created and path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                raise InputError(f"{path}: cannot be written ({error.strerror}): choose another --output") from None
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
            raise InputError(f"{path}: cannot be written ({error.strerror}): choose another --output") from None
        except BaseException:
            lock.release()
            raise
        return run

    @staticmethod
    def _refuse_occupied(path: Path) -> None:
        if (path / "run.json").exists():
            raise InputError(f"{path}: already holds a run: continue it with --resume, or choose another --output")
        if {p.name for p in path.iterdir()} - {LOCK, DESCRIPTION_TMP}:
            (path / LOCK).unlink(missing_ok=True)  # it is not ours to leave a file in
            raise InputError(f"{path}: exists and is not an empty directory: choose another --output")

    @classmethod
    def reopen(cls, output: str | None) -> "RunDirectory":
        """Open an existing run to continue it: ``output``, or the newest in ``runs/``.

        Raises:
            InputError: there is no run there, its ``run.json`` cannot be read, or another process is at work there.
        """
        if output is None:
            found = sorted(RUNS.glob("*/run.json"), key=lambda p: p.stat().st_mtime)
            if not found:
                raise InputError(f"--resume: no run in {RUNS}/: name it with --output DIR")
            path = found[-1].parent
        else:
            path = Path(output)
        if not (path / "run.json").exists():
            raise InputError(f"{path}: holds no run to resume: give the --output of an earlier run")
        remedy = "restore it, or start a new run"
        description = read_object(path / "run.json", remedy)
        options = Fields(description, str(path / "run.json"), remedy).inner("options")
        if "data" not in options:  # what a run cannot be continued without
            raise options.refuse("data", "the paths of the text")
        if description.get("options_sha256", (own := _digest(dict(options.values)))) != own:
            raise InputError(f"{path / 'run.json'}: the options were changed since the run began: {remedy}")
        try:
            lock = RunLock.acquire(path)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror}): make it writable") from None
        return cls(path, False, description, lock)

    @staticmethod
    def of_job(output: str | None, job: str | None, restarted: bool = True) -> Path | None:
        """The run that an earlier start of the same torchrun job began: ``output``, or the newest of that job.

        Args:
            restarted: this is a restart for certain; else only the job's name in ``run.json`` tells.
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
        """The directory as ranks other than 0 see it: to be read, not written."""
        return cls(path, False, description, None)

    def write_description(self, **news: Any) -> None:
        """Write ``run.json``, with ``news`` added, through a temporary name."""
        if self._lock is None:
            return
        self.description |= news
        self.description["options_sha256"] = _digest(self.description["options"])
        with written_whole(self.path / "run.json") as temporary:
            temporary.write_text(json.dumps(self.description, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

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
            # nothing worth keeping: a second try must not stumble over the first
            for child in self.path.iterdir():
                shutil.rmtree(child, ignore_errors=True) if child.is_dir() else child.unlink(missing_ok=True)
            if self._created:
                self.path.rmdir()
        finally:
            self.release()


def _digest(options: Any) -> str:
    """Of what the run is: a changed digit in a learning rate must not go unnoticed."""
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()


def next_free(parent: Path) -> Path:
    """``parent/001``, or one more than the highest number there."""
    numbers = [int(p.name) for p in parent.glob("*") if p.name.isdigit()] if parent.is_dir() else []
    return parent / f"{max(numbers, default=0) + 1:03d}"


def describe(options: Any) -> dict[str, Any]:
    """What a reader needs to repeat the run: command, options, versions, commit, hardware."""
    return {
        "command": [Path(sys.executable).name, "-m", "fastbert.train", *sys.argv[1:]],
        "options": asdict(options),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"python": platform.python_version()} | _versions(),
        "git_commit": _git_commit(),
        "hardware": hardware(),
    }


def hardware() -> dict[str, Any]:
    """The machine, in words that mean something a year later."""
    import torch

    facts: dict[str, Any] = {
        "machine": platform.machine(),
        "system": platform.platform(),
        "cpu": _cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        facts["cuda"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return facts


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _versions() -> dict[str, str]:
    found = {}
    for name in VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _git_commit() -> str | None:
    """The commit of the source tree the package runs from, None for an installed wheel."""
    source = Path(__file__).resolve().parents[2]
    if not (source / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(source), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
