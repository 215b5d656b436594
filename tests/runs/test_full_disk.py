"""A real small file system that fills up or cannot be written: one clear line, and what was whole stays whole.

The disk is a tmpfs of a few megabytes; mounting one needs root, and the tests are skipped where it is not allowed. A
file takes the free space just before the stage that is tried.
"""

import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from fastbert import report, tokenize, train
from fastbert.model import BertForPreTraining
from fastbert.runs import checkpoint, metrics_log
from fastbert.system import cli
from fastbert.text import Tokenizer
from fastbert.training import prepare_data
from fastbert.training.options import TrainOptions
from support import SMALL, WORDS, process


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not allowed here (it needs root)")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def corpus(tmp_path) -> Path:
    path = tmp_path / "corpus.txt"
    lines = [" ".join((WORDS * 3)[i % 15 :][:14]) + f" {i * i}." + "\n" * (1 + (i % 6 == 5)) for i in range(300)]
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def command(monkeypatch, capsys):
    """``command(main, options_type, *arguments)`` → (exit code, lines on standard error)."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # the command line sets its own

    def run(main, options_type, *arguments) -> tuple[int, list[str]]:
        capsys.readouterr()
        code = cli.run(main, options_type, [str(a) for a in arguments], prog="python -m fastbert")
        return code, capsys.readouterr().err.strip().splitlines()

    return run


def fill(disk: Path, leave: int = 0) -> None:
    """Take the free space of a disk, but for so many bytes."""
    facts = os.statvfs(disk)
    size = facts.f_bavail * facts.f_frsize - leave
    if size > 0:
        with open(disk / "filler", "ab") as file:
            os.posix_fallocate(file.fileno(), file.tell(), size)


STAGES = {
    "vocabulary": (Tokenizer, "save"),
    "token store": (prepare_data, "write_store"),
    "metrics": (metrics_log.Monitor, "record"),
    "checkpoint": (checkpoint, "save"),
    "final model": (BertForPreTraining, "save_pretrained"),
    "picture": (metrics_log, "draw_curves"),
}


@pytest.mark.parametrize("leave", [0, pytest.param(12_288, marks=pytest.mark.slow)])
@pytest.mark.parametrize("stage", STAGES)
def test_a_disk_that_fills_up_at_any_stage(stage, leave, small_disk, corpus, command, monkeypatch):
    """Before the first checkpoint nothing is left; after it, the run goes on when there is space again."""
    home, name = STAGES[stage]
    whole = getattr(home, name)

    def after_filling(*args, **kwargs):
        fill(small_disk, leave)
        return whole(*args, **kwargs)

    output = small_disk / "out"
    with monkeypatch.context() as patch:
        patch.setattr(home, name, after_filling)
        arguments = ("--data", corpus, *SMALL, "--steps", 12, "--checkpoint-every", 4, "--output", output)
        code, said = command(train.main, TrainOptions, *arguments)
    if leave and stage in ("token store", "metrics"):  # they may need no more than was left
        assert code in (0, 2)
    else:
        assert code == 2, said
    if code == 0:
        return
    assert len(said) == 1 and "No space left" in said[0] and "free some space" in said[0], said
    (small_disk / "filler").unlink()
    steps = checkpoint.list_steps(output) if output.exists() else []
    if stage in ("final model", "picture"):
        assert steps == [8, 12]
    if not steps:
        assert not output.exists()
        return
    checkpoint.load(checkpoint.folder(output) / f"step-{steps[-1]}")
    code, said = command(train.main, TrainOptions, "--resume", "--output", output)
    assert code == 0 and (output / "model.safetensors").is_file(), said


@pytest.mark.parametrize("leave", [0, 6000])
def test_a_full_disk_under_the_report_and_the_token_store(leave, small_disk, tmp_path, corpus, command):
    run = tmp_path / "run"
    code, said = command(train.main, TrainOptions, "--data", corpus, *SMALL, "--steps", 4, "--output", run)
    assert code == 0, said
    fill(small_disk, leave)
    for main, options_type, arguments in (
        (report.main, report.ReportOptions, (run, "--output", small_disk / "report.html")),
        (tokenize.main, tokenize.TokenizeOptions,
         ("--data", corpus, "--tokenizer", run, "--output", small_disk / "store", "--threads", 1)),
    ):  # fmt: skip
        code, said = command(main, options_type, *arguments)
        assert code == 2 and len(said) == 1 and "No space left" in said[0] and "free some space" in said[0], said
        assert {path.name for path in small_disk.iterdir()} == {"filler"}


def test_a_disk_that_cannot_be_written(small_disk, tmp_path, corpus, command):
    run = small_disk / "run"
    arguments = ("--data", corpus, *SMALL, "--steps", 12, "--checkpoint-every", 4)
    code, said = command(train.main, TrainOptions, *arguments, "--stop-after", 4, "--output", run)
    assert code == 0, said
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for main, options_type, asked in (
        (train.main, TrainOptions, (*arguments, "--output", small_disk / "other")),
        (train.main, TrainOptions, ("--resume", "--output", run)),
        (report.main, report.ReportOptions, (run, "--output", small_disk / "report.html")),
        (tokenize.main, tokenize.TokenizeOptions,
         ("--data", corpus, "--tokenizer", run, "--output", small_disk / "store", "--threads", 1)),
    ):  # fmt: skip
        code, said = command(main, options_type, *asked)
        assert code == 2 and len(said) == 1 and "Read-only" in said[0], said
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    code, said = command(train.main, TrainOptions, "--resume", "--output", run)
    assert code == 0, said


def test_a_disk_too_small_for_the_next_checkpoints(small_disk, tmp_path, corpus):
    """As a user has it, from the command line: nothing is staged, the disk is simply too small."""
    subprocess.run(["mount", "-o", "remount,size=6m", str(small_disk)], check=True)
    options = ("--data", corpus, *SMALL, "--steps", 400, "--evaluations", 0, "--checkpoint-every", 5)
    began = time.monotonic()
    done = process("fastbert.train", *options, "--output", small_disk / "out", cwd=tmp_path, timeout=300, code=2)
    assert "No space left" in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and time.monotonic() - began < 240
    steps = checkpoint.list_steps(small_disk / "out")
    if steps:  # what was whole before is whole still
        checkpoint.load(checkpoint.folder(small_disk / "out") / f"step-{steps[-1]}")
        assert f"step {steps[-1]}" in done.stderr


def test_of_two_starts_at_once_one_wins_and_the_other_says_who(tmp_path, corpus):
    """Two commands begun together in one new directory."""
    options = ("--data", corpus, *SMALL, "--steps", 60, "--evaluations", 0, "--output", tmp_path / "out")
    command = [sys.executable, "-m", "fastbert.train", *map(str, options)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ended = [(process, *process.communicate(timeout=300)) for process in started]
    codes = [process.returncode for process, _, _ in ended]
    assert sorted(codes) == [0, 2], ended
    winner, loser = (ended[codes.index(code)] for code in (0, 2))
    said = loser[2].strip().splitlines()
    assert len(said) == 1, said
    # beaten to it while the other was at work, or (on a busy machine) when it was already done
    in_use = f"in use by process {winner[0].pid} on " in said[0] and " since 20" in said[0]
    assert in_use or "already holds a run" in said[0], said
    checkpoint.load(checkpoint.folder(tmp_path / "out") / "step-60")
