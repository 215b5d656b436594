"""The cores that a process has: affinity, control groups of both versions; and threads that sleep at barriers."""

import os
import subprocess
import sys

import pytest

from fastbert.system.cores import SPIN_ROUNDS, available_cores

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)


@pytest.mark.parametrize(
    "limits, expected",
    [
        ({"/": "max 100000"}, CORES),
        ({"/job/one": "100000 100000"}, 1),
        ({"/job/one": "50000 100000"}, 1),
        ({"/job/one": "max 100000", "/job": "100000 100000"}, 1),  # the limit of a group around it
        ({"/": "100000 100000"}, 1),  # a container that sees its own group as the root
        ({"/job/one": "99900000 100000"}, CORES),
        ({"/job/one": "nonsense"}, CORES),
        ({}, CORES),
    ],
)
def test_limits_of_version_2(tmp_path, limits, expected):
    (tmp_path / "proc").write_text("0::/job/one\n")
    for path, limit in limits.items():
        write(tmp_path / "groups" / path.lstrip("/"), cpu__max=limit)
    assert available_cores(tmp_path / "proc", tmp_path / "groups") == expected


@pytest.mark.parametrize("quota, expected", [("-1", CORES), ("100000", 1), ("10000", 1)])
def test_limits_of_version_1(tmp_path, quota, expected):
    (tmp_path / "proc").write_text("3:memory:/job\n2:cpu,cpuacct:/job\n")
    files = {"cpu__cfs_quota_us": quota, "cpu__cfs_period_us": "100000"}
    write(tmp_path / "groups" / "cpu,cpuacct" / "job", **files)
    assert available_cores(tmp_path / "proc", tmp_path / "groups") == expected


def test_a_system_without_control_groups(tmp_path):
    assert available_cores(tmp_path / "none", tmp_path) == CORES


@pytest.mark.parametrize("own, expected", [({}, str(SPIN_ROUNDS)), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_a_command_sets_the_spinning_of_its_threads_before_torch_loads(own, expected):
    program = (
        "import os, sys; from fastbert.system.cli import run; from fastbert.tokenize import main, TokenizeOptions\n"
        "assert 'torch' not in sys.modules\n"
        "run(main, TokenizeOptions, ['--version'])\n"
        "print(os.environ.get('GOMP_SPINCOUNT'))"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")} | own
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == expected
