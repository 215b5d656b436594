"""The WordPiece tokenizer: the same results as Hugging Face's BERT tokenizer, an order of magnitude faster.

Legend: B sequences, T tokens of all sequences, V vocabulary entries.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from fastbert.system import native
from fastbert.system.errors import InputError
from fastbert.text import inputs
from fastbert.text.detokenize import join_pieces
from fastbert.text.encoding import EncodedBatch, Encoding, TruncationRule, assemble
from fastbert.text.pieces import Pieces
from fastbert.text.tokenizer_files import SPECIAL_TOKENS, TokenizerOptions, read_directory, read_vocab, write_directory


class Tokenizer(Pieces):
    """A vocabulary and the options of the tokenizer. Immutable, picklable, thread-safe.

    Ids, offsets, word ids and truncation are those of Hugging Face `tokenizers` 0.23 (BertNormalizer,
    BertPreTokenizer, WordPiece, BertProcessing), to the last code point. Special tokens ([PAD] [UNK] [CLS] [SEP]
    [MASK]) are recognized in the raw text; ``split_special_tokens=True`` treats them as ordinary text, which untrusted
    text requires.

    A vocabulary without [UNK] is accepted; a word that it cannot spell raises InputError. One without [CLS] or [SEP]
    works with ``add_special_tokens=False``.

    Args:
        vocab: entries in the order of their ids; duplicates get the last id; "" matches nothing.
        options: normalization and maximum word length.
        added_tokens: further special tokens, text -> id.
        impl: "auto", "cpp" or "reference" (the Python twin).

    Attributes:
        second_type_id: the type of the second text of a pair: 1, or 0 where a model is not told which text is which.

    Tokenizers of other kinds (byte-level BPE, Unigram, other normalizers) have this interface too:
    :class:`fastbert.text.library_tokenizer.LibraryTokenizer`.

    Reference: Devlin et al., BERT, 2019; Wu et al., Google's Neural Machine Translation System, 2016 (WordPiece).
    """

    splits_special_tokens = True  # of text to be stored

    def __init__(
        self,
        vocab: Sequence[str],
        options: TokenizerOptions | None = None,
        *,
        added_tokens: dict[str, int] | None = None,
        impl: str = "auto",
    ) -> None:
        self.options = options or TokenizerOptions()
        self.vocab = list(vocab)
        self._ids = {entry: i for i, entry in enumerate(self.vocab) if entry}
        self._added_tokens = dict(added_tokens or {})
        self._special_tokens = {text: self._ids[text] for text in SPECIAL_TOKENS if text in self._ids}
        self._special_tokens.update(self._added_tokens)
        self._impl = impl
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (
            self._special_tokens.get(text, -1) for text in SPECIAL_TOKENS
        )
        self._core = self._made_core(self._special_tokens)

    def _made_core(self, special_tokens: dict[str, int]) -> Any:
        module = native.core(self._impl)
        arguments = (self.vocab, self.unk_id, special_tokens)
        options, longest = self.options.normalizer, self.options.max_input_chars_per_word
        if module is None:
            from fastbert.text.wordpiece import ReferenceTokenizer

            return ReferenceTokenizer(*arguments, options, longest)
        return module.Tokenizer(*arguments, module.NormalizerOptions(**asdict(options)), longest)

    @functools.cached_property
    def of_corpora(self) -> Tokenizer:
        """The tokenizer for text to be stored: [SEP] in it is ordinary text, added special tokens are tokens.

        To be used with its own ``splits_special_tokens``.
        """
        if not self._added_tokens:
            return self
        other = copy.copy(self)
        other._core, other.splits_special_tokens = self._made_core(self._added_tokens), False
        return other

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike,
        lowercase: bool = True,
        strip_accents: bool | None = None,
        clean_text: bool = True,
        handle_chinese_chars: bool = True,
        max_input_chars_per_word: int = 100,
        impl: str = "auto",
    ) -> Tokenizer:
        """Read a vocab.txt (see :func:`fastbert.text.tokenizer_files.read_vocab` for odd files).

        Raises:
            InputError: no such file, not UTF-8, or empty.
        """
        options = TokenizerOptions(lowercase, strip_accents, clean_text, handle_chinese_chars, max_input_chars_per_word)
        return cls(read_vocab(path), options, impl=impl)

    @classmethod
    def load(
        cls,
        directory: str | os.PathLike,
        impl: str = "auto",
        max_input_chars_per_word: int | None = None,
        lowercase: bool | None = None,
    ) -> Tokenizer:
        """Read a directory: a run, a Hugging Face model, or just a vocab.txt; a limit of word lengths replaces its own.

        Args:
            lowercase: whether a vocab.txt without a configuration is uncased; None: inferred from its entries, with a
                warning. Accents are stripped from uncased text unless entries have some.

        Raises:
            InputError: no tokenizer, files that are not understood or say otherwise than ``lowercase``, or a tokenizer
                that needs the package ``tokenizers``.
        """
        files = read_directory(directory, max_input_chars_per_word, lowercase)
        if files.source is not None:
            from fastbert.text.library_tokenizer import LibraryTokenizer

            return LibraryTokenizer.build(files.source)
        tokenizer = cls(files.vocab, files.options, added_tokens=files.added_tokens, impl=impl)
        tokenizer.second_type_id = int(files.token_type_ids)
        return tokenizer

    def save(self, directory: str | os.PathLike, *, token_type_ids: bool = True, max_length: int | None = None) -> None:
        """Write vocab.txt, tokenizer.json and tokenizer_config.json, which ``transformers.AutoTokenizer`` reads.

        Args:
            directory: created if missing.
            token_type_ids: whether transformers should produce them; ModernBERT takes none.
            max_length: tokens that the model takes, to which transformers truncates if asked; None: not written.

        Raises:
            InputError: the directory is not writable.
        """
        write_directory(directory, self.vocab, self.options, self._special_tokens, token_type_ids, max_length)

    @classmethod
    def train(
        cls,
        files_or_iterable: str | os.PathLike | Iterable[str] | Iterable[os.PathLike],
        vocab_size: int = 8192,
        min_frequency: int = 2,
        lowercase: bool = True,
        strip_accents: bool | None = None,
        limit_alphabet: int | None = None,
        initial_alphabet: Iterable[str] = (),
        threads: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        impl: str = "auto",
        *,
        clean_text: bool = True,
        handle_chinese_chars: bool = True,
        max_input_chars_per_word: int = 100,
        split_punctuation: bool = True,
        single_digits: bool = False,
        special_tokens: Sequence[str] = (),
    ) -> Tokenizer:
        """Train a vocabulary; the same text gives the same vocabulary for any number of threads.

        Args:
            files_or_iterable: a path, a list of paths that all exist (UTF-8 text), or any other iterable of texts.
            vocab_size: V, including special tokens; a small text gives fewer.
            min_frequency: minimum count of a pair to be merged.
            lowercase, strip_accents, clean_text, handle_chinese_chars, max_input_chars_per_word, split_punctuation,
                single_digits: see TokenizerOptions.
            limit_alphabet: keep only that many of the most frequent characters; by default all that fit, and in a
                vocabulary of at least 1,024 pieces both forms of them and of printable ASCII.
            initial_alphabet: characters to keep even if they are rare.
            threads: None uses all CPUs of the process.
            progress: called with (entries so far, ``vocab_size``) while the vocabulary grows.
            special_tokens: further ones, such as "<user>": one token each wherever they stand in a text.

        Raises:
            InputError: a path without a file, text that cannot be read, or special tokens with blanks.
        """
        from fastbert.text.trained_tokens import trained_tokens

        options = TokenizerOptions(
            lowercase, strip_accents, clean_text, handle_chinese_chars, max_input_chars_per_word, split_punctuation,
            single_digits,
        )  # fmt: skip
        tokens = trained_tokens(
            files_or_iterable, options, special_tokens, vocab_size=vocab_size, min_frequency=min_frequency,
            limit_alphabet=limit_alphabet, initial_alphabet=initial_alphabet, threads=threads, progress=progress,
            impl=impl,
        )  # fmt: skip
        return cls(tokens, options, added_tokens={token: tokens.index(token) for token in special_tokens}, impl=impl)

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
        """Encode one text or pair, with offsets and word ids.

        Args:
            text, text_pair: [CLS] text [SEP], or [CLS] text [SEP] text_pair [SEP].
            add_special_tokens: add [CLS] and [SEP].
            truncation: None or False; True or "longest_first"; "only_first"; "only_second". ``max_length`` alone means
                "longest_first".
            max_length: in tokens, including special tokens. As in Hugging Face tokenizers, a value smaller than their
                number truncates nothing.
            stride: overlap of the ``overflowing`` parts, in tokens.
            truncation_side: "right" truncates the end, "left" the beginning.
            split_special_tokens: treat special tokens in the text as ordinary text.

        Raises:
            InputError: not a str, a lone surrogate, a text too short to be truncated, or no [CLS] or [SEP].
        """
        rule = TruncationRule.checked(truncation, max_length, stride, truncation_side)
        self._check_frame(add_special_tokens)
        first = self._encoding(text, 0, split_special_tokens)
        second = None if text_pair is None else self._encoding(text_pair, self.second_type_id, split_special_tokens)
        cls, sep = (self.cls_id, "[CLS]"), (self.sep_id, "[SEP]")
        return assemble(first, second, rule, cls, sep, add_special_tokens, self.second_type_id)

    def _encoding(self, text: str, type_id: int, split_special_tokens: bool) -> Encoding:
        if not isinstance(text, str):
            raise InputError(f"expected text as str, got {type(text).__name__}")
        ids, begins, ends, word_ids = self._core.encode_aligned(text, split_special_tokens)
        return Encoding(
            ids,
            [type_id] * len(ids),
            [self.vocab[i] for i in ids],
            list(zip(begins, ends, strict=True)),
            word_ids,
            [0] * len(ids),
        )

    def _check_frame(self, add_special_tokens: bool) -> None:
        if add_special_tokens and min(self.cls_id, self.sep_id) < 0:
            missing = "[CLS]" if self.cls_id < 0 else "[SEP]"
            raise InputError(
                f"the vocabulary has no {missing}. Try: add that line to vocab.txt, or add_special_tokens=False"
            )

    def _batch_options(
        self,
        rule: TruncationRule,
        add_special_tokens: bool,
        threads: int | None,
        split_special_tokens: bool,
        with_offsets: bool,
        dtype: str,
    ) -> dict[str, Any]:
        self._check_frame(add_special_tokens)
        dtype = self._checked_dtype(dtype, threads)
        return {
            "dtype": dtype,
            "add_special_tokens": add_special_tokens,
            "split_special_tokens": split_special_tokens,
            "with_offsets": with_offsets,
            "strategy": rule.strategy,
            "max_length": rule.max_length,
            "truncate_left": rule.side == "left",
            "cls_id": self.cls_id,
            "sep_id": self.sep_id,
            "threads": threads or 0,
        }

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
        """Encode many texts or pairs to flat arrays. The result does not depend on ``threads``.

        Args:
            texts: a list of str, a list of (str, str), or a pyarrow column of strings (read without Python strings).
            with_offsets: also return ``char_offsets``; slower.
            dtype: "int32", or "uint16" for a vocabulary of at most 65,536 entries.
            Others: see :meth:`encode`.

        Raises:
            InputError: with the index of the invalid text.
        """
        rule = TruncationRule.checked(truncation, max_length, side=truncation_side)
        options = self._batch_options(rule, add_special_tokens, threads, split_special_tokens, with_offsets, dtype)
        if inputs.is_arrow(texts):
            chunks = [EncodedBatch(*self._core.encode_spans(*chunk, **options)) for chunk in inputs.arrow_chunks(texts)]
            if len(chunks) == 1:
                return chunks[0]
            empty = EncodedBatch(*self._core.encode_texts([], None, **options))
            return EncodedBatch.concatenated([empty, *chunks])
        encoded = EncodedBatch(*self._core.encode_texts(*inputs.texts_and_pairs(texts), **options))
        if encoded.token_type_ids is not None and not self.second_type_id:
            import numpy as np

            encoded.token_type_ids = np.zeros_like(encoded.token_type_ids)
        return encoded

    def encode_file(
        self,
        path_or_bytes: str | os.PathLike | bytes | bytearray | memoryview,
        add_special_tokens: bool = True,
        truncation: str | bool | None = None,
        max_length: int | None = None,
        threads: int | None = None,
        split_special_tokens: bool = False,
        with_offsets: bool = False,
        truncation_side: str = "right",
        dtype: str = "int32",
    ) -> EncodedBatch:
        """Encode every line of a UTF-8 file (memory-mapped) or of bytes, without Python strings.

        Lines end at "\\n"; a last line without it counts. Ill-formed UTF-8 is read as U+FFFD, as with Python's
        ``errors="replace"`` (and clean_text deletes it).

        Args:
            path_or_bytes: a path, or bytes.
            Others: see :meth:`encode_batch`.

        Raises:
            InputError: the file cannot be read.
        """
        rule = TruncationRule.checked(truncation, max_length, side=truncation_side)
        options = self._batch_options(rule, add_special_tokens, threads, split_special_tokens, with_offsets, dtype)
        with inputs.file_bytes(path_or_bytes) as data:
            return EncodedBatch(*self._core.encode_lines(data, **options))

    def encode_words(self, words: Sequence[str]) -> EncodedBatch:
        """Encode words as they stand behind a blank in a text, without special tokens."""
        return self.encode_batch(words, add_special_tokens=False)

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True, clean_up: bool = True) -> str:
        """Convert ids to text; ``clean_up`` removes the spaces before punctuation.

        Ids outside the vocabulary are skipped, as in Hugging Face tokenizers.
        """
        tokens = (self.id_to_token(int(i)) for i in ids)
        special = self._special_tokens if skip_special_tokens else ()
        return join_pieces([token for token in tokens if token is not None and token not in special], clean_up)

    def fingerprint(self) -> str:
        """sha256 of the vocabulary and the options: equal fingerprints give equal ids."""
        usual = {"split_punctuation": True, "single_digits": False}  # not in older fingerprints
        options = {
            **{name: value for name, value in asdict(self.options.normalizer).items() if usual.get(name) != value},
            "max_input_chars_per_word": self.options.max_input_chars_per_word,
            "added_tokens": self._added_tokens,
        }
        content = json.dumps([self.vocab, options], ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(content.encode("utf-8", errors="surrogatepass")).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self.fingerprint() == other.fingerprint()

    def __hash__(self) -> int:
        return hash(self.fingerprint())

    def __repr__(self) -> str:
        return f"Tokenizer(V={len(self):,}, {self.options})"

    def __reduce__(self) -> tuple:
        make = functools.partial(Tokenizer, added_tokens=self._added_tokens, impl=self._impl)
        return make, (self.vocab, self.options), {"second_type_id": self.second_type_id}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.second_type_id = state["second_type_id"]
