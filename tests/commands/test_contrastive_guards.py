"""A contrastive training that diverges, is interrupted or killed: what is kept, and how it goes on."""

import re

import numpy as np
import pytest
import torch
from contrastive_cases import PAIRS, found, make_folder, tune

import fastbert
from fastbert.inference.embedding import trainable_encoder
from fastbert.tasks import contrastive_training, guarded
from fastbert.tasks.saved_training import NAME
from support import at_step, ctrl_c
from support import json_lines as rows


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path)


LOSS = (contrastive_training, "info_nce")
EPOCHS = ["--epochs", "6", "--batch-size", "5", "--learning-rate", "1e-3"]


@pytest.mark.parametrize("file", ["pairs.jsonl", "texts.txt"])
def test_an_interrupted_training_goes_on_to_the_same_bits(folder, monkeypatch, file, capsys):
    held_out = ["--eval", str(folder / "pairs.jsonl")] if file == "pairs.jsonl" else []
    arguments = ["--train", str(folder / file), *EPOCHS, *held_out]
    assert tune(folder, *arguments) == 0
    wanted = (folder / "out" / "model.safetensors").read_bytes()
    (folder / "out").rename(folder / "whole")
    with monkeypatch.context() as patch:
        at_step(patch, *LOSS, 5, ctrl_c)
        assert tune(folder, *arguments) == 130
    assert "interrupted at step 5" in capsys.readouterr().out
    assert fastbert.load(folder / "out").embedding is not None
    assert (folder / "out" / NAME).is_file()
    assert tune(folder, *arguments, "--resume", "--learning-rate", "2e-3") == 2
    assert "--learning-rate" in capsys.readouterr().err and (folder / "out" / NAME).is_file()
    assert tune(folder, *arguments, "--resume") == 0
    assert (folder / "out" / "model.safetensors").read_bytes() == wanted
    assert not (folder / "out" / NAME).exists()
    assert tune(folder, *arguments, "--resume") == 2


def test_the_best_weights_on_held_out_pairs_are_kept(folder, monkeypatch, capsys):
    """After the third of forty epochs every loss is turned around."""
    original, calls = contrastive_training.info_nce, []

    def loss(*arguments):
        calls.append(1)
        return original(*arguments) * (1 if len(calls) <= 3 else -1)

    monkeypatch.setattr(contrastive_training, "info_nce", loss)
    pairs = str(folder / "pairs.jsonl")
    assert tune(folder, "--train", pairs, "--eval", pairs, "--learning-rate", "3e-3", "--epochs", "40") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "found" in line]
    figures = [float(re.search(r"found (\S+)", line)[1]) for line in lines]
    assert len(figures) == 40 and figures[-1] < max(figures)
    assert found(fastbert.load(folder / "out")) == pytest.approx(max(figures), abs=0.01)


@pytest.mark.parametrize("held_out", [True, False])
def test_a_training_that_diverges_keeps_what_was_good(folder, monkeypatch, held_out, capsys):
    at_step(monkeypatch, *LOSS, 8, lambda loss: loss * float("nan"))
    more = ["--eval", str(folder / "pairs.jsonl")] if held_out else []
    assert tune(folder, "--train", str(folder / "pairs.jsonl"), *EPOCHS, *more) == 2
    assert "step 8" in capsys.readouterr().out and not (folder / "out" / NAME).exists()
    assert np.isfinite(fastbert.load(folder / "out").embed("a b")).all()


def test_a_killed_training_goes_on(folder, monkeypatch):
    arguments = ["--train", str(folder / "pairs.jsonl"), *EPOCHS]
    assert tune(folder, *arguments) == 0
    wanted = (folder / "out" / "model.safetensors").read_bytes()
    (folder / "out").rename(folder / "whole")

    class Killed(BaseException):
        pass

    def killed(loss):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(guarded, "SAVE_EVERY_S", 0.0)
        at_step(patch, *LOSS, 6, killed)
        with pytest.raises(Killed):
            tune(folder, *arguments)
    assert not (folder / "out").exists()
    assert tune(folder, *arguments, "--resume") == 0
    assert (folder / "out" / "model.safetensors").read_bytes() == wanted


def test_long_texts_in_windows(folder, capsys):
    """Pooled over all of their tokens, also while training."""
    rows_of = [{"text_a": " ".join("abcdefgh" * 4), "text_b": " ".join("IJKLMNOP" * 4)}]
    rows_of += [{"text_a": a, "text_b": b} for a, b in PAIRS]
    (folder / "long.jsonl").write_text(rows(*rows_of))
    assert tune(folder, "--train", str(folder / "long.jsonl")) == 0
    assert "2 of 22 texts are longer" in capsys.readouterr().out
    (folder / "out").rename(folder / "cut")
    assert tune(folder, "--train", str(folder / "long.jsonl"), "--windows") == 0
    assert "longer" not in capsys.readouterr().out
    assert (folder / "out" / "model.safetensors").read_bytes() != (folder / "cut" / "model.safetensors").read_bytes()
    bert = fastbert.load(folder / "out", precision="fp32")
    settings = bert.embedding
    texts = [rows_of[0]["text_a"], "a b c"]
    with torch.no_grad():
        mine = trainable_encoder(bert.model, bert.tokenizer, settings, windows=True)(texts).numpy()
    np.testing.assert_allclose(mine, bert.embed(texts, windows=True), atol=1e-5)
