"""A text of a few lines cannot be split into training and held-out text; it can be learned by heart, and checked.

The questions are exhaustive: every word of every sentence hidden in turn, alone and beside its neighbour, and, for the
next-sentence objective, every ordered pair of sentences.
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
    places: list[int]  # hidden positions
    labels: list[int]
    follows: int = -100  # 0 B follows A, 1 it does not, -100 not asked


def small_enough(num_sentences: int, num_tokens: int) -> bool:
    """Whether asking everything costs no more than a training step or two."""
    return num_sentences <= MAX_SENTENCES and num_tokens <= MAX_TOKENS


def questions(
    documents: Sequence[Sequence[Sequence[int]]], tokenizer: Tokenizer, *, max_length: int, next_sentence: bool
) -> PackedBatch | None:
    """Every question about a text, as one packed batch with labels; None where no word can be hidden (all [UNK]).

    Args:
        documents: documents of sentences of token ids, without special tokens.
        tokenizer: for the special tokens and word boundaries.
        max_length: a longer sentence is cut into windows between words, a longer pair at its outer ends.
        next_sentence: also ask whether B follows A, for every ordered pair of sentences.
    """
    rows: list[_Row] = []
    for document in documents:
        for sentence in document:
            for window in _windows(sentence, max_length - 2, tokenizer):
                rows += _hide_each_word(_lay(tokenizer, window), tokenizer)
        if next_sentence:
            for first, second in pairwise(document):
                rows += _hide_each_word(_pair(tokenizer, first, second, max_length), tokenizer)
    if not rows:
        return None
    if next_sentence:
        rows += _all_pairs(documents, tokenizer, max_length)
    return _pack(rows, next_sentence)


def _windows(sentence: Sequence[int], width: int, tokenizer: Tokenizer) -> Iterator[Sequence[int]]:
    """The sentence in parts of at most ``width`` tokens; a word is cut only where it fills a whole part."""
    start = 0
    while start < len(sentence):
        stop = end = min(start + width, len(sentence))
        while start < stop < len(sentence) and tokenizer.is_continuation[sentence[stop]]:
            stop -= 1
        stop = end if stop == start else stop
        yield sentence[start:stop]
        start = stop


def _lay(tokenizer: Tokenizer, first: Sequence[int], second: Sequence[int] | None = None) -> _Row:
    ids = [tokenizer.cls_id, *first, tokenizer.sep_id]
    types = [0] * len(ids)
    if second is not None:
        ids += [*second, tokenizer.sep_id]
        types += [1] * (len(second) + 1)
    return _Row(ids, types, [], [])


def _pair(tokenizer: Tokenizer, first: Sequence[int], second: Sequence[int], max_length: int) -> _Row:
    """[CLS] first [SEP] second [SEP]; where that is too long, the tokens beside the boundary stay."""
    space = max_length - 3
    kept = min(len(first), max(space - len(second), space // 2))
    return _lay(tokenizer, first[len(first) - kept :], second[: space - kept])


def _hide_each_word(row: _Row, tokenizer: Tokenizer) -> list[_Row]:
    """One copy for each word, all its pieces hidden."""
    special = set(tokenizer.special_ids)
    words: list[list[int]] = []
    for place, token in enumerate(row.ids):
        if token in special:
            continue
        if words and tokenizer.is_continuation[token] and words[-1][-1] == place - 1:
            words[-1].append(place)
        else:
            words.append([place])
    copies = []
    for word in words:
        ids = list(row.ids)
        for place in word:
            ids[place] = tokenizer.mask_id
        copies.append(_Row(ids, row.types, word, [row.ids[place] for place in word]))
    return copies


def _all_pairs(documents: Sequence[Sequence[Sequence[int]]], tokenizer: Tokenizer, max_length: int) -> list[_Row]:
    sentences = [(d, s, ids) for d, document in enumerate(documents) for s, ids in enumerate(document)]
    # a sentence said twice has no single answer to what follows it
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
        masked_index=torch.tensor([s + p for s, row in zip(starts.tolist(), rows, strict=True) for p in row.places]),
        labels=torch.tensor([label for row in rows for label in row.labels]),
        next_sentence_label=torch.tensor([row.follows for row in rows]) if next_sentence else None,
    )
