"""The page of a run in progress: it ends with the training, however that ends, and shows an evaluation at once."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from fastbert.serve.models import Models  # noqa: F401 - skips with the conftest where the extra is missing
from support import SMALL, command, records, write_corpus

SHOWN_S = 2.0


@contextlib.contextmanager
def started(*arguments, cwd):
    """A process, and the port of the address that it prints."""
    with subprocess.Popen(
        [sys.executable, *map(str, arguments)], stdout=subprocess.PIPE, text=True, cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        try:
            lines = iter(process.stdout.readline, "")
            yield process, next(int(found[1]) for line in lines if (found := re.search(r"127\.0\.0\.1:(\d+)/", line)))
        finally:
            process.kill()


def sections(port):
    """HTML of the page whenever it changes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/watch/events?lang=en")
    stream, name = connection.getresponse(), ""
    while line := stream.readline().decode():
        if line.startswith("event: "):
            name = line.split()[1]
        elif line.startswith("data: ") and name == "sections":
            yield json.loads(line[6:])


def refused(port):
    try:
        http.client.HTTPConnection("127.0.0.1", port, timeout=5).connect()
    except ConnectionRefusedError:
        return True
    return False


def test_it_ends_when_the_training_is_killed(tmp_path):
    code = (
        "import pathlib, time\nfrom fastbert.training.live_page import live_page\n"
        "with live_page(pathlib.Path('.'), True): time.sleep(60)"
    )
    (tmp_path / "run.json").write_text("{}")
    with started("-c", code, cwd=tmp_path) as (process, port):
        assert not refused(port)
        process.send_signal(signal.SIGKILL)
        process.wait(5)
        end = time.monotonic() + 10
        while not refused(port):
            assert time.monotonic() < end
            time.sleep(0.05)


def test_an_evaluation_is_shown_within_two_seconds(tmp_path):
    train = {"kind": "train", "step": 10, "tokens": 1000, "loss": 8.5, "training_s": 1}
    (tmp_path / "run.json").write_text(json.dumps({"options": {"steps": 20}}))
    (tmp_path / "metrics.jsonl").write_text(json.dumps(train) + "\n")
    with started("-m", "fastbert.serve", tmp_path, "--watch", "--port", 0, cwd=tmp_path) as (_, port):
        pages = sections(port)
        assert "6.12" not in next(pages)
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"kind": "heldout", "step": 10, "tokens": 1000, "loss": 6.125}) + "\n")
        began = time.monotonic()
        assert any("6.12" in page for page in pages) and time.monotonic() - began < SHOWN_S


def test_a_missing_package_is_told_before_anything_is_written(tmp_path, monkeypatch):
    write_corpus(tmp_path / "text.txt")
    monkeypatch.setattr("fastbert.training.live_page.PACKAGES", ("no_such_package",))
    done = command("fastbert.train", "--data", "text.txt", "--output", "run", "--watch", *SMALL, code=2, cwd=tmp_path)
    assert "no_such_package" in done.stderr and "fastbert[serve]" in done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_training_shows_each_of_its_evaluations(tmp_path):
    """Each is there within two seconds of its record, from a training that is under way."""
    write_corpus(tmp_path / "text.txt", 400)
    arguments = (*"--data text.txt --output run --vocab-size 64 --steps 1500 --evaluations 4".split(), *SMALL)
    seen: dict[str, float] = {}

    def losses():
        return {f"{row['loss']:.2f}" for row in records(tmp_path / "run", "heldout")}

    with started("-m", "fastbert.train", "--watch", *arguments, cwd=tmp_path) as (process, port):

        def read():
            with contextlib.suppress(OSError, http.client.HTTPException):
                for page in sections(port):
                    for loss in losses():
                        if loss in page:
                            seen.setdefault(loss, time.monotonic())

        reader = threading.Thread(target=read)
        threading.Thread(target=process.stdout.read, daemon=True).start()
        reader.start()
        written: dict[str, float] = {}
        while process.poll() is None:
            with contextlib.suppress(OSError):
                for loss in losses():
                    written.setdefault(loss, time.monotonic())
            time.sleep(0.02)
        reader.join(20)
    assert len(written) >= 3 and seen.keys() == written.keys()
    assert max(seen[loss] - written[loss] for loss in written) < SHOWN_S
