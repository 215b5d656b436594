"""How much of the held-out text is repeated in the training text, counted by hand."""

import numpy as np
import pytest
from made_up_stores import Words

from fastbert.data import Corpus, write_store
from fastbert.data.batches import overlap

LINES = ["a b c", "d e", "a b c", "f", "e d", "d e", "g h i j", "f f"]


def store_of(tmp_path, lines, name="s"):
    (tmp_path / f"{name}.txt").write_text("\n\n".join(lines))
    return write_store(tmp_path / name, Corpus([str(tmp_path / f"{name}.txt")]), Words())


@pytest.mark.parametrize(
    ("heldout", "share"),
    [([0], 1.0), ([4], 0.0), ([3, 0], 3 / 4), ([0, 2], 0.0), ([1, 6], 2 / 6), ([7], 0.0), ([0, 1, 2, 3], 2 / 9)],
)
def test_the_share_of_tokens_in_lines_that_are_also_trained_on(tmp_path, heldout, share):
    store = store_of(tmp_path, LINES)
    spans = np.array([[i, i + 1] for i in heldout], np.int64)
    assert overlap.repeated_share(store, spans) == pytest.approx(share)
    whole = np.array([[0, len(LINES)]], np.int64)
    assert overlap.repeated_share(store, whole, store_of(tmp_path, ["d e", "x"], "t")) == pytest.approx(4 / 19)


def test_only_the_beginning_of_large_texts_is_compared(tmp_path, monkeypatch):
    store = store_of(tmp_path, LINES * 50)
    whole = np.array([[0, store.num_sentences]], np.int64)
    monkeypatch.setattr(overlap, "MAX_HELDOUT_TOKENS", 20)
    assert len(overlap.first_sentences(store, whole)) == 9
    monkeypatch.setattr(overlap, "MAX_COMPARED_TOKENS", 4)
    assert overlap.repeated_share(store, whole, store) == pytest.approx(13 / 22)
