"""The questions about a few lines are all there is to ask, and their answers are the text's."""

import pytest

from fastbert.text import Tokenizer
from fastbert.training import memorization
from support import SPECIAL

VOCAB = [*SPECIAL, "bom", "dia", "va", "##mos", "sim"]
DOCUMENT = [[5, 6], [7, 8, 5], [9]]


@pytest.fixture
def tokenizer():
    return Tokenizer(VOCAB)


def rows_of(batch):
    """(ids, types, labels by place, follows) of each row."""
    labels = dict(zip(batch.masked_index.tolist(), batch.labels.tolist(), strict=True))
    for b, (start, stop) in enumerate(zip(batch.cu_seqlens[:-1].tolist(), batch.cu_seqlens[1:].tolist(), strict=True)):
        follows = None if batch.next_sentence_label is None else int(batch.next_sentence_label[b])
        places = {i - start: labels[i] for i in range(start, stop) if i in labels}
        yield batch.input_ids[start:stop].tolist(), batch.token_type_ids[start:stop].tolist(), places, follows


def test_every_word_is_hidden_once_alone(tokenizer):
    batch = memorization.questions([DOCUMENT], tokenizer, max_length=32, next_sentence=False)
    assert batch.next_sentence_label is None
    rows = list(rows_of(batch))
    assert [(ids, places) for ids, _, places, _ in rows] == [
        ([2, 4, 6, 3], {1: 5}),
        ([2, 5, 4, 3], {2: 6}),
        ([2, 4, 4, 5, 3], {1: 7, 2: 8}),  # a word of two pieces is hidden whole
        ([2, 7, 8, 4, 3], {3: 5}),
        ([2, 4, 3], {1: 9}),
    ]
    assert batch.position_ids.tolist()[:9] == [0, 1, 2, 3, 0, 1, 2, 3, 0] and batch.max_seqlen == 5


def test_pairs_are_asked_both_ways(tokenizer):
    rows = list(rows_of(memorization.questions([DOCUMENT], tokenizer, max_length=32, next_sentence=True)))
    asked = [(ids, types, follows) for ids, types, places, follows in rows if follows != -100]
    assert all(not places for *_, places, follows in rows if follows != -100)
    assert sorted(follows for *_, follows in asked) == [0, 0, 1, 1, 1, 1]
    assert ([2, 5, 6, 3, 7, 8, 5, 3], [0, 0, 0, 0, 1, 1, 1, 1], 0) in asked
    assert ([2, 7, 8, 5, 3, 5, 6, 3], [0, 0, 0, 0, 0, 1, 1, 1], 1) in asked
    beside = [ids for ids, types, places, _ in rows if places and 1 in types]
    assert len(beside) == 4 + 3, "each word of both neighbouring pairs"


def test_a_repeated_sentence_is_asked_once_and_without_contradiction(tokenizer):
    document = [[5], [6], [5], [9]]
    rows = list(rows_of(memorization.questions([document], tokenizer, max_length=32, next_sentence=True)))
    answers = {tuple(ids): follows for ids, _, _, follows in rows if follows != -100}
    assert answers[(2, 5, 3, 6, 3)] == 0 and answers[(2, 5, 3, 9, 3)] == 0 and answers[(2, 9, 3, 5, 3)] == 1
    assert len(answers) == 6


def test_documents_do_not_follow_each_other(tokenizer):
    rows = list(rows_of(memorization.questions([[[5]], [[6]]], tokenizer, max_length=32, next_sentence=True)))
    assert [follows for *_, follows in rows if follows != -100] == [1, 1]


def test_long_sentences_are_asked_in_windows(tokenizer):
    batch = memorization.questions([DOCUMENT], tokenizer, max_length=4, next_sentence=False)
    rows = [(ids, places) for ids, _, places, _ in rows_of(batch)]
    assert rows[2:] == [([2, 4, 4, 3], {1: 7, 2: 8}), ([2, 4, 3], {1: 5}), ([2, 4, 3], {1: 9})]
    batch = memorization.questions([DOCUMENT], tokenizer, max_length=3, next_sentence=False)
    assert batch.labels.tolist() == [5, 6, 7, 8, 5, 9], "a word longer than a window is cut"


def test_long_pairs_keep_the_tokens_beside_the_boundary(tokenizer):
    batch = memorization.questions([[[5, 6, 5, 7], [9, 5, 6]]], tokenizer, max_length=7, next_sentence=True)
    asked = {tuple(ids): follows for ids, *_, follows in rows_of(batch) if follows != -100}
    assert asked == {(2, 5, 7, 3, 9, 5, 3): 0, (2, 5, 6, 3, 5, 6, 3): 1}
    assert batch.max_seqlen == 7
    short = memorization.questions([[[5], [9, 5, 6]]], tokenizer, max_length=6, next_sentence=True)
    assert (2, 5, 3, 9, 5, 3) in {tuple(ids) for ids, *_, follows in rows_of(short) if follows != -100}


def test_without_a_word_there_are_no_questions(tokenizer):
    unknown = [[[tokenizer.unk_id] * 3]]
    assert memorization.questions(unknown, tokenizer, max_length=32, next_sentence=True) is None
    assert memorization.small_enough(10, 80) and not memorization.small_enough(10, 10_000)
