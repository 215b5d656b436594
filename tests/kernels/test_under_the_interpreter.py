"""Runs the folder ``interpreted/`` in a second process, where TRITON_INTERPRET=1 makes the kernels run on the CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed: pip install 'fastbert[gpu]'")
HERE = Path(__file__).parent


def run(*arguments):
    # NumPy warns of the 1/0 of rows with nothing to see, which the kernels then replace
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore::RuntimeWarning"]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([*command, *arguments], env=environment, cwd=HERE.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


def test_a_core_of_cases():
    run(HERE / "interpreted")


@pytest.mark.slow
def test_all_other_cases():
    """Each kernel in every form, dtype and size, and two hundred steps of training."""
    run("-m", "slow", HERE / "interpreted")
