"""Command, versions, commit and hardware of a run, for its description."""

import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

VERSIONED = ("fastbert", "torch", "numpy", "safetensors", "triton", "transformers")


def describe(options: Any) -> dict[str, Any]:
    """Everything needed to repeat a run: command, options, versions, commit, hardware."""
    return {
        "command": [Path(sys.executable).name, "-m", "fastbert.train", *sys.argv[1:]],
        "folder": os.getcwd(),
        "options": asdict(options),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"python": platform.python_version()} | _versions(),
        "git_commit": _git_commit(),
        "hardware": hardware(),
    }


def hardware() -> dict[str, Any]:
    """The machine, described so that it still makes sense a year later."""
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
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "model name" in facts:
        return facts["model name"]
    # Linux on Arm names no models: 0x41 is Arm's own design, part 0xd40 a Neoverse V1
    return ", ".join(f"{name} {facts[name]}" for name in ("CPU implementer", "CPU part") if name in facts) or "unknown"


def _versions() -> dict[str, str]:
    found = {}
    for name in VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _git_commit() -> str | None:
    """Commit of the source tree the package runs from; None for an installed wheel."""
    source = Path(__file__).resolve().parents[2]
    if not (source / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(source), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
