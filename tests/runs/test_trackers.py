"""train --log: scalars go where they are sent, and nowhere by default but to TensorBoard's files."""

import errno
import sys
import threading
import types

import pytest

from fastbert.runs.metrics_log import Monitor
from fastbert.runs.trackers import TensorBoard, names_of
from fastbert.system.errors import InputError


@pytest.fixture
def calls(monkeypatch):
    """Modules in the place of trackio and wandb that keep what they are told."""
    made = []

    def module(name):
        tracker = types.ModuleType(name)
        tracker.log = lambda values, step: made.append((name, "log", values, step))
        tracker.finish = lambda: made.append((name, "finish"))
        tracker.init = lambda **options: made.append((name, "init", options)) or tracker
        tracker.__spec__ = types.SimpleNamespace(name=name)
        monkeypatch.setitem(sys.modules, name, tracker)

    module("trackio")
    module("wandb")
    return made


def test_scalars_go_to_each(tmp_path, calls, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with Monitor(tmp_path, trackers=names_of("trackio,wandb")) as monitor:
        monitor.record("train", 3, tokens=10, loss=2.5, left=None)
    values = {"train/tokens": 10, "train/loss": 2.5}
    for name in ("trackio", "wandb"):
        own = [call[1:] for call in calls if call[0] == name]
        assert [call[0] for call in own] == ["init", "log", "finish"] and own[1][1:] == (values, 3)
        assert own[0][1]["name"] == tmp_path.name
    assert next(call[2]["mode"] for call in calls if call[:2] == ("wandb", "init")) == "offline"
    assert not (tmp_path / "tensorboard").exists()


def test_tensorboard_is_the_default_and_none_is_none(tmp_path):
    for folder, trackers in (("a", None), ("b", names_of("none"))):
        (tmp_path / folder).mkdir()
        with Monitor(tmp_path / folder, **({} if trackers is None else {"trackers": trackers})) as monitor:
            monitor.record("train", 1, tokens=1, loss=1.0)
    assert any((tmp_path / "a" / "tensorboard").iterdir()) and not (tmp_path / "b" / "tensorboard").exists()


def test_an_exception_that_tensorboards_thread_keeps_is_said_once(tmp_path, monkeypatch, capsys):
    """A full disk: the thread raises it again where a file is written."""
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    TensorBoard(tmp_path, 0).close()

    class Keeps(threading.Thread):
        def run(self):
            self.exception = OSError(errno.ENOSPC, "No space left on device")
            raise self.exception

    def fail():
        raise OSError(errno.ENOSPC, "nobody else knows")

    for thread in (Keeps(), threading.Thread(target=fail)):
        thread.start()
        thread.join()
    said = capsys.readouterr().err
    assert "nobody else knows" in said and "No space left" not in said


def test_names(monkeypatch):
    assert names_of("tensorboard, none") == ["tensorboard"]
    with pytest.raises(InputError, match="--log abacus"):
        names_of("abacus")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install wandb"):
        names_of("wandb")
