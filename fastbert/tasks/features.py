"""Examples as rows of token ids, with their targets and the mapping back to words and characters.

Legend: B rows, T packed tokens, P positions. Nothing is padded; long sentences and contexts become several rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastbert.batch import PackedBatch
from fastbert.system.errors import InputError
from fastbert.system.marks import spans_with_marks
from fastbert.tasks.examples import QuestionExample, TaggedExample, TextExample
from fastbert.text import Tokenizer
from fastbert.text.truncation import in_windows, num_truncated

Ints = NDArray[np.integer]


@dataclass
class Rows:
    """Model inputs: B rows of token ids and token types, and the targets of labelled examples."""

    ids: list[Ints] = field(default_factory=list)
    types: list[Ints] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.array([len(row) for row in self.ids], np.int64)

    def positions_of(self, chosen: Sequence[int]) -> Ints | None:
        """(P,) packed positions to predict; None: one per row, or all."""
        return None

    def targets_of(self, chosen: Sequence[int]) -> Tensor | None:
        """Targets of some rows; None without labels."""
        raise NotImplementedError

    def batch(self, chosen: Sequence[int]) -> PackedBatch:
        """Some rows as a packed batch."""
        lengths = np.array([len(self.ids[i]) for i in chosen], np.int64)
        bounds = np.concatenate([[0], lengths.cumsum()])
        positions = self.positions_of(chosen)
        return PackedBatch(
            input_ids=torch.from_numpy(np.concatenate([self.ids[i] for i in chosen]).astype(np.int64)),
            position_ids=torch.from_numpy(np.arange(bounds[-1]) - bounds[:-1].repeat(lengths)),
            token_type_ids=torch.from_numpy(np.concatenate([self.types[i] for i in chosen]).astype(np.int64)),
            cu_seqlens=torch.from_numpy(bounds.astype(np.int32)),
            max_seqlen=int(lengths.max()),
            masked_index=None if positions is None else torch.from_numpy(positions.astype(np.int64)),
        )

    def used_ids(self) -> Ints:
        """The distinct ids, ascending."""
        return np.unique(np.concatenate(self.ids)) if self.ids else np.zeros(0, np.int64)

    def renumber(self, new_ids: Ints) -> None:
        """Replace each id with its entry in ``new_ids`` (V,)."""
        self.ids = [new_ids[row] for row in self.ids]


# ---- texts and pairs ----
@dataclass
class TextRows(Rows):
    """A row per text or pair, or several windows of a long text; ``targets`` (B,) int64 classes or float32 numbers."""

    targets: NDArray | None = None
    truncated: int = 0  # examples that did not fit
    owners: NDArray[np.int64] | None = None  # (B,) the text of each window, ascending; None: a row for each

    def set_targets(self, targets: NDArray) -> None:
        """Give every row the target of its text."""
        self.targets = targets if self.owners is None else targets[self.owners]

    def of_texts(self, rows: NDArray) -> NDArray:
        """What the rows have, for each text once: of its first window."""
        return rows if self.owners is None else rows[np.flatnonzero(np.diff(self.owners, prepend=-1))]

    def mean_of_windows(self, rows: NDArray) -> NDArray:
        """(B, C) → the mean over the windows of each text."""
        if self.owners is None:
            return rows
        starts = np.flatnonzero(np.diff(self.owners, prepend=-1))
        return np.add.reduceat(rows, starts) / np.bincount(self.owners)[:, None]

    def targets_of(self, chosen: Sequence[int]) -> Tensor | None:
        return None if self.targets is None else torch.from_numpy(self.targets[list(chosen)])


def text_rows(
    examples: Sequence[TextExample], tokenizer: Tokenizer, max_length: int, windows: bool = False
) -> TextRows:
    """[CLS] text [SEP], or [CLS] text [SEP] pair [SEP]; the longer part is truncated, or a text split into windows.

    Raises:
        InputError: windows of pairs.
    """
    pairs = [(e.text, e.pair) for e in examples if e.pair is not None]
    if windows:
        if pairs:
            raise InputError("windows: only for single texts, not for pairs. Try: without")
        ids, owners = in_windows([e.text for e in examples], tokenizer, max_length)
        return TextRows([*ids], [np.zeros_like(row) for row in ids], owners=owners)
    texts: list = pairs or [e.text for e in examples]
    encoded = tokenizer.encode_batch(texts, max_length=max_length)
    truncated = num_truncated(texts, np.diff(encoded.offsets), tokenizer, max_length)
    cuts = encoded.offsets[1:-1]
    types = np.zeros_like(encoded.input_ids) if encoded.token_type_ids is None else encoded.token_type_ids
    return TextRows(np.split(encoded.input_ids, cuts), np.split(types, cuts), truncated=truncated)


# ---- words ----
@dataclass
class TokenRows(Rows):
    """Parts of sentences; each word is predicted at its first token, in exactly one row."""

    positions: list[Ints] = field(default_factory=list)  # in the row
    origins: list[tuple[int, int]] = field(default_factory=list)  # (example, word of the first position)
    targets: list[NDArray] | None = None  # label ids, aligned with positions
    truncated: int = 0  # words that are read only in part

    def positions_of(self, chosen: Sequence[int]) -> Ints:
        starts = np.cumsum([0, *(len(self.ids[i]) for i in chosen)])[:-1]
        return np.concatenate([self.positions[i] + start for i, start in zip(chosen, starts, strict=True)])

    def targets_of(self, chosen: Sequence[int]) -> Tensor | None:
        if self.targets is None:
            return None
        return torch.from_numpy(np.concatenate([self.targets[i] for i in chosen]))


def token_rows(
    examples: Sequence[TaggedExample], tokenizer: Tokenizer, max_length: int, labels: Sequence[Sequence[int]] | None
) -> TokenRows:
    """Words to tokens; a sentence that is too long continues in another row, which repeats some words for context."""
    words = [word for e in examples for word in e.tokens]
    encoded, frame = tokenizer.encode_words(words), tokenizer.frame
    room = max_length - len(frame.before) - len(frame.after)
    overlap, longest = room // 4, max(room // 2, 1)
    rows = TokenRows(targets=None if labels is None else [])
    first = 0  # index of the example's first word in the whole list
    for number, example in enumerate(examples):
        # a word whose characters are all removed has no token and gets [UNK], so that it has a tag; very long words
        # are truncated, since only the first token is predicted
        pieces = [encoded[first + i] for i in range(len(example.tokens))]
        rows.truncated += sum(len(row) > longest for row in pieces)
        pieces = [row[:longest] for row in pieces]
        pieces = [row if len(row) else np.array([tokenizer.unk_id]) for row in pieces]
        first += len(pieces)
        lengths = [len(row) for row in pieces]
        begin = 0
        while begin < len(pieces):
            context, size = begin, 0
            while context > 0 and size + lengths[context - 1] <= overlap:
                context -= 1
                size += lengths[context]
            end = begin
            while end < len(pieces) and size + lengths[end] <= room:
                size += lengths[end]
                end += 1
            inside = pieces[context:end]
            starts = np.cumsum([len(frame.before), *(len(row) for row in inside)])[:-1]
            row = np.concatenate([frame.before, *inside, frame.after]).astype(np.int64)
            rows.ids.append(row)
            rows.types.append(np.zeros_like(row))
            rows.positions.append(starts[begin - context :])
            rows.origins.append((number, begin))
            if rows.targets is not None and labels is not None:
                rows.targets.append(np.array(labels[number][begin:end], np.int64))
            begin = end
    return rows


# ---- questions ----
@dataclass
class SpanRows(Rows):
    """Windows of contexts; if the answer is not inside a window, its targets are 0, the [CLS]."""

    examples: list[int] = field(default_factory=list)  # of each row
    offsets: list[Ints] = field(default_factory=list)  # (L, 2) characters of the context, (-1, -1) outside of it
    targets: NDArray | None = None  # (B, 2) first and last token of the answer
    truncated: int = 0  # questions that are read only in part

    def answer_lengths(self) -> list[int]:
        """Tokens of every answer that is inside a window."""
        if self.targets is None:
            return []
        longest: dict[int, int] = {}
        for example, (first, last) in zip(self.examples, self.targets.tolist(), strict=True):
            if first:
                longest[example] = max(longest.get(example, 0), last - first + 1)
        return list(longest.values())

    def targets_of(self, chosen: Sequence[int]) -> Tensor | None:
        return None if self.targets is None else torch.from_numpy(self.targets[list(chosen)])


def span_rows(
    examples: Sequence[QuestionExample], tokenizer: Tokenizer, max_length: int, stride: int, labelled: bool
) -> SpanRows:
    """[CLS] question [SEP] window of the context [SEP]; windows overlap by ``stride`` tokens.

    Raises:
        InputError: a question leaves no room for its context.
    """
    questions = tokenizer.encode_batch([e.question for e in examples], add_special_tokens=False)
    contexts = tokenizer.encode_batch([e.context for e in examples], add_special_tokens=False, with_offsets=True)
    assert contexts.char_offsets is not None
    rows, frame = SpanRows(), tokenizer.frame
    between = len(frame.before) + len(frame.between)
    targets: list[tuple[int, int]] = []
    for number, example in enumerate(examples):
        question = questions[number][: max(max_length // 2, 1)]
        rows.truncated += len(question) < len(questions[number])
        ids = contexts[number]
        chars = contexts.char_offsets[contexts.offsets[number] : contexts.offsets[number + 1]]
        if not example.context.isascii() and len(chars):
            chars = np.array(spans_with_marks(example.context, chars.tolist()))
        room = max_length - len(question) - between - len(frame.after)
        if room < 1:
            raise InputError(f"{example.where}: max_length {max_length} leaves the context no room. Try: a larger one")
        overlap = min(stride, room // 2)
        head = len(question) + between
        for begin in range(0, max(len(ids) - overlap, 1), room - overlap):
            window = ids[begin : begin + room]
            row = np.concatenate([frame.before, question, frame.between, window, frame.after])
            positions = np.full((len(row), 2), -1, np.int64)
            positions[head : head + len(window)] = chars[begin : begin + room]
            rows.ids.append(row.astype(np.int64))
            rows.types.append((np.arange(len(row)) >= head) * np.int64(tokenizer.second_type_id))
            rows.examples.append(number)
            rows.offsets.append(positions)
            targets.append(_answer_tokens(example, positions) if labelled else (0, 0))
    if labelled:
        rows.targets = np.array(targets, np.int64).reshape(-1, 2)
    return rows


def _answer_tokens(example: QuestionExample, positions: Ints) -> tuple[int, int]:
    """First and last token of the first answer; (0, 0) if it is not completely inside the window."""
    if not example.answers:
        return 0, 0
    text, start = example.answers[0]
    end = start + len(text)
    inside = np.flatnonzero((positions[:, 0] >= 0) & (positions[:, 1] > start) & (positions[:, 0] < end))
    if not len(inside):
        return 0, 0
    first, last = int(inside[0]), int(inside[-1])
    context = np.flatnonzero(positions[:, 0] >= 0)
    cut_left = first == context[0] and positions[first, 0] > start
    cut_right = last == context[-1] and positions[last, 1] < len(example.context[:end].rstrip())
    return (0, 0) if cut_left or cut_right else (first, last)
