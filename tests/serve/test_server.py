"""The server over a real socket: clients that leave, a full queue, and how it ends."""

import contextlib
import functools
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from fastbert.serve.models import Models, find
from fastbert.serve.queue import QueueSizes
from fastbert.serve.service import Service
from support import command


@pytest.fixture
def running(served_folder, serving):
    """``with running(**sizes) as (port, service, gate, server)``: the thread of the queue waits for the gate."""
    return functools.partial(_running, served_folder / "plain", serving)


@contextlib.contextmanager
def _running(folder, serving, **sizes):
    from fastbert.serve.app import make_app

    gate = threading.Event()

    class Gated(Service):
        def _compute(self, key, items, sharers):
            assert gate.wait(20)
            return super()._compute(key, items, sharers)

    service = Gated(Models(find(folder)), sizes=QueueSizes(**sizes))
    with serving(make_app(service)) as (port, server):
        try:
            yield port, service, gate, server
        finally:
            gate.set()


def send(port, text):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", "/v1/embeddings", json.dumps({"input": text}), {"Content-Type": "application/json"})
    return connection


def until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_client_that_leaves_and_a_full_queue(running):
    with running(waiting_requests=2, batch_ms=0) as (port, service, gate, _):
        first = send(port, "o gato")
        until(lambda: service.models.is_loaded("plain"))
        time.sleep(0.1)  # the thread has taken it and stands at the gate
        second, third = send(port, "a"), send(port, "o rei")
        until(lambda: service.queue.waiting[0] == 2)
        refused = send(port, "azul").getresponse()
        assert refused.status == 503 and int(refused.headers["Retry-After"]) >= 1
        assert "\n" not in json.loads(refused.read())["error"]["message"]
        second.close()
        until(lambda: service.queue.waiting[0] == 1)
        gate.set()
        for connection in (first, third):
            assert connection.getresponse().status == 200
        assert service.queue.cancelled == 1


def test_stop_answers_what_was_begun(running):
    with running(batch_ms=0) as (port, service, gate, server):
        first = send(port, "o gato")
        until(lambda: service.models.is_loaded("plain"))
        time.sleep(0.1)
        server.should_exit = True
        time.sleep(0.15)
        gate.set()
        assert first.getresponse().status == 200


def test_the_command(served_folder):
    """Address at once, an answer, and a clean end."""
    arguments = [sys.executable, "-m", "fastbert.serve", str(served_folder / "plain"), "--port", "0"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline()
        port = int(address.partition("127.0.0.1:")[2].partition("/")[0])
        answer = send(port, "o gato").getresponse()
        assert answer.status == 200 and len(json.loads(answer.read())["data"]) == 1
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0 and not err, (out, err)


def test_the_command_stops_with_work_in_the_queue(served_folder):
    """What waits is refused at once, so that the end neither takes long nor cuts answers off (benchmarks/serving)."""
    arguments = [sys.executable, "-m", "fastbert.serve", str(served_folder / "plain"), "--port", "0"]
    body = json.dumps({"texts": ["o gato preto dorme na cama azul " * 9] * 40})
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        port = int(process.stdout.readline().partition("127.0.0.1:")[2].partition("/")[0])
        send(port, "o gato").getresponse()
        asked = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for _ in range(40)]
        for connection in asked:
            connection.request("POST", "/score", body)
        process.send_signal(signal.SIGTERM)
        codes = [connection.getresponse().status for connection in asked]
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0 and not err, (out, err)
        assert set(codes) <= {200, 503} and codes.count(503) > len(codes) / 2, codes


def test_answers_are_sent_at_once():
    """asyncio turns Nagle's algorithm off for connections of a socket whose protocol is named."""
    from fastbert.serve.__main__ import listen

    with listen("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP


def test_watching_needs_no_torch():
    """The page of a run in training must not cost it seconds."""
    code = "import sys, fastbert.serve.app; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nowhere"], "nowhere"),
        (["."], "python -m fastbert.train"),
        (["plain", "--port", "99999"], "--port"),
        (["plain", "--queue", "0"], "--queue"),
        (["plain", "--batch-ms", "-1"], "--batch-ms"),
        (["plain", "--host", "256.1.1.1"], "--host"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(served_folder, tmp_path, arguments, named):
    (tmp_path / "plain").symlink_to(served_folder / "plain")
    if arguments == ["."]:
        (tmp_path / "plain").unlink()
    done = command("fastbert.serve", *arguments, code=2, cwd=tmp_path)
    assert named in done.stderr and done.stderr.count("\n") == 1


def test_a_port_that_is_taken(served_folder):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = command("fastbert.serve", str(served_folder / "plain"), "--port", port, code=2, cwd=served_folder)
    assert str(port) in done.stderr


def test_a_missing_package_is_named(served_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    done = command("fastbert.serve", str(served_folder / "plain"), code=2, cwd=served_folder)
    assert "uvicorn" in done.stderr and "fastbert[serve]" in done.stderr
