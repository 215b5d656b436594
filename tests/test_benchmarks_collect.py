"""`pytest benchmarks` collects every file from a clean clone; each benchmark is a program of its own."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "benchmarks").rglob("test_*.py"))


def test_every_file_is_collected(tmp_path):
    pytest.importorskip("pytest_benchmark", reason="pip install pytest-benchmark")
    pytest.importorskip("transformers", reason="two files are skipped as a whole without transformers")
    command = [sys.executable, "-m", "pytest", "benchmarks", "--collect-only", "-q", "--benchmark-only"]
    environment = os.environ | {"FASTBERT_SHARED": str(tmp_path)}  # nothing beside the clone
    environment.pop("PYTEST_XDIST_WORKER", None)  # pytest-benchmark would turn itself off
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert {line.split("::")[0] for line in done.stdout.splitlines() if "::" in line} == {
        path.relative_to(ROOT).as_posix() for path in FILES
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_file_imports_another_test_file(path):
    """What two of them need is in harness.py: pytest's import mode does not promise to find a test file by name."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules |= {getattr(node, "module", None), *(alias.name for alias in node.names)}
    assert not modules & {other.stem for other in FILES}


def test_no_two_modules_that_a_program_may_import_have_one_name():
    """A program in a folder finds its own modules and those of benchmarks/ by their bare names."""
    shared = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    own = {path.relative_to(ROOT).as_posix() for path in (ROOT / "benchmarks").glob("*/*.py") if path.stem in shared}
    assert not own
