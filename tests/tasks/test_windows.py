"""Texts that are too long: counted where they are truncated, and used as a whole in windows."""

import functools

import numpy as np
import pytest
import torch

import support
from fastbert.inference.embedding import EmbeddingSettings
from fastbert.system.errors import InputError
from fastbert.tasks.model import TaskModel, TaskSettings
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
