"""Windows of running text and next-sentence pairs: what they cover, where they come from, how often."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_store import MemoryStore

from fastbert.data.batches.philox import EVALUATION_EPOCH
from fastbert.data.batches.sequences import MIN_EXAMPLES, MlmSequences, NextSentenceSequences, _longest_first
from fastbert.system.errors import InputError


def make_store(seed, num_documents, longest_document=30, longest_sentence=25):
    """Every token is its own position, so that a token says where it is from."""
    rng = np.random.default_rng(seed)
    documents, at = [], 0
    for _ in range(num_documents):
        sizes = rng.integers(1, longest_sentence + 1, rng.integers(1, longest_document + 1)).tolist()
        documents.append([])
        for size in sizes:
            documents[-1].append(list(range(at, at + size)))
            at += size
    return MemoryStore(documents)


def document_of(store, tokens):
    return np.searchsorted(store.document_offsets, tokens, side="right") - 1


def sentence_of(store, tokens):
    return np.searchsorted(store.sentence_offsets, tokens, side="right") - 1


def all_pieces(sequences, epoch):
    return sequences.slices(epoch, np.arange(sequences.count(epoch)))


# ---- windows ----


@pytest.mark.parametrize("epoch", [0, 1, 7, EVALUATION_EPOCH])
@pytest.mark.parametrize("max_length", [8, 17, 128])
def test_windows_cover_every_token_once(epoch, max_length):
    store = make_store(0, 40)
    sequences = MlmSequences(store, store.spans, max_length, seed=3)
    slices = all_pieces(sequences, epoch)
    covered = store.gather(slices.start_a, slices.length_a)
    assert np.array_equal(covered, store.tokens)  # in the order of the text
    assert slices.lengths.max() <= max_length and slices.length_a.min() >= 1
    assert not slices.length_b.any() and (slices.label == -100).all()
    assert np.array_equal(
        document_of(store, slices.start_a), document_of(store, slices.start_a + slices.length_a - 1)
    )  # no window holds two documents


def test_windows_take_only_the_split():
    store = make_store(1, 20)
    spans = store.spans[::3]
    spans = np.concatenate([spans, [[spans[0, 1], spans[0, 1]]]])  # and an empty one
    slices = all_pieces(MlmSequences(store, spans, 16, seed=0), 2)
    covered = store.gather(slices.start_a, slices.length_a)
    assert np.array_equal(covered, store.tokens[document_of(store, store.tokens) % 3 == 0])


def test_windows_differ_between_epochs_and_short_documents_stay_whole():
    store = MemoryStore([[list(range(1000))], [list(range(20))]])
    sequences = MlmSequences(store, store.spans, 102, seed=0)
    assert np.array_equal(all_pieces(sequences, 0).length_a, [100] * 10 + [20])
    assert np.array_equal(all_pieces(sequences, EVALUATION_EPOCH).start_a, all_pieces(sequences, 0).start_a)
    firsts = [int(all_pieces(sequences, epoch).length_a[0]) for epoch in range(1, 400)]
    assert set(firsts) <= set(range(1, 101)) and len(set(firsts)) > 90
    assert abs(np.mean(firsts) - 50.5) < 5 * 29 / np.sqrt(len(firsts))
    assert all(all_pieces(sequences, epoch).length_a[-1] == 20 for epoch in range(1, 20))


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=6), min_size=1, max_size=8),
    max_length=st.integers(8, 50),
    epoch=st.integers(0, 5),
    seed=st.integers(0, 2**64 - 1),
)
def test_windows_of_any_text(sizes, max_length, epoch, seed):
    store = MemoryStore([[[7] * n for n in document] for document in sizes])
    sequences = MlmSequences(store, store.spans, max_length, seed)
    slices = all_pieces(sequences, epoch)
    ends = slices.start_a + slices.length_a
    assert slices.start_a[0] == 0 and ends[-1] == store.num_tokens and np.array_equal(ends[:-1], slices.start_a[1:])
    assert (slices.lengths <= max_length).all() and (slices.length_a >= 1).all()
    assert set(store.document_offsets[1:]) <= set(ends)


# ---- next sentences ----


def test_pairs_statistics():
    """One single in five, half of the pairs random, half of all long; the first sentence of A is the example's own."""
    store = make_store(2, 1500, longest_sentence=6)
    sequences = NextSentenceSequences(store, store.spans, 128, seed=1)
    slices = all_pieces(sequences, 0)
    n = len(slices.label)
    assert n == len(store.sentence_offsets) - 1
    last = np.zeros(n, bool)
    last[store.spans[:, 1] - 1] = True
    assert set(slices.label[last].tolist()) == {-100, 1}, "nothing follows the last sentence of a document"
    assert np.array_equal(slices.length_b == 0, slices.label == -100)
    free = int((~last).sum())
    single = (slices.label[~last] == -100).mean()
    assert abs(single - 0.2) < 5 * np.sqrt(0.2 * 0.8 / free)
    pairs = (slices.label >= 0) & ~last
    assert abs(slices.label[pairs].mean() - 0.5) < 5 * np.sqrt(0.25 / pairs.sum())
    own = np.diff(store.sentence_offsets)
    short = (slices.label == 0) & (slices.length_a == own) & (slices.length_b == np.append(own[1:], 0))
    # a long pair can look short when its run is two sentences: at most where the document ends right after
    assert 0.5 - 0.02 < short.sum() / (slices.label == 0).sum() < 0.5 + 0.1
    assert np.array_equal(slices.start_a[slices.lengths < 128], store.sentence_offsets[:-1][slices.lengths < 128])


@pytest.mark.parametrize("max_length", [8, 32, 128])
def test_pairs_come_from_where_they_say(max_length):
    store = make_store(3, 120)
    sequences = NextSentenceSequences(store, store.spans, max_length, seed=5)
    seen = {0: 0, 1: 0, -100: 0}
    for epoch in (0, 1):
        slices = all_pieces(sequences, epoch)
        assert (slices.lengths <= max_length).all() and (slices.length_a >= 1).all()
        for a, la, b, lb, label in zip(
            *(x.tolist() for x in (slices.start_a, slices.length_a, slices.start_b, slices.length_b, slices.label)),
            strict=True,
        ):
            seen[label] += 1
            documents_a = set(document_of(store, np.arange(a, a + la)))
            assert len(documents_a) == 1
            if label == -100:
                assert lb == 0
                continue
            documents_b = set(document_of(store, np.arange(b, b + lb)))
            assert lb >= 1 and len(documents_b) == 1
            if label == 1:
                assert documents_a != documents_b
            else:
                assert documents_a == documents_b
                # B's first sentence is the one after A's last (parts may be cut off at both ends of each)
                if la + lb + 3 < max_length:
                    assert a + la == b
                else:
                    assert sentence_of(store, b) >= sentence_of(store, a + la - 1)
    assert min(seen.values()) > 20


def test_long_pairs_fill_the_sequence():
    """Half of the examples are long, and those of a document of 200 sentences full but for the last ten or so."""
    store = MemoryStore([[[5] * 6] * 200] * 30)
    slices = all_pieces(NextSentenceSequences(store, store.spans, 64, seed=5), 0)
    full = (slices.lengths == 64).mean()
    assert 0.5 * 0.93 - 5 * np.sqrt(0.25 / 6000) < full < 0.5 + 5 * np.sqrt(0.25 / 6000)


def test_random_segments_come_evenly_from_the_other_documents():
    """By document, whatever its size: chi-square over 20 documents."""
    rng = np.random.default_rng(0)
    store = MemoryStore([[[1, 2, 3]] * int(rng.integers(2, 60)) for _ in range(20)])
    sequences = NextSentenceSequences(store, store.spans, 32, seed=9)
    counts = np.zeros(20)
    own_share = np.zeros(20)
    for epoch in range(40):
        slices = all_pieces(sequences, epoch)
        random = slices.label == 1
        counts += np.bincount(document_of(store, slices.start_b[random]), minlength=20)
        own_share += np.bincount(document_of(store, slices.start_a[random]), minlength=20)
    expected = (own_share.sum() - own_share) / 19
    assert ((counts - expected) ** 2 / expected).sum() < 20 + 5 * np.sqrt(40)


def test_two_parts_of_one_document_are_not_two_documents():
    store = make_store(5, 3, longest_document=40)
    (first, end), *others = store.spans.tolist()
    middle = (first + end) // 2
    spans = np.array([others[0], [middle, end], others[1], [first, middle]])
    slices = all_pieces(NextSentenceSequences(store, spans, 48, seed=0), 0)
    random = slices.label == 1
    assert random.any()
    assert (document_of(store, slices.start_a[random]) != document_of(store, slices.start_b[random])).all()


def test_one_document_only():
    """The fallback: B is a sentence that is not in A and does not follow it."""
    store = make_store(6, 1, longest_document=30, longest_sentence=8)
    num_sentences = len(store.sentence_offsets) - 1
    assert num_sentences > 4
    sequences = NextSentenceSequences(store, store.spans, 64, seed=2)
    labels = []
    for epoch in range(60):
        slices = all_pieces(sequences, epoch)
        last = np.arange(len(slices.label)) % num_sentences == num_sentences - 1
        assert set(slices.label[last].tolist()) <= {-100, 1}, "nothing follows the last sentence"
        labels += slices.label[~last].tolist()
        random = np.flatnonzero((slices.label == 1) & (slices.lengths < 64))
        for i in random.tolist():
            a, b = slices.start_a[i], slices.start_b[i]
            in_a = set(sentence_of(store, np.arange(a, a + slices.length_a[i])))
            in_b = sorted(set(sentence_of(store, np.arange(b, b + slices.length_b[i]))))
            assert not in_a & set(in_b) and in_b[0] != max(in_a) + 1
    labels = np.array(labels)
    pairs = labels[labels >= 0]
    assert abs(pairs.mean() - 0.5) < 5 * np.sqrt(0.25 / len(pairs))


def test_smallest_texts():
    """One sentence: singles only. Two sentences: after the first comes the second, after the second never the first."""
    one = NextSentenceSequences(MemoryStore([[[5, 6]]]), np.array([[0, 1]]), 8, seed=0)
    two = NextSentenceSequences(MemoryStore([[[5, 6], [7]]]), np.array([[0, 2]]), 8, seed=0)
    for epoch in range(30):
        assert all_pieces(one, epoch).label.tolist() == [-100] * MIN_EXAMPLES
        labels = all_pieces(two, epoch).label
        assert set(labels[::2].tolist()) <= {-100, 0} and set(labels[1::2].tolist()) <= {-100, 1}


def test_a_long_sentence_is_seen_whole_over_the_epochs():
    store = MemoryStore([[list(range(100))], [[0]]])
    sequences = NextSentenceSequences(store, store.spans, 12, seed=0)
    seen = set()
    for epoch in range(300):
        slices = sequences.slices(epoch, np.array([0]))
        seen |= set(store.gather(slices.start_a, slices.length_a).tolist())
    assert seen == set(range(100))


@given(a=st.integers(0, 100), b=st.integers(0, 100), budget=st.integers(5, 120))
def test_longest_first(a, b, budget):
    """As taking one token after the other from the longer, from the second of equals."""
    expected_a, expected_b = a, b
    while expected_a + expected_b > budget:
        if expected_a > expected_b:
            expected_a -= 1
        else:
            expected_b -= 1
    got = _longest_first(np.array([a]), np.array([b]), np.array([budget]))
    assert [int(x[0]) for x in got] == [expected_a, expected_b]


# ---- both ----


@pytest.mark.parametrize("kind", [MlmSequences, NextSentenceSequences])
def test_any_sequence_can_be_asked_for_alone(kind):
    store = make_store(7, 50)
    sequences, again = kind(store, store.spans, 40, seed=4), kind(store, store.spans, 40, seed=4)
    for epoch in (0, 3):
        whole = all_pieces(sequences, epoch)
        pick = np.random.default_rng(0).permutation(sequences.count(epoch))[:60]
        some = again.slices(epoch, pick)
        for name in ("start_a", "length_a", "start_b", "length_b", "label"):
            assert np.array_equal(getattr(some, name), getattr(whole, name)[pick]), name


@pytest.mark.parametrize("kind", [MlmSequences, NextSentenceSequences])
def test_errors(kind):
    store = make_store(8, 3)
    with pytest.raises(InputError, match="max_length=7: expected at least 8"):
        kind(store, store.spans, 7, seed=0)
    with pytest.raises(InputError, match="no tokens"):
        kind(store, np.zeros((0, 2), np.int64), 8, seed=0)
    with pytest.raises(InputError, match="no tokens"):
        kind(store, np.array([[1, 1]]), 8, seed=0)
    with pytest.raises(ValueError, match="sentences from 0 to"):
        kind(store, np.array([[0, 10_000]]), 8, seed=0)
    with pytest.raises(ValueError, match=r"\(K, 2\)"):
        kind(store, np.array([0, 1]), 8, seed=0)
    with pytest.raises(ValueError, match="seed"):
        kind(store, store.spans, 8, seed=-1)


def test_memory_store_refuses_empty_sentences():
    with pytest.raises(ValueError, match="empty"):
        MemoryStore([[[1], []]])


def test_few_sentences_give_many_different_pairs():
    store = MemoryStore([[[5, 6], [7, 8], [9], [10, 11], [12]]])
    sequences = NextSentenceSequences(store, store.spans, 16, seed=0)
    slices = all_pieces(sequences, 0)
    assert sequences.count(0) == len(slices.label) == 260  # the first multiple of five from 256 on
    short = (slices.length_a <= 2) & (slices.length_b > 0) & (slices.length_b <= 2)
    pairs = {(a, b) for a, b in zip(slices.start_a[short].tolist(), slices.start_b[short].tolist(), strict=True)}
    assert len(pairs) >= 15, "of the twenty ordered pairs of different sentences"
