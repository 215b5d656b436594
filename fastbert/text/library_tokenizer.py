"""Tokenizers of other kinds, run by Hugging Face's `tokenizers` behind the interface of our own.

Byte-level BPE (RoBERTa, ModernBERT), Unigram (XLM-RoBERTa, CamemBERT), and WordPiece with other normalizers, added
tokens or special tokens of its own. Ids, offsets and truncation are the library's; which tokens are added, and what
stands around a text, is decided as transformers 5 decides it.

Legend: B sequences, T tokens of all sequences, V vocabulary entries.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np

from fastbert.system.errors import InputError
from fastbert.text import inputs
from fastbert.text.detokenize import CONTINUATION, join_pieces
from fastbert.text.encoding import EncodedBatch, Encoding, Frame, TruncationRule
from fastbert.text.library_backend import build_backend, library
from fastbert.text.tokenizer import Tokenizer
from fastbert.text.tokenizer_files import TokenizerOptions, write_files
from fastbert.text.tokenizer_source import TokenizerSource
from fastbert.text.wordpiece import check_text

# what a role is usually called, for files that do not say it
_USUAL = {
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "mask_token": ("[MASK]", "<mask>"),
}
_NO_LIMIT = 1 << 30  # of the characters of a word


def require_wordpiece(option: str, *tokenizers: Tokenizer) -> None:
    """Refuse an option that looks into the pieces of words where a tokenizer is of another kind.

    Raises:
        InputError: one of ``tokenizers`` runs in the library.
    """
    if any(isinstance(tokenizer, LibraryTokenizer) for tokenizer in tokenizers):
        raise InputError(f"{option}: changes a vocabulary piece by piece, which only WordPiece has. Try: leave it out")


class LibraryTokenizer(Tokenizer):
    """A tokenizer of the library, see the module; made by :meth:`build` or ``Tokenizer.load``.

    Args:
        content: of a tokenizer.json that holds everything.
        roles: special tokens by role ("cls_token" …).
        second_type_id: the type of the second text of a pair.
        config: of tokenizer_config.json, written by :meth:`save`.
    """

    def __init__(self, content: str, roles: Mapping[str, str], second_type_id: int, config: Mapping[str, Any]) -> None:
        with _as_input_error("tokenizer.json"):
            self._backend = library().Tokenizer.from_str(content)
        self._content, self._roles, self._config = content, dict(roles), dict(config)
        self._steps = json.loads(content)
        self.second_type_id = second_type_id
        self._lock = threading.Lock()
        self._ids = self._backend.get_vocab(with_added_tokens=True)
        size = max(self._ids.values(), default=-1) + 1
        if size > 4 * len(self._ids) + 1000:
            raise InputError("tokenizer.json: the ids of the vocabulary are not 0, 1, 2, ...")
        self.vocab = [""] * size
        for text, token_id in self._ids.items():
            self.vocab[token_id] = text
        for role, names in _USUAL.items():
            if role not in self._roles and (found := [name for name in names if name in self._ids]):
                self._roles[role] = found[0]
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (
            self._ids.get(self._roles.get(role, ""), -1) for role in _USUAL
        )
        added = self._backend.get_added_tokens_decoder()
        special = {token.content: i for i, token in added.items() if token.special}
        self._special_tokens = special | {t: self._ids[t] for t in self._roles.values() if t in self._ids}
        self._added_tokens = {token.content: i for i, token in added.items()}
        limit = self._steps["model"].get("max_input_chars_per_word", _NO_LIMIT)
        self.options = TokenizerOptions(lowercase=False, max_input_chars_per_word=limit)

    @cached_property
    def of_corpora(self) -> LibraryTokenizer:
        return self

    @classmethod
    def build(cls, source: TokenizerSource) -> LibraryTokenizer:
        """Make what a directory describes.

        Raises:
            InputError: the package is missing, or cannot read the files.
        """
        backend = build_backend(source)
        roles = {name: token.content for name, token in source.roles.items()}
        config = {
            name: value for name, value in source.config.items() if name not in ("auto_map", "added_tokens_decoder")
        }
        # the generic class reads tokenizer.json alone, which now holds all that the files said
        config |= {**roles, "tokenizer_class": "PreTrainedTokenizerFast"}
        return cls(backend.to_str(), roles, int(source.token_type_ids), config)

    # ---- encoding ----
    @contextmanager
    def _configured(self, rule: TruncationRule, split_special_tokens: bool, pair: bool, add: bool) -> Iterator[Any]:
        """The library's tokenizer, whose settings are its own, to one thread at a time."""
        backend = self._backend
        with self._lock, _as_input_error("text"):
            reserved = backend.num_special_tokens_to_add(pair) if add else 0
            if rule.strategy is None or rule.max_length < reserved:
                backend.no_truncation()
            else:
                backend.enable_truncation(
                    rule.max_length, stride=rule.stride, strategy=rule.strategy, direction=rule.side
                )
            backend.encode_special_tokens = split_special_tokens
            yield backend

    def encode(
        self,
        text: str,
        text_pair: str | None = None,
        add_special_tokens: bool = True,
        truncation: str | bool | None = None,
        max_length: int | None = None,
        stride: int = 0,
        truncation_side: str = "right",
        split_special_tokens: bool = False,
    ) -> Encoding:
        """As :meth:`Tokenizer.encode`."""
        rule = TruncationRule.checked(truncation, max_length, stride, truncation_side)
        for each in (text,) if text_pair is None else (text, text_pair):
            check_text(each)
        with self._configured(rule, split_special_tokens, text_pair is not None, add_special_tokens) as backend:
            return self._converted(backend.encode(text, text_pair, add_special_tokens=add_special_tokens))

    def _converted(self, found: Any) -> Encoding:
        return Encoding(
            found.ids,
            [i * self.second_type_id for i in found.type_ids],
            found.tokens,
            found.offsets,
            found.word_ids,
            found.special_tokens_mask,
            [self._converted(part) for part in found.overflowing],
        )

    def encode_batch(
        self,
        texts: Iterable[str] | Iterable[tuple[str, str]] | Any,
        add_special_tokens: bool = True,
        truncation: str | bool | None = None,
        max_length: int | None = None,
        threads: int | None = None,
        split_special_tokens: bool = False,
        with_offsets: bool = False,
        truncation_side: str = "right",
        dtype: str = "int32",
    ) -> EncodedBatch:
        """As :meth:`Tokenizer.encode_batch`; the library chooses the number of threads."""
        rule = TruncationRule.checked(truncation, max_length, side=truncation_side)
        dtype = self._checked_dtype(dtype, threads)
        listed: Any = texts
        firsts, seconds = inputs.texts_and_pairs(listed.to_pylist() if inputs.is_arrow(listed) else listed)
        for number, each in enumerate(firsts if seconds is None else [*firsts, *seconds]):
            try:
                check_text(each)
            except InputError as error:
                raise InputError(f"text {number % max(len(firsts), 1)}: {error}") from None
        rows: list[Any] = firsts if seconds is None else list(zip(firsts, seconds, strict=True))
        with self._configured(rule, split_special_tokens, seconds is not None, add_special_tokens) as backend:
            found = backend.encode_batch(rows, add_special_tokens=add_special_tokens)
        offsets = np.cumsum([0, *(len(each) for each in found)]).astype(np.int64)

        def flat(name: str, dtype: str) -> np.ndarray:
            return np.array([value for each in found for value in getattr(each, name)], dtype)

        types = None if seconds is None else flat("type_ids", "int32") * np.int32(self.second_type_id)
        places = flat("offsets", "int32").reshape(-1, 2) if with_offsets else None
        return EncodedBatch(flat("ids", dtype), offsets, types, places)

    def encode_file(
        self, path_or_bytes: str | os.PathLike | bytes | bytearray | memoryview, *arguments: Any, **options: Any
    ) -> EncodedBatch:
        """As :meth:`Tokenizer.encode_file`."""
        with inputs.file_bytes(path_or_bytes) as data:
            lines = bytes(data).split(b"\n")
        if not lines[-1]:
            lines.pop()
        return self.encode_batch([line.decode("utf-8", errors="replace") for line in lines], *arguments, **options)

    def encode_words(self, words: Sequence[str]) -> EncodedBatch:
        """Encode words as they stand behind a blank in a text, without special tokens."""
        return self.encode_batch([f" {word}" for word in words], add_special_tokens=False)

    @cached_property
    def frame(self) -> Frame:
        """The special tokens around one text, and between two."""
        one, two = self.encode("a"), self.encode("a", "a")
        inside = [i for i, mark in enumerate(one.special_tokens_mask) if not mark]
        places = [i for i, mark in enumerate(two.special_tokens_mask) if not mark]
        if not inside or len(places) != 2 * len(inside):
            return super().frame if min(self.cls_id, self.sep_id) >= 0 else Frame((), (), ())
        middle = two.ids[places[len(inside) - 1] + 1 : places[len(inside)]]
        return Frame(tuple(one.ids[: inside[0]]), tuple(middle), tuple(one.ids[inside[-1] + 1 :]))

    # ---- pieces ----
    @property
    def mask_token(self) -> str:
        """How a mask is written in a text."""
        return self._roles.get("mask_token", "[MASK]")

    def piece_text(self, token_id: int) -> str:
        """A single piece as users see it: decoded, with the blank before it."""
        return self.decode([token_id], skip_special_tokens=False)

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True, clean_up: bool = True) -> str:
        """Convert ids to text; the library's decoder says what stands between pieces."""
        known = [int(i) for i in ids if 0 <= int(i) < len(self.vocab)]
        if self._backend.decoder is None and self._continuation_mark == CONTINUATION:
            hidden = self._special_tokens if skip_special_tokens else ()
            return join_pieces([self.vocab[i] for i in known if self.vocab[i] not in hidden], clean_up)
        return self._backend.decode(known, skip_special_tokens=skip_special_tokens)

    @property
    def _continuation_mark(self) -> str | None:
        """WordPiece's "##"; None where pieces that begin a word are marked instead."""
        return self._steps["model"].get("continuing_subword_prefix") or None

    @cached_property
    def is_continuation(self) -> np.ndarray:
        """(V,) uint8, 1 for entries that continue a word.

        Where the blank before a word is part of its first piece, a piece without one continues a word if it begins with
        a letter, a digit or a part of one: punctuation is a word of its own.
        """
        mark, byte_level = (
            self._continuation_mark,
            '"ByteLevel"' in json.dumps([self._steps.get("pre_tokenizer"), self._steps.get("decoder")]),
        )
        found = np.zeros(len(self.vocab), np.uint8)
        for i, entry in enumerate(self.vocab):
            if not entry or entry in self._added_tokens or entry in self._special_tokens:
                continue
            if mark is not None:
                found[i] = entry.startswith(mark)
                continue
            text = _bytes_of(entry).decode("utf-8", errors="replace") if byte_level else entry
            found[i] = text[0] == "\ufffd" or unicodedata.category(text[0])[0] in "LMN"
        return found

    # ---- files ----
    def save(self, directory: str | os.PathLike, *, token_type_ids: bool = True, max_length: int | None = None) -> None:
        """Write tokenizer.json and tokenizer_config.json, which ``transformers.AutoTokenizer`` reads.

        Raises:
            InputError: the directory is not writable.
        """
        types = ["token_type_ids"] if token_type_ids and self.second_type_id else []
        config = self._config | {"model_input_names": ["input_ids", *types, "attention_mask"]}
        if max_length is not None:
            config["model_max_length"] = max_length
        write_files(directory, {"tokenizer.json": self._content, "tokenizer_config.json": json.dumps(config, indent=2)})

    def fingerprint(self) -> str:
        """sha256 of everything that decides ids: equal fingerprints give equal ids."""
        return hashlib.sha256(json.dumps([self._steps, self._roles], sort_keys=True).encode()).hexdigest()

    def __repr__(self) -> str:
        return f"LibraryTokenizer(V={len(self):,}, {self._steps['model'].get('type')})"

    def __reduce__(self) -> tuple:
        return LibraryTokenizer, (self._content, self._roles, self.second_type_id, self._config)


@contextmanager
def _as_input_error(what: str) -> Iterator[None]:
    """The library's errors in one line; its panics are no Exceptions."""
    try:
        yield
    except InputError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(f"{what}: refused by tokenizers: {' '.join(str(error).split())[:200]}") from None


def _bytes_of(entry: str) -> bytes:
    """The bytes that an entry of a byte-level vocabulary stands for; printable ones stand for themselves."""
    return b"".join(_BYTES.get(char, char.encode()) for char in entry)


def _byte_table() -> dict[str, bytes]:
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(b): bytes([b]) for b in shown} | {chr(256 + i): bytes([b]) for i, b in enumerate(hidden)}


_BYTES = _byte_table()
