"""What a layer costs the host before the driver is called, in calls of Python functions: equal on every machine.

The microseconds are ``cd tests/gpu_pretend && python -m host_time``; docs/gpu.md has them.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed: pip install 'fastbert[gpu]'")
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from pretended import guard  # noqa: E402

if why := guard.missing():
    pytest.skip(f"no GPU can be pretended here: {why}", allow_module_level=True)


def run(*arguments):
    """The facts that ``python -m …`` prints on the GPU that computes nothing."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_a_layer_keeps_its_budget():
    """Some 25 seconds: a library and nine kernels are compiled."""
    budgets = json.loads((HERE / "budgets.json").read_text())["host, a layer of base"]
    facts = {fact["arch"]: fact["a layer"] for fact in run("host_time", "--repeats", "3")}
    assert set(facts) == set(budgets)
    for arch, allowed in budgets.items():
        for way, limits in allowed.items():
            for unit, most in limits.items():
                assert facts[arch][way][unit] <= most, f"{arch} {way}: {facts[arch][way]}"


@pytest.mark.slow
def test_a_prepared_launch_has_the_arguments_of_the_ordinary_one():
    """Some 30 seconds. Kernels, grids, numbers and addresses of forward and backward passes: see arguments.py."""
    facts = run("host_time.arguments")
    assert len(facts) == 6 and all(fact["launches"] >= 32 for fact in facts)
