"""What goes wrong in training ends in a known state and one clear line."""

import errno
import itertools
import json
import math
import os
import subprocess
import threading
import time
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import support
from fastbert import train as training
from fastbert.data import TokenStore
from fastbert.runs import checkpoint
from fastbert.system import cli
from fastbert.system.background import Background, HostCopy
from fastbert.training.divergence import Diverged, DivergenceMonitor
from fastbert.training.options import TrainOptions
from support import SMALL, write_corpus


def train(folder: Path, *arguments, code: int = 0) -> subprocess.CompletedProcess:
    return support.train("--data", corpus_of(folder), *SMALL, *arguments, code=code, cwd=folder)


def corpus_of(folder: Path) -> Path:
    return write_corpus(folder / "corpus.txt", 50)


# ---- divergence ----
def test_what_is_not_finite_is_seen_before_the_update():
    watch = DivergenceMonitor(1000)
    assert watch.problem(6.9, 1.0) is None
    assert watch.problem(math.nan, 1.0) == "the loss is nan" and "inf" in watch.problem(math.inf, 1.0)
    assert "gradient norm" in watch.problem(6.0, math.nan) and watch.healthy


def test_an_explosion_is_seen_and_a_spike_is_not():
    watch = DivergenceMonitor(1000)
    losses = [6.9] * 30 + [60.0] + [6.0] * 30
    assert [watch.problem(loss, 1.0) for loss in losses] == [None] * len(losses)
    problems = [watch.problem(40.0, 1.0) for _ in range(20)]
    assert "exploded" in next(p for p in problems if p) and not watch.healthy
    # weights from elsewhere may begin worse than none, as long as they get no worse
    other = DivergenceMonitor(1000)
    assert all(other.problem(15.0, 1.0) is None for _ in range(50))


def test_the_message_names_what_is_kept_and_what_to_change():
    said = str(Diverged(Path("runs/001"), 36, "the loss is nan", [20, 36], {"adamw": 0.5, "muon": 0.02}))
    assert said.startswith("step 37: the loss is nan") and "checkpoints/step-36" in said
    assert "--learning-rate (now 0.5)" in said and "--muon-learning-rate (now 0.02)" in said
    assert "start again" in str(Diverged(Path("r"), 3, "the loss is inf", [], {"adamw": 0.5}))


def test_a_learning_rate_that_diverges_ends_in_one_line_with_finite_weights(tmp_path):
    done = train(tmp_path, "--steps", 300, "--learning-rate", 1e18, "--warmup", 0, "--output", "out", code=2)
    assert "diverged" in done.stderr and "--learning-rate (now 1e+18)" in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1
    for step in checkpoint.list_steps(tmp_path / "out"):
        saved = checkpoint.load(checkpoint.folder(tmp_path / "out") / f"step-{step}")
        assert all(torch.isfinite(tensor).all() for tensor in saved.model.values())


# ---- saving beside the training ----
def test_errors_of_the_thread_come_back_and_one_piece_runs_at_a_time():
    slot, running, order = Background("test"), threading.Event(), []

    def slow():
        running.wait(5)
        order.append("slow")

    slot.submit(slow)
    assert slot.busy
    slot.check()  # does not wait
    running.set()
    slot.submit(lambda: order.append("next"))
    slot.wait()
    assert order == ["slow", "next"] and not slot.busy

    def fail():
        raise OSError(28, "No space left on device")

    slot.submit(fail)
    with pytest.raises(OSError, match="No space"):
        slot.wait()
    slot.wait()  # said once


def test_a_copy_does_not_change_with_the_original():
    original = {"a": torch.ones(3), "b": torch.tensor(2)}
    copies = HostCopy()
    taken = copies.take(original)
    original["a"].add_(1)
    assert taken["a"].tolist() == [1, 1, 1] and taken["b"].item() == 2
    assert copies.take(original)["a"].data_ptr() == taken["a"].data_ptr() and taken["a"].tolist() == [2, 2, 2]


# ---- what belongs to a run ----
def test_changed_options_vocabulary_and_tokens_are_noticed_on_resume(tmp_path):
    train(tmp_path, "--steps", 12, "--evaluations", 0, "--stop-after", 4, "--output", "out")
    run = tmp_path / "out"

    def resumed(expected: str) -> None:
        done = support.train("--resume", "--output", "out", code=2, cwd=tmp_path)
        assert expected in done.stderr and "Traceback" not in done.stderr, done.stderr

    path = run / "run.json"
    facts = json.loads(path.read_text())
    facts["options"]["learning_rate"] = 0.003
    before = path.read_bytes()
    path.write_text(json.dumps(facts))
    resumed("options were changed")
    path.write_bytes(before)

    vocabulary = run / "vocab.txt"
    before = vocabulary.read_bytes()
    vocabulary.write_bytes(before.replace(b"gato", b"gata"))
    resumed("vocab.txt: ")
    vocabulary.write_bytes(before)

    shard = run / "tokens" / "tokens-00000.bin"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    resumed("tokens-00000.bin: is damaged")


# ---- a clock and a disk that misbehave ----
@pytest.fixture
def in_process(tmp_path, monkeypatch, capsys):
    """``in_process("out", …)`` trains in this process; returns exit code, lines on standard error, the weights."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # the command line sets its own
    corpus = corpus_of(tmp_path)

    def run(output: str, *arguments) -> tuple[int, list[str], dict[str, torch.Tensor] | None]:
        given = () if "--resume" in arguments else ("--data", corpus, *SMALL, "--steps", 16, "--checkpoint-every", 4)
        capsys.readouterr()
        asked = [str(a) for a in (*given, *arguments, "--output", tmp_path / output)]
        code = cli.run(training.main, TrainOptions, asked, prog="python -m fastbert.train")
        weights = tmp_path / output / "model.safetensors"
        return code, capsys.readouterr().err.splitlines(), load_file(weights) if weights.exists() else None

    return run


def same(one: dict[str, torch.Tensor] | None, other: dict[str, torch.Tensor] | None) -> bool:
    assert one and other
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_clock_that_goes_backwards_changes_nothing(tmp_path, in_process, monkeypatch):
    """An hour back at every look, also between a stop and the run that goes on."""
    whole = in_process("whole")
    now = itertools.count(time.time(), -3600)
    monkeypatch.setattr(time, "time", lambda: next(now))
    stopped = in_process("stopped", "--stop-after", 7)
    os.utime(tmp_path / "stopped" / "run.json", (0, 0))
    resumed = in_process("stopped", "--resume")
    assert [whole[0], stopped[0], resumed[0]] == [0, 0, 0] and not [*whole[1], *stopped[1], *resumed[1]]
    assert same(whole[2], resumed[2])


def test_nothing_that_trains_asks_what_time_of_day_it_is():
    source = Path(__file__).resolve().parents[2] / "fastbert"
    asking = [p.name for p in source.rglob("*.py") if "time.time(" in p.read_text(encoding="utf-8")]
    assert asking == []


def test_a_data_worker_that_dies_ends_in_one_line_and_the_run_goes_on(in_process, monkeypatch):
    """The thread that makes batches ahead cannot read the disk any more, in the middle of the run."""
    whole = in_process("whole")
    others = set(threading.enumerate())  # servers of other tests
    gather, calls = TokenStore.gather, itertools.count()

    def failing(store, starts, lengths):
        if threading.current_thread().name == "fastbert-loader" and next(calls) >= 12:
            raise OSError(errno.EIO, os.strerror(errno.EIO), "tokens-00000.bin")
        return gather(store, starts, lengths)

    with monkeypatch.context() as patch:
        patch.setattr(TokenStore, "gather", failing)
        code, said, weights = in_process("run")
    assert code == 2 and weights is None and len(said) == 1 and "tokens-00000.bin: Input/output error" in said[0], said
    started = set(threading.enumerate()) - others
    assert not [thread for thread in started if thread.name.startswith("fastbert")]
    resumed = in_process("run", "--resume")
    assert resumed[0] == 0 and same(whole[2], resumed[2])
