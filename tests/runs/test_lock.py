"""One process in a run directory; a dead one holds nothing."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass

import pytest

from fastbert.runs.directory import RunDirectory
from fastbert.runs.lock import RunLock
from fastbert.system.errors import InputError

HOLD = "import sys, time; from pathlib import Path; from fastbert.runs.lock import RunLock;" \
    "lock = RunLock.acquire(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"  # fmt: skip


@dataclass
class Options:
    data: str = "x"


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_is_told_who_holds_it_and_a_dead_one_holds_nothing(tmp_path, holder):
    for start in (lambda: RunLock.acquire(tmp_path), lambda: RunDirectory.claim(str(tmp_path), Options())):
        with pytest.raises(InputError, match=f"in use by process {holder.pid} on .* since 20"):
            start()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    lock = RunLock.acquire(tmp_path)
    with pytest.raises(InputError, match=f"process {os.getpid()}"):
        RunLock.acquire(tmp_path)
    lock.release()
    RunLock.acquire(tmp_path).release()


def test_a_run_is_locked_until_it_ends(tmp_path):
    with RunDirectory.claim(str(tmp_path / "out"), Options()), pytest.raises(InputError, match="in use by"):
        RunDirectory.reopen(str(tmp_path / "out"))
    with RunDirectory.reopen(str(tmp_path / "out")), pytest.raises(InputError, match="in use by"):
        RunDirectory.claim(str(tmp_path / "out"), Options())
    with pytest.raises(InputError, match="already has a run"):
        RunDirectory.claim(str(tmp_path / "out"), Options())


def test_a_refused_directory_is_left_as_it_was(tmp_path):
    (tmp_path / "thesis.txt").write_text("do not touch")
    with pytest.raises(InputError, match="not an empty directory"):
        RunDirectory.claim(str(tmp_path), Options())
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_start_killed_before_it_wrote_anything_does_not_block_the_next(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / "run.json.tmp").write_text("{")
    with RunDirectory.claim(str(tmp_path), Options()):
        assert (tmp_path / "run.json").exists()


def test_unnamed_runs_started_together_get_directories_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with RunDirectory.claim(None, Options()) as one, RunDirectory.claim(None, Options()) as two:
        assert {one.path.name, two.path.name} == {"001", "002"}
