"""Encodings, and the rules of Hugging Face tokenizers for truncating, framing and joining them.

[CLS] A [SEP] has type ids 0; in [CLS] A [SEP] B [SEP], B and the last [SEP] have type id 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastbert.system.errors import InputError

if TYPE_CHECKING:  # numpy takes longer to import than a line to encode: where it is needed, it is imported
    import numpy as np

STRATEGIES = ("longest_first", "only_first", "only_second")


@dataclass(frozen=True)
class Frame:
    """The ids of the special tokens around a text, and between the two of a pair."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]


@dataclass
class EncodedBatch:
    """B sequences as flat arrays.

    Attributes:
        input_ids: (T,) int32, or uint16 if requested.
        offsets: (B + 1,) int64; sequence i is ``input_ids[offsets[i]:offsets[i + 1]]``.
        token_type_ids: (T,) int32 for pairs, otherwise None.
        char_offsets: (T, 2) int32 with ``with_offsets=True``, otherwise None: begin and end in characters of the raw
            text, (0, 0) for added special tokens.
    """

    input_ids: np.ndarray
    offsets: np.ndarray
    token_type_ids: np.ndarray | None = None
    char_offsets: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        """The ids of one sequence, a view."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)}")
        index %= len(self)
        return self.input_ids[self.offsets[index] : self.offsets[index + 1]]

    @classmethod
    def concatenated(cls, batches: list[EncodedBatch]) -> EncodedBatch:
        """Concatenate at least one batch of single texts (without type ids)."""
        import numpy as np

        starts = np.cumsum([0, *(b.offsets[-1] for b in batches)])
        ends = [b.offsets[1:] + start for b, start in zip(batches, starts[:-1], strict=True)]
        spans = [b.char_offsets for b in batches if b.char_offsets is not None]
        return cls(
            np.concatenate([b.input_ids for b in batches]),
            np.concatenate([np.zeros(1, np.int64), *ends]),
            None,
            np.concatenate(spans) if spans else None,
        )


@dataclass
class Encoding:
    """The tokens of one text or pair; every list has one item per token, except ``overflowing``.

    Attributes:
        ids: vocabulary ids.
        type_ids: 0 for the first text, 1 for the second.
        tokens: vocabulary entries.
        offsets: (begin, end) in characters of the raw text; (0, 0) for added special tokens.
        word_ids: the index of the word in its text (punctuation characters and special tokens in the text count as
            words); None for added special tokens.
        special_tokens_mask: 1 for added special tokens.
        overflowing: the truncated rest, in parts of the same length that overlap by ``stride`` tokens.
    """

    ids: list[int] = field(default_factory=list)
    type_ids: list[int] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    offsets: list[tuple[int, int]] = field(default_factory=list)
    word_ids: list[int | None] = field(default_factory=list)
    special_tokens_mask: list[int] = field(default_factory=list)
    overflowing: list[Encoding] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def attention_mask(self) -> list[int]:
        """1 for every token, since there is no padding."""
        return [1] * len(self)

    def _slice(self, begin: int, end: int) -> Encoding:
        return Encoding(
            self.ids[begin:end],
            self.type_ids[begin:end],
            self.tokens[begin:end],
            self.offsets[begin:end],
            self.word_ids[begin:end],
            self.special_tokens_mask[begin:end],
        )

    def _truncate(self, length: int, stride: int, side: str) -> Encoding:
        """Keep ``length`` tokens and move the rest to ``overflowing``."""
        total = len(self)
        if length >= total:
            return self
        if length == 0:
            return Encoding(overflowing=[self])
        if stride >= length:
            raise InputError(
                f"stride={stride}: expected less than {length}, the tokens a text may keep (max_length minus the "
                "special tokens). Try: a smaller stride or a larger max_length"
            )
        step = length - stride
        parts = []
        if side == "right":
            for begin in range(0, total, step):
                parts.append((begin, min(begin + length, total)))
                if parts[-1][1] == total:
                    break
        else:
            for end in range(total, 0, -step):
                parts.append((max(end - length, 0), end))
                if parts[-1][0] == 0:
                    break
        first, *others = (self._slice(begin, end) for begin, end in parts)
        first.overflowing = others
        return first

    def _framed(self, before: list[tuple[int, str]], after: list[tuple[int, str]], type_id: int) -> Encoding:
        """Add special tokens (id, token) at both ends, here and in every overflowing part."""

        def added(value):  # type: ignore[no-untyped-def]
            return [value] * len(before), [value] * len(after)

        def wrap(values, pair):  # type: ignore[no-untyped-def]
            return [*pair[0], *values, *pair[1]]

        return Encoding(
            wrap(self.ids, ([i for i, _ in before], [i for i, _ in after])),
            wrap(self.type_ids, added(type_id)),
            wrap(self.tokens, ([t for _, t in before], [t for _, t in after])),
            wrap(self.offsets, added((0, 0))),
            wrap(self.word_ids, added(None)),
            wrap([0] * len(self), added(1)),
            [part._framed(before, after, type_id) for part in self.overflowing],
        )

    def _joined(self, other: Encoding) -> Encoding:
        """Append ``other``; the overflowing parts are all combinations, nested as in Hugging Face tokenizers."""
        overflowing = []
        for mine in self.overflowing:
            overflowing.append(mine._joined(other))
            overflowing += [mine._joined(theirs) for theirs in other.overflowing]
        overflowing += [self._joined(theirs) for theirs in other.overflowing]
        return Encoding(
            self.ids + other.ids,
            self.type_ids + other.type_ids,
            self.tokens + other.tokens,
            self.offsets + other.offsets,
            self.word_ids + other.word_ids,
            self.special_tokens_mask + other.special_tokens_mask,
            overflowing,
        )


def kept_lengths(
    first: int, second: int | None, *, strategy: str | None, max_length: int, add_special_tokens: bool
) -> tuple[int, int]:
    """The number of tokens that two texts keep when truncated (``second=None``: there is one text).

    Raises:
        InputError: the text to be truncated has too few tokens, or is missing.
    """
    n2 = second or 0
    added = (2 if second is None else 3) if add_special_tokens else 0
    # below `added` the budget wraps around in Hugging Face tokenizers, which then do not truncate
    if strategy is None or max_length < added:
        return first, n2
    budget = max_length - added
    if budget == 0:
        return 0, 0
    to_remove = first + n2 - budget
    if to_remove <= 0:
        return first, n2
    if strategy == "longest_first":
        if second is None:
            return budget, 0
        small = min(first, n2)
        large = small if small > budget else max(small, budget - small)
        if small + large > budget:
            small = budget // 2
            large = small + budget % 2
        return (large, small) if first > n2 else (small, large)
    if strategy == "only_second" and second is None:
        raise InputError("truncation='only_second' requires a pair, but there is one text")
    which, target = ("first", first) if strategy == "only_first" else ("second", n2)
    if target <= to_remove:
        raise InputError(
            f"the {which} text has {target} tokens, too few to remove {to_remove} for max_length={max_length}. "
            "Try: truncation='longest_first' or a larger max_length"
        )
    return (first - to_remove, n2) if which == "first" else (first, n2 - to_remove)


@dataclass(frozen=True)
class TruncationRule:
    """How to truncate: not at all if ``strategy`` is None; ``max_length`` includes special tokens."""

    strategy: str | None = None
    max_length: int = 0
    stride: int = 0
    side: str = "right"

    @classmethod
    def checked(
        cls, truncation: str | bool | None, max_length: int | None, stride: int = 0, side: str = "right"
    ) -> TruncationRule:
        """Validate the arguments; ``max_length`` alone means "longest_first", as does ``truncation=True``.

        Raises:
            InputError: an unknown strategy or side, a negative number, a missing length, or a stride too large.
        """
        if side not in ("left", "right"):
            raise InputError(f"truncation_side={side!r}: expected 'right' or 'left'")
        if truncation is False or truncation == "do_not_truncate" or (truncation is None and max_length is None):
            return cls(side=side)
        strategy = "longest_first" if truncation in (None, True) else truncation
        if strategy not in STRATEGIES:
            raise InputError(f"truncation={truncation!r}: expected True, False or one of {', '.join(STRATEGIES)}")
        if max_length is None:
            raise InputError(f"truncation={truncation!r} requires max_length, in tokens including special tokens")
        if max_length < 0 or stride < 0:
            raise InputError(f"max_length={max_length}, stride={stride}: expected at least 0")
        if 0 <= max_length - 2 < stride:
            raise InputError(
                f"stride={stride}: expected at most {max_length - 2}, which is max_length={max_length} minus [CLS] "
                "and [SEP]. Try: a smaller stride or a larger max_length"
            )
        return cls(str(strategy), max_length, stride, side)


def assemble(
    first: Encoding,
    second: Encoding | None,
    rule: TruncationRule,
    cls: tuple[int, str],
    sep: tuple[int, str],
    add: bool,
    second_type_id: int = 1,
) -> Encoding:
    """Truncate one or two encodings, add special tokens (``add``) and join them."""
    lengths = kept_lengths(
        len(first),
        None if second is None else len(second),
        strategy=rule.strategy,
        max_length=rule.max_length,
        add_special_tokens=add,
    )
    first = first._truncate(lengths[0], rule.stride, rule.side)
    if add:
        first = first._framed([cls], [sep], 0)
    if second is None:
        return first
    second = second._truncate(lengths[1], rule.stride, rule.side)
    if add:
        second = second._framed([], [sep], second_type_id)
    return first._joined(second)
