"""fastbert.data.split_documents: held out by document, a pure function of the lengths and the seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastbert.data import split_documents
from fastbert.system.errors import InputError


class Store:
    """Only the offsets of a store; ``documents`` are lists of sentence lengths."""

    def __init__(self, documents):
        sentences = [length for document in documents for length in document]
        self.sentence_offsets = np.concatenate([[0], np.cumsum(sentences)]).astype(np.int64)
        firsts = np.concatenate([[0], np.cumsum([len(document) for document in documents])]).astype(np.int64)
        self.document_offsets = self.sentence_offsets[firsts]
        self.num_tokens = int(self.sentence_offsets[-1])
        self.spans = np.stack([firsts[:-1], firsts[1:]], axis=1)

    def tokens(self, spans):
        return int((self.sentence_offsets[spans[:, 1]] - self.sentence_offsets[spans[:, 0]]).sum())


def check(store, split):
    """Shapes, order, and that the two parts are exactly the store, each document's rest included."""
    assert len(split.train) == len(np.asarray(split.train))
    for spans in (np.asarray(split.train), split.heldout):
        assert spans.dtype == np.int64 and spans.ndim == 2 and spans.shape[1] == 2
        assert (spans[:, 0] < spans[:, 1]).all() and (np.diff(spans[:, 0]) > 0).all()
    both = np.concatenate([split.train, split.heldout])
    both = both[np.argsort(both[:, 0])]
    assert both[0, 0] == 0 and both[-1, 1] == len(store.sentence_offsets) - 1
    assert (both[1:, 0] == both[:-1, 1]).all()
    assert set(store.spans[:, 0]) <= set(both[:, 0])  # no span crosses a document's end
    assert len(split.train)


def many(count, seed=0):
    random = np.random.default_rng(seed)
    return Store([random.integers(1, 60, random.integers(1, 9)).tolist() for _ in range(count)])


@pytest.mark.parametrize("fraction", [0.01, 0.05, 0.3])
def test_fraction_of_the_tokens_by_whole_documents(fraction):
    store = many(2000)
    split = split_documents(store, fraction)
    check(store, split)
    documents = {tuple(span) for span in store.spans.tolist()}
    assert {tuple(span) for span in np.concatenate([split.train, split.heldout]).tolist()} == documents
    assert 1 <= store.tokens(split.heldout) / (fraction * store.num_tokens) <= 1.25
    assert split.reason == ""


def test_at_most_max_tokens():
    store = many(5000)
    split = split_documents(store, 0.5, max_tokens=4000)
    check(store, split)
    assert 4000 <= store.tokens(split.heldout) <= 5000


def test_same_seed_same_split_and_other_seed_another():
    store = many(500)
    splits = [split_documents(store, seed=seed).heldout.tolist() for seed in (0, 0, 1, 2**64 - 1)]
    assert splits[0] == splits[1] and len({str(s) for s in splits}) == 3


def test_choice_is_spread_over_the_text():
    store = many(4000)
    places = np.concatenate([split_documents(store, seed=s).heldout[:, 0] for s in range(10)])
    quarters = np.histogram(places, bins=4, range=(0, len(store.sentence_offsets)))[0]
    assert quarters.min() > 0.8 * quarters.mean()


def test_known_answer():
    """Resuming a run must give the split that it began with, also with a later version."""
    store = Store([[100]] * 40)
    assert split_documents(store).heldout[:, 0].tolist() == [3, 19]


def test_large_documents_are_passed_over():
    store = Store([[500] * 100] + [[10] * 5] * 400)
    for seed in range(20):
        split = split_documents(store, 0.1, seed=seed)
        check(store, split)
        assert split.train[0].tolist() == [0, 100]
        assert 0.1 <= store.tokens(split.heldout) / store.num_tokens <= 0.125


def test_two_documents():
    store = Store([[50] * 90, [50] * 10])
    split = split_documents(store)
    assert split.heldout.tolist() == [[90, 100]] and split.train[:].tolist() == [[0, 90]] and split.reason == ""


def test_two_equal_documents_hold_the_end_of_one_out():
    store = Store([[50] * 50, [50] * 50])
    split = split_documents(store)
    check(store, split)
    assert split.heldout.tolist() == [[45, 50]] and "too large" in split.reason


def test_scraps_beside_large_documents_are_not_the_examination():
    store = Store([[3], [50] * 400, [50] * 400, [2]])
    split = split_documents(store)
    check(store, split)
    assert store.tokens(split.heldout) == 2050 or store.tokens(split.heldout) == 2000


def test_one_document_holds_its_last_sentences_out():
    store = Store([[10] * 1000])
    split = split_documents(store)
    check(store, split)
    assert split.heldout.tolist() == [[950, 1000]] and split.train[:].tolist() == [[0, 950]]
    assert "one document" in split.reason and "50 lines" in split.reason


@pytest.mark.parametrize("documents", [[[1999]], [[10] * 199], [[10]] * 199])
def test_tiny_corpus_is_evaluated_on_itself(documents):
    store = Store(documents)
    split = split_documents(store)
    check(store, split)
    assert split.heldout.shape == (0, 2) and "only 1,99" in split.reason and len(split.train) == len(documents)


@pytest.mark.parametrize("documents", [[[5000]], [[5000], [6000]], [[3000, 3000]]])
def test_lines_that_are_too_large(documents):
    store = Store(documents)
    split = split_documents(store)
    check(store, split)
    assert split.heldout.shape == (0, 2) and "too large" in split.reason


def test_nothing_asked_for():
    split = split_documents(many(500), 0)
    assert split.heldout.shape == (0, 2) and split.reason


@pytest.mark.parametrize("options", [{"fraction": 1.0}, {"fraction": -0.1}, {"fraction": np.nan}, {"max_tokens": -1}])
def test_bad_options(options):
    with pytest.raises(InputError, match="held-out"):
        split_documents(many(50), **options)


sizes = st.one_of(st.integers(1, 10), st.integers(1, 3000))


@given(
    st.lists(st.lists(sizes, min_size=1, max_size=6), min_size=1, max_size=30),
    st.floats(0, 0.99),
    st.integers(0, 20_000),
    st.integers(0, 2**64 - 1),
)
def test_any_text_and_options(documents, fraction, max_tokens, seed):
    store = Store(documents)
    split = split_documents(store, fraction, max_tokens, seed)
    check(store, split)
    held, target = store.tokens(split.heldout), min(fraction * store.num_tokens, max_tokens)
    assert held <= max(1.25 * target, 0.2 * store.num_tokens) + 1
    if not held:
        assert split.reason
