"""The fifth gate: every verb on a pretended GPU, in a process of its own (tests/gpu_pretend/pretended)."""

import json
import os
import stat
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
    command = [sys.executable, "-m", "pretended", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *map(str, arguments)], env=environment, cwd=HERE.parents[1], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


def test_every_verb():
    run(HERE / "inside")


@pytest.mark.slow
def test_every_other_verb():
    """The rest: about two minutes on two cores."""
    run("-m", "slow", HERE / "inside")


@pytest.mark.slow
def test_what_a_gpu_will_be_asked_first():
    """``pytest -m gpu``, with the quick twins of the kernels; what has none takes the interpreter minutes."""
    run("-m", "gpu", "-k", "not dropout and not (attention and bias)", "tests/kernels/test_gpu.py")


def visit(tmp_path, python3, **environment):
    """Run visit.sh with this ``python3``; returns the facts it wrote."""
    stub = tmp_path / "bin" / "python3"
    stub.parent.mkdir()
    stub.write_text(f"#!/bin/sh\n{python3}\n")
    stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
    out = tmp_path / "out"
    shell = HERE.parents[1] / "benchmarks" / "gpu" / "visit.sh"
    given = {**os.environ, "PATH": f"{stub.parent}:{os.environ['PATH']}", "OUT": str(out), "VISIT_SMALL": "1"}
    done = subprocess.run(["bash", shell], env={**given, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


PHASES = ["facts", "model", "command", "parity", "step", "train", "run", "ops", "inference", "tune"]


@pytest.mark.slow
def test_the_shell_of_the_visit(tmp_path):
    """Every phase has its turn and its limit; one that fails, hangs or comes too late stops no other."""
    python3 = 'case "$*" in *"visit.py model"*) exit 3;; *"visit.py step"*) sleep 60;; *) echo "$@";; esac'
    said, facts = visit(tmp_path, python3, LIMIT_S="11")
    phases = {fact["name"]: fact for fact in facts if fact["kind"] == "phase"}
    assert list(phases) == PHASES
    assert phases["facts"]["exit"] == 0 and phases["model"]["exit"] == 3
    assert phases["step"]["exit"] in (124, 137)
    assert all("skipped" in phases[name] for name in PHASES[PHASES.index("step") + 1 :])
    assert "visit.py summary" in said


@pytest.mark.slow
def test_the_whole_visit(tmp_path):
    """On the pretended GPU in small shapes: every phase succeeds, no measurement fails, and the facts are right."""
    environment = {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1", "PATIENCE": "4"}
    said, facts = visit(tmp_path, f'exec {sys.executable} -m pretended "$@"', LIMIT_S="1500", **environment)
    phases = {fact["name"]: fact for fact in facts if fact["kind"] == "phase"}
    assert {name: phases[name]["exit"] for name in PHASES} == dict.fromkeys(PHASES, 0)
    # peers that are not installed here aside
    assert [fact for fact in facts if "failed" in fact and fact["kind"] != "nvidia-smi"] == []
    of = {fact["kind"]: fact for fact in facts}
    assert of["repeatable"]["same_bits"] and of["resume"]["same_bits"] and of["optimizer state put back"]["finite"]
    assert of["parity"]["passed"] >= 3 and not of["parity"].get("failed")
    assert all(f["error"] < (1e-3 if f["precision"] == "fp32" else 0.1) for f in facts if f["kind"] == "model")
    assert all(f["captured_ms"] > 0 for f in facts if f["kind"] == "step")
    assert "phases that failed or found no time: none" in said
