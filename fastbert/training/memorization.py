"""Texts small enough to memorize: too short for a held-out part, so the model is checked on the training text itself.

The check is exhaustive: each word of each sentence is masked in turn, and for the next-sentence objective also in each
pair of consecutive sentences, and every ordered pair of sentences is classified.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from fastbert.batch import PackedBatch
from fastbert.text import Tokenizer

MAX_SENTENCES = 48
MAX_TOKENS = 600


@dataclass
class _Row:
    ids: list[int]
    types: list[int]
    positions: list[int]  # of masked tokens
    labels: list[int]
    follows: int = -100  # 0: B follows A, 1: it does not, -100: no label


def small_enough(num_sentences: int, num_tokens: int) -> bool:
    """Whether the exhaustive check costs no more than a training step or two."""
    return num_sentences <= MAX_SENTENCES and num_tokens <= MAX_TOKENS


def questions(
    documents: Sequence[Sequence[Sequence[int]]], tokenizer: Tokenizer, *, max_length: int, next_sentence: bool
) -> PackedBatch | None:
    """The exhaustive check as one packed batch with labels; None if there is no word to mask (all [UNK]).

    Args:
        documents: documents of sentences of token ids, without special tokens.
        tokenizer: for the special tokens and word boundaries.
        max_length: longer sentences are cut into windows at word boundaries, longer pairs at their outer ends.
        next_sentence: also classify every ordered pair of sentences.
    """
    rows: list[_Row] = []
    for document in documents:
        for sentence in document:
            for window in _windows(sentence, max_length - 2, tokenizer):
                rows += _mask_each_word(_with_special_tokens(tokenizer, window), tokenizer)
        if next_sentence:
            for first, second in pairwise(document):
                rows += _mask_each_word(_pair(tokenizer, first, second, max_length), tokenizer)
    if not rows:
        return None
    if next_sentence:
        rows += _all_pairs(documents, tokenizer, max_length)
    return _pack(rows, next_sentence)


def _windows(sentence: Sequence[int], width: int, tokenizer: Tokenizer) -> Iterator[Sequence[int]]:
    """The sentence in parts of at most ``width`` tokens; only a word longer than that is cut."""
    start = 0
    while start < len(sentence):
        stop = end = min(start + width, len(sentence))
        while start < stop < len(sentence) and tokenizer.is_continuation[sentence[stop]]:
            stop -= 1
        stop = end if stop == start else stop
        yield sentence[start:stop]
        start = stop


def _with_special_tokens(tokenizer: Tokenizer, first: Sequence[int], second: Sequence[int] | None = None) -> _Row:
    ids = [tokenizer.cls_id, *first, tokenizer.sep_id]
    types = [0] * len(ids)
    if second is not None:
        ids += [*second, tokenizer.sep_id]
        types += [1] * (len(second) + 1)
    return _Row(ids, types, [], [])


def _pair(tokenizer: Tokenizer, first: Sequence[int], second: Sequence[int], max_length: int) -> _Row:
    """[CLS] first [SEP] second [SEP]; if that is too long, the tokens next to the boundary stay."""
    space = max_length - 3
    kept = min(len(first), max(space - len(second), space // 2))
    return _with_special_tokens(tokenizer, first[len(first) - kept :], second[: space - kept])


def _mask_each_word(row: _Row, tokenizer: Tokenizer) -> list[_Row]:
    """One copy for each word, with all its pieces masked."""
    special = set(tokenizer.special_ids)
    words: list[list[int]] = []
    for position, token in enumerate(row.ids):
        if token in special:
            continue
        if words and tokenizer.is_continuation[token] and words[-1][-1] == position - 1:
            words[-1].append(position)
        else:
            words.append([position])
    copies = []
    for word in words:
        ids = list(row.ids)
        for position in word:
            ids[position] = tokenizer.mask_id
        copies.append(_Row(ids, row.types, word, [row.ids[position] for position in word]))
    return copies


def _all_pairs(documents: Sequence[Sequence[Sequence[int]]], tokenizer: Tokenizer, max_length: int) -> list[_Row]:
    sentences = [(d, s, ids) for d, document in enumerate(documents) for s, ids in enumerate(document)]
    # the successor of a repeated sentence is ambiguous
    texts = [tuple(ids) for _, _, ids in sentences]
    following = {(texts[i], texts[i + 1]) for i, (d, _, _) in enumerate(sentences[:-1]) if sentences[i + 1][0] == d}
    rows = []
    for first in dict.fromkeys(texts):
        for second in dict.fromkeys(texts):
            if first != second:
                row = _pair(tokenizer, first, second, max_length)
                row.follows = 0 if (first, second) in following else 1
                rows.append(row)
    return rows


def _pack(rows: list[_Row], next_sentence: bool) -> PackedBatch:
    lengths = torch.tensor([len(row.ids) for row in rows])
    starts = lengths.cumsum(0) - lengths
    return PackedBatch(
        input_ids=torch.tensor([i for row in rows for i in row.ids]),
        position_ids=torch.cat([torch.arange(len(row.ids)) for row in rows]),
        token_type_ids=torch.tensor([t for row in rows for t in row.types]),
        cu_seqlens=torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32),
        max_seqlen=int(lengths.max()),
        masked_index=torch.tensor([s + p for s, row in zip(starts.tolist(), rows, strict=True) for p in row.positions]),
        labels=torch.tensor([label for row in rows for label in row.labels]),
        next_sentence_label=torch.tensor([row.follows for row in rows]) if next_sentence else None,
    )
