"""The cores that this process may use, and how OpenMP's threads wait for each other on them."""

import math
import os
import sys
from pathlib import Path

# Rounds that a thread of libgomp's spins at a barrier before it sleeps; its own default of 300,000 is milliseconds.
# Beside other work that is ruinous: the thread that spins holds the core that the thread it waits for would need.
# benchmarks/training/busy.py: with one busy neighbor two threads train at 0.21 of their quiet speed, with 3,000 rounds
# at 0.52, one thread alone at 0.54; on a quiet machine 3,000 rounds cost nothing that could be measured.
SPIN_ROUNDS = 3000


def set_up_threads() -> None:
    """Settings for the OpenMP that torch brings, made before torch loads and never against the user's own.

    Threads sleep soon while they wait, and a container's limit counts: torch would start a thread for each core of the
    host. References: libgomp's manual, GOMP_SPINCOUNT, OMP_WAIT_POLICY, OMP_NUM_THREADS.
    """
    if "torch" in sys.modules:
        return
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_ROUNDS))
    if (cores := available_cores()) < (os.cpu_count() or 1):
        os.environ.setdefault("OMP_NUM_THREADS", str(cores))


def available_cores(proc: Path = Path("/proc/self/cgroup"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that affinity and control group (a container's --cpus) leave to this process, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _quota(proc, groups))))


def _quota(proc: Path, groups: Path) -> float:
    """Cores that the control groups of this process allow, the least of all levels; infinite without a limit."""
    try:
        lines = proc.read_text(encoding="utf-8").splitlines()
    except OSError:
        return math.inf
    least = math.inf
    for line in lines:
        number, controllers, path = line.split(":", 2)
        unified = number == "0" and not controllers
        if not unified and "cpu" not in controllers.split(","):
            continue
        root = groups if unified else groups / controllers
        inner = root / path.lstrip("/")
        for folder in (inner, *inner.parents):  # a container may see its own group as the root
            least = min(least, _limit(folder, unified))
            if folder == root:
                break
    return least


def _limit(folder: Path, unified: bool) -> float:
    """Cores that one control group allows: version 2 in cpu.max, version 1 in two files of microseconds."""
    names = ("cpu.max",) if unified else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    try:
        quota, period = " ".join((folder / name).read_text(encoding="utf-8") for name in names).split()
    except (OSError, ValueError):
        return math.inf
    return int(quota) / int(period) if quota.isdigit() and int(period) else math.inf
