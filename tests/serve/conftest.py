"""A server in this process for each kind of model: the real application, asked through starlette's client."""

import contextlib
import socket
import threading

import pytest

pytest.importorskip("starlette")
pytest.importorskip("orjson")
pytest.importorskip("uvicorn")

from support import SPECIAL, WORDS, make_bert, make_model

TASKS = {
    "classes": ("classification", ("bom", "ruim")),
    "pairs": ("classification", ("sim", "não")),
    "tags": ("tagging", ("O", "B-PER", "I-PER")),
    "answers": ("qa", ()),
}


@contextlib.contextmanager
def _served(app):
    import uvicorn

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[1], server
        finally:
            app.state.stopping.set()
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive()


@pytest.fixture(scope="session")
def serving():
    """``with serving(app) as (port, server)``: a real server in a thread."""
    return _served


@pytest.fixture(scope="session")
def served_folder(tmp_path_factory):
    """A directory of models: one that fills masks, and one for each task."""
    import torch

    from fastbert.tasks.model import TaskModel, TaskSettings

    folder = tmp_path_factory.mktemp("models")
    make_bert([*SPECIAL, *WORDS, ".", ","]).save(folder / "plain")
    tokenizer = make_bert([*SPECIAL, *WORDS, ".", ","]).tokenizer
    for name, (task, labels) in TASKS.items():
        torch.manual_seed(1)
        settings = TaskSettings(task, labels, pairs=(name == "pairs") if task == "classification" else None)
        TaskModel(make_model(vocab_size=len(tokenizer)), settings).eval().save_pretrained(folder / name)
        tokenizer.save(folder / name, token_type_ids=True)
    return folder


@pytest.fixture(scope="session")
def make_client(served_folder):
    """``make_client(api_key=None, limits=None, sizes=None)`` → a client of a new application."""
    from starlette.testclient import TestClient

    from fastbert.serve.app import make_app
    from fastbert.serve.models import Models, find
    from fastbert.serve.queue import QueueSizes
    from fastbert.serve.service import Service

    opened = []

    def make_client(api_key=None, limits=None, sizes=None, folder=served_folder):
        served = sorted(find(folder), key=lambda each: each.name != "plain")
        sizes = sizes or QueueSizes(workers=2)
        service = Service(Models(served, precision="fp32"), limits, sizes, threads=sizes.workers)
        client = TestClient(make_app(service, api_key=api_key), base_url="http://127.0.0.1:8000")
        client.__enter__()
        opened.append(client)
        return client

    yield make_client
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture(scope="session")
def client(make_client):
    return make_client()
