"""The C++ core is used when it is there, insisted on by name, and its absence is said once, with the remedy."""

import os

import pytest

from fastbert.system import native
from fastbert.text import Tokenizer
from support import SPECIAL

VOCAB = [*SPECIAL, "bom", "dia"]


@pytest.fixture
def without_core(monkeypatch):
    monkeypatch.setattr(native, "_load", lambda: (None, "it was not compiled at install"))
    monkeypatch.delenv("FASTBERT_IMPL", raising=False)
    native._warn_once.cache_clear()
    yield
    native._warn_once.cache_clear()


def test_absence_is_said_once_and_the_twin_serves(without_core):
    with pytest.warns(UserWarning, match=r"not compiled.*install a C\+\+17 compiler") as said:
        first = Tokenizer(VOCAB)
        second = Tokenizer(VOCAB)
    assert len(said) == 1
    assert first.encode("bom dia").ids == second.encode("bom dia").ids == [2, 5, 6, 3]


def test_asked_for_by_name_it_must_be_there(without_core):
    with pytest.raises(RuntimeError, match=r"impl='cpp'.*not compiled.*Try"):
        Tokenizer(VOCAB, impl="cpp")
    assert native.core("reference") is None
    assert native.status() == (False, "it was not compiled at install")


def test_the_environment_says_what_auto_means(monkeypatch):
    monkeypatch.setenv("FASTBERT_IMPL", "reference")
    assert native.core() is None
    monkeypatch.setenv("FASTBERT_IMPL", "triton")  # says nothing about text
    assert native.core() is native.core("auto")
    with pytest.raises(ValueError, match="impl='quick'"):
        native.core("quick")


def test_a_core_older_than_its_sources_is_noticed(tmp_path):
    core, source, other = tmp_path / "_C.so", tmp_path / "csrc" / "cpu" / "a.h", tmp_path / "csrc" / "README.md"
    source.parent.mkdir(parents=True)
    for age_s, path in enumerate((core, source, other)):
        path.touch()
        os.utime(path, (1_000_000 - age_s, 1_000_000 - age_s))
    assert not native.is_stale(core, tmp_path / "csrc") and not native.is_stale(core, tmp_path / "nowhere")
    os.utime(other)
    assert not native.is_stale(core, tmp_path / "csrc")
    os.utime(source)
    assert native.is_stale(core, tmp_path / "csrc")
