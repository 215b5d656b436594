"""Reading and writing the files of a tokenizer: vocab.txt, tokenizer.json and tokenizer_config.json."""

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fastbert.system.atomic_write import written_whole
from fastbert.system.errors import InputError
from fastbert.system.json_files import Fields, read_object
from fastbert.system.model_folder import model_folder
from fastbert.text import unicode_tables
from fastbert.text.detokenize import CONTINUATION
from fastbert.text.normalizer import NormalizerOptions
from fastbert.text.pre_tokenizer import pre_tokenizer, word_divisions
from fastbert.text.tokenizer_source import TokenizerSource, read_source
from fastbert.text.vocabulary_case import VocabularyCase
from fastbert.text.word_counts import SPECIAL_TOKENS

_REMEDY = "copy the file again from its source"
# keys of tokenizer_config.json -> our options
_CONFIG_KEYS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
    "clean_text": "clean_text",
}
_MISSING = object()
_DEFAULTS = {"lowercase": True, "strip_accents": None, "handle_chinese_chars": True}  # of BertTokenizer
_WHITE_SPACE = "".join(chr(c) for first, last in unicode_tables.WHITE_SPACE for c in range(first, last + 1))


@dataclass(frozen=True)
class TokenizerOptions:
    """Options of the tokenizer.

    Attributes:
        lowercase: lower-case the text, character by character.
        strip_accents: drop accents; None means the same as ``lowercase``, as in Hugging Face tokenizers.
        clean_text: delete control characters, turn blanks into spaces.
        handle_chinese_chars: every CJK ideograph is a word.
        max_input_chars_per_word: longer words (in characters after normalization) become one [UNK].
        split_punctuation: every punctuation character is a word; False: only blanks divide words.
        single_digits: each of the digits 0 to 9 is a word.
    """

    lowercase: bool = True
    strip_accents: bool | None = None
    clean_text: bool = True
    handle_chinese_chars: bool = True
    max_input_chars_per_word: int = 100
    split_punctuation: bool = True
    single_digits: bool = False

    def __post_init__(self) -> None:
        if self.max_input_chars_per_word < 1:
            raise InputError(f"max_input_chars_per_word={self.max_input_chars_per_word}: expected at least 1")

    @property
    def normalizer(self) -> NormalizerOptions:
        """The normalization steps, with ``strip_accents`` resolved."""
        strip = self.lowercase if self.strip_accents is None else self.strip_accents
        return NormalizerOptions(
            self.lowercase,
            strip,
            self.clean_text,
            self.handle_chinese_chars,
            self.split_punctuation,
            self.single_digits,
        )


@dataclass
class TokenizerFiles:
    """The content of a tokenizer directory.

    Attributes:
        vocab: entries in the order of their ids.
        options: of WordPiece.
        added_tokens: special tokens beyond the five, text -> id.
        token_type_ids: whether the second text of a pair has the type 1, else all have 0.
        source: what the files say, of a tokenizer that is not BERT's WordPiece; the others are then empty.
    """

    vocab: list[str]
    options: TokenizerOptions
    added_tokens: dict[str, int] = field(default_factory=dict)
    token_type_ids: bool = True
    source: TokenizerSource | None = None


def read_vocab(path: str | os.PathLike) -> list[str]:
    """Read a vocab.txt: one entry per line; the line number is the id.

    As in Hugging Face tokenizers, trailing white space is dropped (also "\\r"), an empty line is an entry that matches
    nothing, and duplicates get the last id. In addition, a byte order mark at the start is dropped.

    Raises:
        InputError: no such file, not UTF-8, or no entries.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot read the vocabulary ({error.strerror})") from None
    try:
        text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        where = f"byte {error.start}"
        raise InputError(f"{path}: {where} is not UTF-8. Try: convert the file to UTF-8") from None
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    vocab = [line.rstrip(_WHITE_SPACE) for line in lines]
    if not any(vocab):
        raise InputError(f"{path}: the vocabulary is empty: expected one entry per line")
    return vocab


def read_directory(
    directory: str | os.PathLike, max_input_chars_per_word: int | None = None, lowercase: bool | None = None
) -> TokenizerFiles:
    """Read a tokenizer directory: a run, a Hugging Face model, or just a vocab.txt.

    tokenizer.json has priority over vocab.txt. Options in tokenizer_config.json override those of tokenizer.json where
    the tokenizer's class is BERT's, as in transformers; the generic class takes tokenizer.json alone. Where no file
    says whether text is lowercased, the entries of the vocabulary do, with a warning.

    Args:
        directory: of the files.
        max_input_chars_per_word: replaces that of the files.
        lowercase: decides where no file says it.

    Raises:
        InputError: no tokenizer, damaged files, a field that is not understood, or files that say otherwise than
            ``lowercase``.
    """
    root = Path(directory)
    if not root.is_dir():
        raise InputError(f"{root}: no such directory: expected one with a vocab.txt or tokenizer.json")
    root = model_folder(root)
    path = root / "tokenizer.json"
    if not path.is_file() and not (root / "vocab.txt").is_file():
        raise InputError(f"{root}: has neither vocab.txt nor tokenizer.json")
    source = read_source(root)
    if not source.is_standard:
        for option, value in (("lowercase", lowercase), ("max_word_chars", max_input_chars_per_word)):
            if value is not None:
                raise InputError(f"{root}: --{option.replace('_', '-')} is for WordPiece. Try: leave it out")
        return TokenizerFiles([], TokenizerOptions(), source=source)
    if path.is_file():
        files = _parse_tokenizer_json(Fields(read_object(path, _REMEDY), str(path), _REMEDY))
    else:
        files = TokenizerFiles(read_vocab(root / "vocab.txt"), TokenizerOptions())
    files.token_type_ids = source.token_type_ids
    overrides: dict[str, Any] = {}
    for key, name in _CONFIG_KEYS.items() if source.kind == "bert" else ():
        value = source.config.get(key, _MISSING)
        if isinstance(value, bool) or (key == "strip_accents" and value is None):
            overrides[name] = value
        elif path.is_file() and key != "clean_text" and (given := getattr(files.options, name)) != _DEFAULTS[name]:
            raise InputError(
                f"{path}: {name} is {given}, and tokenizer_config.json does not say {key}, which transformers takes "
                f"for {_DEFAULTS[name]}. Try: add {key} to tokenizer_config.json"
            )
    if "lowercase" not in overrides and not path.is_file():
        overrides = _options_of_entries(root / "vocab.txt", files.vocab, lowercase) | overrides
    if max_input_chars_per_word is not None:
        overrides["max_input_chars_per_word"] = max_input_chars_per_word
    files.options = replace(files.options, **overrides)
    if lowercase not in (None, files.options.lowercase):
        case = "lowercase" if files.options.lowercase else "keep the case"
        raise InputError(f"{root}: its tokenizer files {case}. Try: without --lowercase and --no-lowercase")
    return files


def _options_of_entries(path: Path, vocab: Sequence[str], lowercase: bool | None) -> dict[str, Any]:
    """The options of a vocabulary without a configuration; warns where they are inferred."""
    found = VocabularyCase.of(vocab)
    if lowercase is None:
        warnings.warn(
            f"{path}: no tokenizer_config.json says whether it is cased. It is read as {found}. "
            "If that is wrong: --lowercase or --no-lowercase, or do_lower_case in a tokenizer_config.json",
            stacklevel=2,
        )
        lowercase = not found.cased
    return {"lowercase": lowercase, "strip_accents": False if lowercase and found.accented else None}


def _parse_tokenizer_json(fields: Fields) -> TokenizerFiles:
    path, model = fields.source, fields.inner("model")
    normalizer = fields.inner("normalizer", {})
    entries = model.inner("vocab", {})
    ids = dict(entries.values)
    if {*map(type, ids.values())} - {int} or min(ids.values(), default=0) < 0:
        ids = {text: entries.integer(text) for text in entries.values}  # which says what is wrong
    if not ids:
        raise InputError(f"{path}: the vocabulary is empty")
    added = {}
    for number, values in enumerate(fields.items("added_tokens", ())):
        token = Fields(values, f"{path}: added_tokens[{number}]", _REMEDY)
        text, token_id = token.text("content"), token.integer("id")
        if not text:
            raise InputError(f"{path}: added_tokens[{number}] is empty. Try: {_REMEDY}")
        ids[text] = token_id
        if text not in SPECIAL_TOKENS:
            added[text] = token_id
    if max(ids.values()) > 4 * len(ids) + 1000:
        raise InputError(f"{path}: the ids of the vocabulary are not 0, 1, 2, ...")
    vocab = [""] * (max(ids.values()) + 1)
    for text, token_id in ids.items():
        if not text.isascii() and any(0xD800 <= ord(c) <= 0xDFFF for c in text):
            raise InputError(f"{path}: the entry {text!a:.40} is not Unicode text. Try: {_REMEDY}")
        vocab[token_id] = text
    strip = "strip_accents"
    options = TokenizerOptions(
        lowercase=normalizer.flag("lowercase", True),
        strip_accents=normalizer.flag(strip) if normalizer.values.get(strip) is not None else None,
        clean_text=normalizer.flag("clean_text", True),
        handle_chinese_chars=normalizer.flag("handle_chinese_chars", True),
        max_input_chars_per_word=model.integer("max_input_chars_per_word", 100, low=1),
        **(word_divisions(fields.values.get("pre_tokenizer")) or {}),
    )
    return TokenizerFiles(vocab, options, added)


def tokenizer_json(
    vocab: Sequence[str], options: TokenizerOptions, special_tokens: Mapping[str, int]
) -> dict[str, Any]:
    """The content of tokenizer.json."""
    frame = [["[SEP]", special_tokens.get("[SEP]", 0)], ["[CLS]", special_tokens.get("[CLS]", 0)]]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": token_id,
                "content": text,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for text, token_id in sorted(special_tokens.items(), key=lambda item: item[1])
        ],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": options.clean_text,
            "handle_chinese_chars": options.handle_chinese_chars,
            "strip_accents": options.strip_accents,
            "lowercase": options.lowercase,
        },
        "pre_tokenizer": pre_tokenizer(options.split_punctuation, options.single_digits),
        "post_processor": {"type": "BertProcessing", "sep": frame[0], "cls": frame[1]},
        "decoder": {"type": "WordPiece", "prefix": CONTINUATION, "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": CONTINUATION,
            "max_input_chars_per_word": options.max_input_chars_per_word,
            "vocab": {text: i for i, text in enumerate(vocab)},
        },
    }


def tokenizer_config(
    options: TokenizerOptions, special_tokens: Mapping[str, int], token_type_ids: bool, max_length: int | None = None
) -> dict[str, Any]:
    """The content of tokenizer_config.json; with ``max_length`` (tokens), transformers truncates to it.

    The class is the generic one, which reads all of tokenizer.json: "BertTokenizer" would build its own tokenizer,
    without ``clean_text`` and ``max_input_chars_per_word``.
    """
    inputs = ["input_ids", *(["token_type_ids"] if token_type_ids else []), "attention_mask"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "do_lower_case": options.lowercase,
        "strip_accents": options.strip_accents,
        "tokenize_chinese_chars": options.handle_chinese_chars,
        "clean_text": options.clean_text,
        "clean_up_tokenization_spaces": False,  # done by the decoder of tokenizer.json, token by token
        "model_input_names": inputs,
        **({} if max_length is None else {"model_max_length": max_length}),
        **{f"{text[1:-1].lower()}_token": text for text in SPECIAL_TOKENS if text in special_tokens},
    }


def write_directory(
    directory: str | os.PathLike,
    vocab: Sequence[str],
    options: TokenizerOptions,
    special_tokens: Mapping[str, int],
    token_type_ids: bool,
    max_length: int | None = None,
) -> None:
    """Write vocab.txt, tokenizer.json and tokenizer_config.json."""
    config = tokenizer_config(options, special_tokens, token_type_ids, max_length)
    contents = {
        "vocab.txt": "".join(f"{entry}\n" for entry in vocab),
        "tokenizer.json": json.dumps(tokenizer_json(vocab, options, special_tokens), ensure_ascii=False, indent=1),
        "tokenizer_config.json": json.dumps(config, indent=2),
    }
    write_files(directory, contents)


def write_files(directory: str | os.PathLike, contents: Mapping[str, str]) -> None:
    """Write the files of a tokenizer, name → content, each through a temporary name.

    Raises:
        InputError: the directory is not writable.
    """
    root = Path(directory)
    try:
        root.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            with written_whole(root / name) as temporary:
                temporary.write_text(content, encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputError(
            f"{root}: the tokenizer cannot be written ({error.strerror}). Try: free some space, or another directory"
        ) from None
