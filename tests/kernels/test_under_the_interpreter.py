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
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-W",
        "ignore::RuntimeWarning",
        *arguments,
    ]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, cwd=HERE.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


@pytest.mark.parametrize("path", sorted((HERE / "interpreted").glob("test_*.py")), ids=lambda path: path.stem)
def test_under_the_interpreter(path):
    run(path)


@pytest.mark.slow
def test_two_hundred_training_steps():
    run("-m", "slow", HERE / "interpreted" / "test_training.py")
