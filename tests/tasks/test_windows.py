"""Texts that are too long: counted where they are truncated, and used as a whole in windows."""

import functools
import json
import warnings

import numpy as np
import pytest
import torch

import fastbert
import support
from fastbert import embed
from fastbert.finetune import FinetuneOptions, main
from fastbert.inference.embedding import EmbeddingSettings
from fastbert.system.cli import run
from fastbert.system.errors import InputError
from fastbert.tasks.model import TaskModel, TaskSettings
from fastbert.tasks.prediction import best_spans
from fastbert.text.truncation import in_windows
from support import SPECIAL

VOCAB = [*SPECIAL, *"abcdefghijklmnop"]
LONG, SHORT = " ".join("abcdefghijklmnop" * 3), "a b c"
make_bert = functools.partial(support.make_bert, VOCAB, precision="fp32", max_position_embeddings=16)


def test_windows_hold_every_token_once():
    bert = make_bert()
    rows, owners = in_windows([SHORT, LONG, ""], bert.tokenizer, 16)
    assert owners.tolist() == [0, 1, 1, 1, 1, 2] and max(map(len, rows)) <= 16
    inside = np.concatenate([row[1:-1] for row, owner in zip(rows, owners, strict=True) if owner == 1])
    assert inside.tolist() == bert.tokenizer.encode(LONG, add_special_tokens=False).ids
    assert rows[0].tolist() == bert.tokenizer.encode(SHORT).ids and len(rows[-1]) == 2


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_a_vector_is_pooled_over_all_windows(pooling):
    bert = make_bert("modern", EmbeddingSettings(pooling))
    with pytest.warns(UserWarning, match="1 of 2 texts are longer than 16 tokens"):
        truncated = bert.embed([LONG, SHORT])
    found = bert.embed([LONG, SHORT], windows=True)
    np.testing.assert_allclose(found[1], truncated[1], atol=1e-6)
    assert np.abs(found[0] - truncated[0]).max() > 1e-3
    rows, _ = in_windows([LONG], bert.tokenizer, 16)
    with torch.no_grad():
        hidden = [bert.model.encode(support_batch(row)).numpy() for row in rows]
    tokens = np.concatenate(hidden)
    wanted = {"mean": tokens.mean(0), "max": tokens.max(0), "cls": np.mean([h[0] for h in hidden], 0)}[pooling]
    np.testing.assert_allclose(found[0], wanted / np.linalg.norm(wanted), atol=1e-5)


def support_batch(row):
    from fastbert.batch import pack_rows

    return pack_rows([row.tolist()])


def test_classes_are_those_of_the_mean_logits():
    bert = make_bert()
    bert.task_model = TaskModel(bert.model, TaskSettings("classification", ("x", "y"), max_length=16)).eval()
    with torch.no_grad():
        bert.task_model.classifier.weight.normal_()
    with pytest.warns(UserWarning, match="1 of 2"):
        truncated = bert.classify([LONG, SHORT])
    found = bert.classify([LONG, SHORT], windows=True)
    assert (
        found[1]["scores"] == pytest.approx(truncated[1]["scores"], abs=1e-5)
        and found[0]["scores"] != truncated[0]["scores"]
    )
    rows, _ = in_windows([LONG], bert.tokenizer, 16)
    with torch.no_grad():
        logits = torch.stack([bert.task_model(support_batch(row))[0] for row in rows]).mean(0)
    assert found[0]["scores"]["y"] == pytest.approx(logits.softmax(-1)[1].item(), abs=1e-5)
    with pytest.raises(InputError, match="windows"):
        bert.classify([LONG], [SHORT], windows=True)


def test_training_in_windows(tmp_path, capsys):
    """What tells the classes apart stands at the end, after the first window; without windows it is cut."""
    bert = make_bert()
    bert.save(tmp_path / "model")
    ends = {"x": "o p o p", "y": "a b a b"}
    records = [{"text": " ".join("cdefghijklmn"[i % 5 :] * 2) + " " + ends[name], "label": name}
               for i in range(10) for name in "xy"]  # fmt: skip
    records += [{"text": ends[name], "label": name} for name in "xy"]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    usual = {"task": "classification", "train": str(path), "eval": str(path), "epochs": 30, "batch_size": 8,
             "learning_rate": 2e-3, "dropout": 0.0, "threads": 1, "precision": "fp32", "evaluations": 0}  # fmt: skip
    accuracy = {}
    for windows in (False, True):
        out = tmp_path / f"out-{windows}"
        assert main(FinetuneOptions(str(tmp_path / "model"), output=str(out), windows=windows, **usual)) == 0
        printed = capsys.readouterr().out
        assert ("20 of 22 texts are longer" in printed) == (not windows)
        assert ("20 of 22 texts are split" in printed) == windows
        accuracy[windows] = json.loads((out / "finetune.json").read_text())["seeds"][0]["eval"]["accuracy"]
    assert accuracy[True] > 0.8 > accuracy[False]
    tuned = fastbert.load(tmp_path / "out-True")
    assert tuned.task_model.settings.windows
    texts = [record["text"] for record in records]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tuned.classify(texts) == tuned.classify(texts, windows=True)
    with pytest.warns(UserWarning, match="20 of 22"):
        tuned.classify(texts, windows=False)
    assert run(main, FinetuneOptions, ["m", "--task", "pairs", "--train", "f", "--windows"]) == 2
    assert "--windows" in capsys.readouterr().err


def test_questions_and_words_that_are_cut_are_counted():
    bert = make_bert()
    bert.task_model = TaskModel(bert.model, TaskSettings("qa", max_length=16)).eval()
    with pytest.warns(UserWarning, match="1 of 2 questions"):
        bert.answer([LONG, SHORT], "a b c d")
    bert.task_model = TaskModel(bert.model, TaskSettings("tagging", ("O", "B-X"), max_length=16)).eval()
    with pytest.warns(UserWarning, match="1 words"):
        bert.tag("a b.c.d.e.f.g.h.i.j")


@pytest.mark.parametrize(("longest", "last"), [(10, 19), (60, 69), (90, 99)])
def test_the_longest_answer_is_an_option(longest, last):
    logits = np.zeros((120, 2))
    logits[10, 0], logits[99, 1], logits[69, 1], logits[19, 1] = 20, 20, 16, 15
    offsets = np.array([[-1, -1]] * 3 + [[i, i + 1] for i in range(3, 119)] + [[-1, -1]])
    score, start, end = best_spans(logits, offsets, longest)[0]
    assert (score, start, end) == ({19: 35, 69: 36, 99: 40}[last], 10, last + 1)
    bert = make_bert()
    bert.task_model = TaskModel(bert.model, TaskSettings("qa", max_length=16, unanswerable=False)).eval()
    assert len(bert.answer(SHORT, "a b c d e f", max_answer_tokens=1)["answer"]) == 1


def test_windows_of_the_embedding_command(tmp_path):
    bert = make_bert()
    bert.save(tmp_path / "model")
    (tmp_path / "texts.txt").write_text(f"{LONG}\n{SHORT}\n")
    for windows in (False, True):
        output = str(tmp_path / f"{windows}.npy")
        embed.main(embed.EmbedOptions(str(tmp_path / "model"), (str(tmp_path / "texts.txt"),), output, windows=windows,
                                      precision="fp32"))  # fmt: skip
    found = np.load(tmp_path / "True.npy")
    np.testing.assert_allclose(found, bert.embed([LONG, SHORT], windows=True), atol=1e-5)
    assert np.abs(found[0] - np.load(tmp_path / "False.npy")[0]).max() > 1e-3
