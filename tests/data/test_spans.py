"""fastbert.data.batches.spans: what a split of many documents is made of, without a list of them."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_store import MemoryStore

from fastbert.data import split_documents
from fastbert.data.batches import sequences, spans
from fastbert.data.batches.philox import EVALUATION_EPOCH
from fastbert.data.batches.sequences import MlmSequences, NextSentenceSequences
from fastbert.data.batches.spans import DocumentSpans, RunningSums


class Offsets:
    """A store's offsets alone."""

    def __init__(self, num_documents: int, sentences: int, tokens: int):
        self.sentence_offsets = np.arange(num_documents * sentences + 1, dtype=np.int64) * tokens
        self.document_offsets = self.sentence_offsets[::sentences]
        self.num_tokens = int(self.sentence_offsets[-1])


def make_store(num_documents=300, seed=0):
    chance = np.random.default_rng(seed)
    sizes = [chance.integers(1, 40, chance.integers(1, 8)).tolist() for _ in range(num_documents)]
    return MemoryStore([[[7] * n for n in document] for document in sizes])


@pytest.fixture
def many_is_few(monkeypatch):
    """The ways of large corpora on a small one."""
    monkeypatch.setattr(spans, "MAX_LISTED_SPANS", 0)
    monkeypatch.setattr(sequences, "MAX_LISTED_SPANS", 0)
    monkeypatch.setattr(spans, "ITEMS_AT_ONCE", 48)


CASES = [((), None), ((0,), None), ((3, 4, 5, 17, 299), None), ((), (0, 1)), ((), (140, 0))]


@pytest.mark.parametrize(("without", "shortened"), CASES)
def test_documents_read_like_the_list_they_stand_for(without, shortened):
    store = make_store()
    whole = store.spans.copy()
    if shortened is not None:
        document = shortened[0]
        shortened = (document, int(whole[document, 0]) + 1)
        whole[document, 1] = shortened[1]
    whole = np.delete(whole, list(without), axis=0)
    found = DocumentSpans(store, without, shortened)
    assert len(found) == len(whole) and np.array_equal(found, whole) and np.array_equal(list(found), whole)
    assert np.array_equal(found[5:-7:3], whole[5:-7:3]) and np.array_equal(found[[9, -1, 9]], whole[[9, -1, 9]])
    assert np.array_equal(found[-2], whole[-2])
    starts, sizes = found.tokens(np.arange(len(found)))
    assert np.array_equal(starts, store.sentence_offsets[whole[:, 0]])
    assert np.array_equal(starts + sizes, store.sentence_offsets[whole[:, 1]])
    for outside in (len(whole), -len(whole) - 1):
        with pytest.raises(IndexError):
            found[outside]


def test_what_is_left_out_is_in_the_digest():
    store = make_store()
    variants = [((), None), ((3,), None), ((4,), None), ((3, 4), None), ((), (3, 9)), ((), (3, 10))]
    assert len({DocumentSpans(store, *variant).digest(0) for variant in variants}) == len(variants)


@pytest.mark.parametrize("make", [MlmSequences, NextSentenceSequences])
@pytest.mark.parametrize(("without", "shortened"), CASES[:3])
@pytest.mark.parametrize("epoch", [0, 1, 5, EVALUATION_EPOCH])
def test_sequences_are_those_of_the_list(make, without, shortened, epoch, many_is_few):
    store = make_store()
    lazy = DocumentSpans(store, without, shortened)
    listed, asked = make(store, lazy[:], 24, seed=3), make(store, lazy, 24, seed=3)
    assert isinstance(asked.spans, DocumentSpans) and not isinstance(listed.spans, DocumentSpans)
    assert listed.count(epoch) == asked.count(epoch)
    index = np.random.default_rng(1).permutation(listed.count(epoch))
    expected, found = listed.slices(epoch, index), asked.slices(epoch, index)
    for name in expected.__dataclass_fields__:
        assert np.array_equal(getattr(expected, name), getattr(found, name)), name


@given(st.lists(st.integers(0, 9), min_size=1, max_size=200).filter(any), st.sampled_from([1, 8]))
def test_running_sums_find_every_place(counts, block):
    counts = np.array(counts)
    few = spans.MAX_LISTED_SPANS
    try:
        spans.MAX_LISTED_SPANS = len(counts) if block == 1 else 0
        sums = RunningSums(len(counts), lambda item: counts[item])
    finally:
        spans.MAX_LISTED_SPANS = few
    assert sums.total == counts.sum() and sums.block == block
    item, before = sums.locate(np.arange(sums.total))
    assert np.array_equal(item, np.repeat(np.arange(len(counts)), counts))
    assert np.array_equal(before, (np.cumsum(counts) - counts)[item])


@pytest.mark.parametrize("fraction", [0.01, 0.3])
def test_the_split_does_not_depend_on_the_parts_it_is_made_in(fraction, monkeypatch):
    store = make_store(3000)
    whole = split_documents(store, fraction, seed=4)
    monkeypatch.setattr(spans, "ITEMS_AT_ONCE", 37)
    parts = split_documents(store, fraction, seed=4)
    assert np.array_equal(whole.heldout, parts.heldout) and np.array_equal(whole.train, parts.train)


def test_memory_hardly_grows_with_the_documents():
    """A million documents: two epochs' windows and pairs in a few bytes each, where one list alone takes sixteen."""
    num_documents = 1_000_000
    store = Offsets(num_documents, sentences=5, tokens=60)
    tracemalloc.start()
    try:
        split = split_documents(store)
        for make in (MlmSequences, NextSentenceSequences):
            made = make(store, split.train, 128, seed=0)
            for epoch in (0, 1):
                made.slices(epoch, np.arange(1000) * (made.count(epoch) // 1000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12 * num_documents, f"{peak / num_documents:.1f} bytes a document"
