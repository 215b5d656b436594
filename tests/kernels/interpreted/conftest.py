"""Sets the interpreter up: the bf16 repair, and helpers on the path (pytest's importlib mode adds none)."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import interpreter_bf16


@pytest.fixture(autouse=True)
def repaired_bfloat16():
    with interpreter_bf16.repaired():
        yield
