"""What a tokenizer's directory says, file by file, and whether it is BERT's standard WordPiece or needs the library.

Files: tokenizer.json, vocab.txt, tokenizer_config.json, special_tokens_map.json, added_tokens.json, and of config.json
the model's type. They are combined as transformers 5 combines them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastbert.system.errors import InputError
from fastbert.system.json_files import read_object, shown
from fastbert.text.pre_tokenizer import word_divisions
from fastbert.text.tokenizer_fields import ROLES, built_kind, check_tokenizer_config
from fastbert.text.word_counts import SPECIAL_TOKENS

_REMEDY = "copy the file again from its source"
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
# a class of transformers has special tokens of its own
_BERT_ROLES = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL_TOKENS, strict=True))
_ROBERTA_ROLES = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "cls_token": "<s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
# the normalizers and pre-tokenizers that a class makes itself: tokenizer.json must not say otherwise
_OWN_STEPS: dict[str, tuple[str, tuple[str | None, ...], tuple[str | None, ...]]] = {
    "bert": ("WordPiece", ("BertNormalizer",), ("BertPreTokenizer",)),
    "roberta": ("BPE", (None,), ("ByteLevel",)),
    "unigram": ("Unigram", (None, "Precompiled"), ("Sequence",)),
    "camembert": ("Unigram", (None, "Precompiled"), ("Sequence",)),
}


@dataclass(frozen=True)
class Token:
    """An added token; ``None`` where a file leaves a flag to the library."""

    content: str
    flags: tuple[tuple[str, bool], ...] = ()

    @classmethod
    def of(cls, value: object, source: str, special: bool | None = None) -> "Token":
        """From a string, or an object with its flags.

        Raises:
            InputError: neither.
        """
        content = value.get("content") if isinstance(value, Mapping) else value
        if not isinstance(content, str) or any(0xD800 <= ord(char) <= 0xDFFF for char in content):
            raise InputError(f"{source}: a token is {shown(value)}, expected its text or an object. Try: {_REMEDY}")
        if not isinstance(value, Mapping):
            return cls(content)
        flags = {name: value[name] for name in _FLAGS if name in value}
        if special is not None:
            flags["special"] = special
        if bad := [name for name, flag in flags.items() if not isinstance(flag, bool)]:
            raise InputError(f"{source}: {bad[0]} of {content!r:.40} is not true or false. Try: {_REMEDY}")
        return cls(content, tuple(sorted(flags.items())))

    @property
    def plain(self) -> bool:
        """Whether it is special and matched in the raw text as it is, as our own tokenizer does."""
        flags = dict(self.flags)
        stripped = any(flags.get(name) for name in ("single_word", "lstrip", "rstrip", "normalized"))
        return not stripped and flags.get("special", True)


@dataclass(frozen=True)
class TokenizerSource:
    """A tokenizer as its files describe it.

    Attributes:
        root: the directory.
        kind: what is built, see :data:`fastbert.text.tokenizer_fields.CLASSES`.
        content: of tokenizer.json; None: there is a vocab.txt.
        config: of tokenizer_config.json.
        roles: special tokens by their role, "cls_token" and so on.
        added: further tokens, by the id that a file gives them.
        extra: further special tokens without an id.
    """

    root: Path
    kind: str
    content: Mapping[str, Any] | None
    config: Mapping[str, Any]
    roles: Mapping[str, Token]
    added: Mapping[int, Token] = field(default_factory=dict)
    extra: tuple[Token, ...] = ()

    @property
    def token_type_ids(self) -> bool:
        """Whether the second text of a pair has the type 1: models are not told where the inputs do not list it."""
        names = self.config.get("model_input_names")
        return "token_type_ids" in names if isinstance(names, list) else self.kind == "bert"

    @property
    def is_standard(self) -> bool:
        """Whether it is BERT's WordPiece with BERT's special tokens."""
        if self.kind not in ("", "bert") or any(not token.plain for token in (*self.roles.values(), *self.extra)):
            return False
        if any(self.roles[name].content != text for name, text in _BERT_ROLES.items() if name in self.roles):
            return False
        known = {text: Token(text) for text in SPECIAL_TOKENS}
        others = [token for token in (*self.added.values(), *self.extra) if token.content not in known]
        if any(not token.plain for token in self.added.values()):
            return False
        if self.content is None:
            return not others
        listed = self.content.get("added_tokens")
        tokens = [t for t in listed if isinstance(t, Mapping)] if isinstance(listed, list) else []
        contents = [t.get("content") for t in tokens]
        return all(token.content in contents for token in others) and _is_bert(self.content, self.kind)


def _type(content: Mapping[str, Any], name: str) -> str | None:
    value = content.get(name)
    return value.get("type") if isinstance(value, Mapping) else None


def model_type(content: Mapping[str, Any]) -> str | None:
    """The kind of model; old files of WordPiece do not name it."""
    model = content.get("model")
    if not isinstance(model, Mapping) or "type" in model:
        return _type(content, "model")
    return "WordPiece" if "continuing_subword_prefix" in model else "Unigram" if "unk_id" in model else None


def _is_bert(content: Mapping[str, Any], kind: str) -> bool:
    """Whether tokenizer.json holds the steps that our WordPiece makes."""
    model = content.get("model")
    if not isinstance(model, Mapping) or model_type(content) != "WordPiece":
        return False
    if model.get("continuing_subword_prefix", "##") != "##" or model.get("unk_token", "[UNK]") != "[UNK]":
        return False
    if _type(content, "normalizer") != "BertNormalizer" or word_divisions(content.get("pre_tokenizer")) is None:
        return False
    frame = content.get("post_processor")
    if kind == "bert" or _type(content, "post_processor") == "BertProcessing":
        return True  # the class has its own
    if not isinstance(frame, Mapping) or _type(content, "post_processor") != "TemplateProcessing":
        return False
    first = ["[CLS] 0", "A 0", "[SEP] 0"]
    return [_pieces(frame.get(name)) for name in ("single", "pair")] == [first, [*first, "B 1", "[SEP] 1"]]


def _pieces(template: object) -> list[str]:
    found = []
    for piece in template if isinstance(template, list) else []:
        for value in piece.values() if isinstance(piece, Mapping) else []:
            if isinstance(value, Mapping):
                found.append(f"{value.get('id')} {value.get('type_id')}")
    return found


def read_source(directory: str | os.PathLike) -> TokenizerSource:
    """Read the files of a directory that has a tokenizer.json or a vocab.txt.

    Raises:
        InputError: damaged files, a field that is not known, a class that contradicts tokenizer.json.
    """
    root = Path(directory)
    content = _read(root / "tokenizer.json")
    config = _read(root / "tokenizer_config.json") or {}
    place = str(root / "tokenizer_config.json")
    check_tokenizer_config(config, place)
    try:
        model = _read(root / "config.json") or {}
    except InputError:
        model = {}  # the model's reader tells what is wrong with it
    kind = built_kind(config, model, place)
    if content is not None:
        kind = _checked_kind(content, kind, root)
    elif kind not in ("", "bert"):
        raise InputError(
            f"{root}: has no tokenizer.json, which a tokenizer of this class needs. "
            "Try: AutoTokenizer.from_pretrained(directory).save_pretrained(directory) of transformers"
        )
    else:
        kind = "bert"
    own = {"": {}, "bert": _BERT_ROLES}.get(kind, _ROBERTA_ROLES)
    roles: dict[str, Any] = dict(own) | {name: config[name] for name in ROLES if config.get(name) is not None}
    extra: list[Any] = []
    for name in ("additional_special_tokens", "extra_special_tokens"):
        listed = config.get(name)
        extra += listed.values() if isinstance(listed, Mapping) else listed if isinstance(listed, list) else []
    extra += [value for name, value in config.items() if name.endswith("_token") and name not in ROLES and value]
    added = _added_tokens(root, config, content, roles, extra, place)
    known = {token.content: token for token in added.values()}
    named = {name: Token.of(value, place) for name, value in roles.items()}
    if kind == "camembert":
        extra = extra or ["<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"]
        named["mask_token"] = Token(named["mask_token"].content, (("lstrip", True), ("special", True)))
    named = {name: known.get(token.content, token) for name, token in named.items()}
    return TokenizerSource(root, kind, content, config, named, added, tuple(Token.of(value, place) for value in extra))


def _read(path: Path) -> dict[str, Any] | None:
    return read_object(path, _REMEDY) if path.is_file() else None


def _checked_kind(content: Mapping[str, Any], kind: str, root: Path) -> str:
    """The kind, or "" where the class only stands for tokenizer.json.

    Raises:
        InputError: the class would build something else than tokenizer.json says.
    """
    if kind not in _OWN_STEPS:
        return kind
    model, *steps = _OWN_STEPS[kind]
    if model_type(content) != model:
        return ""
    for name, expected in zip(("normalizer", "pre_tokenizer"), steps, strict=True):
        if (found := _type(content, name)) not in expected:
            raise InputError(
                f"{root / 'tokenizer.json'}: {name} is {shown(found)}, and the tokenizer_class of the model builds "
                f"{shown(expected[0])} in its place. Try: tokenizer_class PreTrainedTokenizerFast in "
                "tokenizer_config.json, if tokenizer.json is right"
            )
    return kind


def _added_tokens(
    root: Path,
    config: Mapping[str, Any],
    content: Mapping[str, Any] | None,
    roles: dict[str, Any],
    extra: list[Any],
    place: str,
) -> dict[int, Token]:
    """Added tokens by id: tokenizer_config.json lists all of them, or older files do, which also set roles."""
    listed = config.get("added_tokens_decoder")
    if isinstance(listed, Mapping):
        return {_id(number, place): Token.of(value, place) for number, value in listed.items()}
    added: dict[int, Token] = {}
    path = root / "special_tokens_map.json"
    for name, value in (_read(path) or {}).items():
        if name in ROLES and value is not None:
            roles[name] = {**value, "special": True} if isinstance(value, Mapping) else value
        elif name in ("additional_special_tokens", "extra_special_tokens") and isinstance(value, list):
            extra[:] = [{**v, "special": True} if isinstance(v, Mapping) else v for v in value]
        elif value is not None and not name.endswith("_token"):
            raise InputError(f"{path}: {name} is {shown(value)}, a field that is not known. Try: delete it")
    path = root / "added_tokens.json"
    special = {Token.of(value, place).content for value in (*roles.values(), *extra)}
    for text, number in (_read(path) or {}).items():
        token = {"content": text, "normalized": text not in special, "special": text in special}
        added[_id(number, str(path))] = Token.of(token, str(path))
    tokens = (content or {}).get("added_tokens")
    for value in tokens if isinstance(tokens, list) else []:
        if isinstance(value, Mapping) and "id" in value:
            added[_id(value["id"], str(root / "tokenizer.json"))] = Token.of(value, str(root / "tokenizer.json"))
    return added


def _id(value: object, source: str) -> int:
    text = str(value)
    if isinstance(value, bool) or not text.isascii() or not text.isdigit() or len(text) > 9:
        raise InputError(f"{source}: the id of an added token is {shown(value)}, expected a number. Try: {_REMEDY}")
    return int(text)
