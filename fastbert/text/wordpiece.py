"""WordPiece encoding in Python: the readable twin of wordpiece.h, tokenizer.h and tokenizer_batch.h in csrc/text."""

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from fastbert.system.errors import InputError
from fastbert.text.encoding import kept_lengths
from fastbert.text.normalizer import Normalizer, NormalizerOptions

_SHOWN_CHARS = 60
_CACHE_LIMIT = 1 << 17


class Piece(NamedTuple):
    """A vocabulary entry that covers characters ``begin`` to ``end`` (exclusive) of a word."""

    id: int
    begin: int
    end: int


class WordPiece:
    """Greedy longest-match-first splitting of a normalized word.

    Args:
        vocab: entries in the order of their ids; duplicates get the last id.
        unk_id: id of [UNK]; negative if the vocabulary has none.
        max_chars: longer words become one [UNK].
    """

    def __init__(self, vocab: Sequence[str], unk_id: int, max_chars: int) -> None:
        self._ids = {entry: i for i, entry in enumerate(vocab) if entry}
        self._longest = max(map(len, self._ids), default=0)
        self._unk_id = unk_id
        self._max_chars = max_chars

    def split(self, word: str, *, continued: bool = False) -> list[Piece]:
        """Return the pieces of one word, or with ``continued`` of the end of one.

        Raises:
            InputError: the word cannot be spelled and there is no [UNK].
        """
        if len(word) > self._max_chars:
            return self._unknown(word)
        pieces: list[Piece] = []
        begin = 0
        while begin < len(word):
            prefix = "##" if begin or continued else ""
            for end in range(min(len(word), begin + self._longest), begin, -1):
                found = self._ids.get(prefix + word[begin:end])
                if found is not None:
                    pieces.append(Piece(found, begin, end))
                    begin = end
                    break
            else:
                return self._unknown(word)
        return pieces

    def _unknown(self, word: str) -> list[Piece]:
        if self._unk_id < 0:
            raise InputError(
                f"the vocabulary has no [UNK] and cannot spell the word {word[:_SHOWN_CHARS]!r}. "
                "Try: add a line [UNK] to vocab.txt"
            )
        return [Piece(self._unk_id, 0, len(word))]


class ReferenceTokenizer:
    """Converts text to ids, with the interface of ``fastbert._C.Tokenizer``.

    Args:
        vocab: entries in the order of their ids.
        unk_id: id of [UNK], negative for none.
        special_tokens: text -> id of the tokens recognized in raw text.
        options: normalization.
        max_input_chars_per_word: longer words become one [UNK].
    """

    def __init__(
        self,
        vocab: Sequence[str],
        unk_id: int,
        special_tokens: dict[str, int],
        options: NormalizerOptions,
        max_input_chars_per_word: int,
    ) -> None:
        self._normalizer = Normalizer(options)
        self._wordpiece = WordPiece(vocab, unk_id, max_input_chars_per_word)
        self._special_tokens = special_tokens
        # leftmost, then longest
        longest_first = sorted(special_tokens, key=len, reverse=True)
        self._special_pattern = (
            re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if longest_first else None
        )
        self._word_cache: dict[str, list[int]] = {}

    def _parts(self, text: str, split_special_tokens: bool) -> list[str]:
        """Plain text and special tokens alternately; only ``text`` if special tokens are not recognized."""
        if split_special_tokens or self._special_pattern is None:
            return [text]
        return self._special_pattern.split(text)

    def ids(self, text: str, split_special_tokens: bool) -> Iterator[int]:
        """Yield the ids of one text, without [CLS] and [SEP]."""
        cache = self._word_cache
        for i, part in enumerate(self._parts(text, split_special_tokens)):
            if i % 2:
                yield self._special_tokens[part]
                continue
            for word in self._normalizer.words(part):
                ids = cache.get(word)
                if ids is None:
                    if len(cache) >= _CACHE_LIMIT:
                        cache.clear()
                    cache[word] = ids = [piece.id for piece in self._wordpiece.split(word)]
                yield from ids

    def encode_aligned(
        self, text: str, split_special_tokens: bool
    ) -> tuple[list[int], list[int], list[int], list[int]]:
        """Return ids, begins, ends (characters of ``text``) and word ids, without [CLS] and [SEP]."""
        check_text(text)
        rows: list[tuple[int, int, int, int]] = []
        offset = word_id = 0
        for i, part in enumerate(self._parts(text, split_special_tokens)):
            if i % 2:
                rows.append((self._special_tokens[part], offset, offset + len(part), word_id))
                word_id += 1
            else:
                for word, sources in self._normalizer.aligned_words(part):
                    for piece in self._wordpiece.split(word):
                        begin, end = sources[piece.begin], sources[piece.end - 1] + 1
                        rows.append((piece.id, offset + begin, offset + end, word_id))
                    word_id += 1
            offset += len(part)
        ids, begins, ends, word_ids = zip(*rows, strict=True) if rows else ((), (), (), ())
        return list(ids), list(begins), list(ends), list(word_ids)

    def encode_texts(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        *,
        dtype: str,
        add_special_tokens: bool,
        split_special_tokens: bool,
        with_offsets: bool,
        strategy: str | None,
        max_length: int,
        truncate_left: bool,
        cls_id: int,
        sep_id: int,
        threads: int,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Return (ids, offsets, type ids or None, character offsets or None) of a batch; ``threads`` is ignored."""
        all_ids: list[int] = []
        type_ids: list[int] = []
        spans: list[tuple[int, int]] = []
        ends = [0]

        def frame(token_id: int, type_id: int) -> None:
            if add_special_tokens:
                all_ids.append(token_id)
                type_ids.append(type_id)
                spans.append((0, 0))

        for i, text in enumerate(texts):
            both = [text] if pairs is None else [text, pairs[i]]
            try:
                encoded = [self._rows(t, split_special_tokens, with_offsets) for t in both]
                kept = kept_lengths(
                    len(encoded[0][0]),
                    None if pairs is None else len(encoded[1][0]),
                    strategy=strategy,
                    max_length=max_length,
                    add_special_tokens=add_special_tokens,
                )
            except InputError as error:
                raise InputError(f"text {i}: {error}") from None
            frame(cls_id, 0)
            for type_id, ((ids, places), length) in enumerate(zip(encoded, kept, strict=False)):
                begin = len(ids) - length if truncate_left else 0
                all_ids += ids[begin : begin + length]
                spans += places[begin : begin + length]
                type_ids += [type_id] * length
                frame(sep_id, type_id)
            ends.append(len(all_ids))
        return (
            np.array(all_ids, dtype),
            np.array(ends, np.int64),
            None if pairs is None else np.array(type_ids, np.int32),
            np.array(spans, np.int32).reshape(-1, 2) if with_offsets else None,
        )

    def _rows(
        self, text: str, split_special_tokens: bool, with_offsets: bool
    ) -> tuple[list[int], list[tuple[int, int]]]:
        if with_offsets:
            ids, begins, ends, _ = self.encode_aligned(text, split_special_tokens)
            return ids, list(zip(begins, ends, strict=True))
        check_text(text)
        return list(self.ids(text, split_special_tokens)), []

    def encode_lines(self, data: bytes | memoryview, **options: object) -> tuple:
        """Encode each line of UTF-8 bytes; ill-formed bytes are read as U+FFFD."""
        lines = bytes(data).split(b"\n")
        if not lines[-1]:
            lines.pop()
        return self.encode_texts([line.decode("utf-8", errors="replace") for line in lines], None, **options)  # type: ignore[arg-type]

    def encode_spans(self, data: bytes | memoryview, bounds: np.ndarray, **options: object) -> tuple:
        """Encode the texts of UTF-8 bytes between two neighbours of ``bounds`` (B + 1,)."""
        raw = bytes(data)
        texts = [raw[a:b].decode("utf-8", errors="replace") for a, b in itertools.pairwise(bounds)]
        return self.encode_texts(texts, None, **options)  # type: ignore[arg-type]


def check_text(text: str) -> None:
    if not isinstance(text, str):
        raise InputError(f"expected str, got {type(text).__name__}")
    for i, char in enumerate(text) if not text.isascii() else ():
        if 0xD800 <= ord(char) < 0xE000:
            raise InputError(f"the text has a lone surrogate U+{ord(char):04X} at character {i}. Try: decode it again")
