"""A directory's files as a `tokenizers.Tokenizer`, with the steps and tokens that transformers 5 gives it."""

import copy
import json
from pathlib import Path
from typing import Any

from fastbert.system.errors import InputError
from fastbert.text.tokenizer_source import Token, TokenizerSource


def library(place: Path | str = "tokenizer.json") -> Any:
    """The package ``tokenizers``.

    Args:
        place: of the file that needs it.

    Raises:
        InputError: it is not installed.
    """
    try:
        import tokenizers
    except ImportError:
        raise InputError(
            f"{place}: not BERT's WordPiece, and what else it is only the package tokenizers can read. "
            "Try: pip install 'fastbert[tokenizers]'"
        ) from None
    return tokenizers


def build_backend(source: TokenizerSource) -> Any:
    """The tokenizer with all its steps and added tokens.

    Raises:
        InputError: the package is missing or cannot read tokenizer.json; a token gets another id than its file says.
    """
    place = source.root / ("vocab.txt" if source.content is None else "tokenizer.json")
    tokenizers = library(place)
    try:
        backend = tokenizers.Tokenizer.from_str(json.dumps(_content(source)))
    except BaseException as error:
        if isinstance(error, InputError) or not (
            isinstance(error, Exception) or type(error).__name__ == "PanicException"
        ):
            raise
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{place}: refused by tokenizers {tokenizers.__version__}: {reason}") from None
    backend.no_truncation()
    backend.no_padding()
    _add_tokens(backend, source, tokenizers.AddedToken)
    _set_frame(backend, source, tokenizers.processors)
    unknown = json.loads(backend.to_str())["model"].get("unk_token")
    if unknown is not None and backend.token_to_id(unknown) is None:
        raise InputError(f"{place}: unk_token is {unknown!r:.40}, which the vocabulary does not have")
    return backend


def _content(source: TokenizerSource) -> dict[str, Any]:
    """tokenizer.json, with the steps of the class in place of its own, before tokens are added."""
    if source.content is None:
        from fastbert.text.tokenizer_files import read_vocab

        vocab = {entry: i for i, entry in enumerate(read_vocab(source.root / "vocab.txt")) if entry}
        entries = {"type": "WordPiece", "vocab": vocab, "continuing_subword_prefix": "##"}
        content: dict[str, Any] = {"version": "1.0", "model": {**entries, "max_input_chars_per_word": 100}}
    else:
        content = copy.deepcopy(dict(source.content))
    config, model = source.config, content.get("model")
    if source.kind and isinstance(model, dict):
        content["added_tokens"] = []
    if source.kind == "bert" and isinstance(model, dict):
        model["unk_token"] = source.roles["unk_token"].content
        content["normalizer"] = {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": config.get("tokenize_chinese_chars", True),
            "strip_accents": config.get("strip_accents"),
            "lowercase": config.get("do_lower_case", True),
        }
        content["pre_tokenizer"] = {"type": "BertPreTokenizer"}
        content["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": True}
        content["post_processor"] = None
    elif source.kind == "roberta" and isinstance(model, dict):
        step = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
        content["pre_tokenizer"] = step | {"add_prefix_space": bool(config.get("add_prefix_space", False))}
        content["decoder"] = step | {"add_prefix_space": True}
        content["post_processor"] = None
        model |= {"dropout": None, "unk_token": None, "fuse_unk": False}
    elif source.kind in ("unigram", "camembert"):
        scheme = "always" if config.get("add_prefix_space", True) else "never"
        space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": True}
        content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, space]}
        content["decoder"], content["post_processor"] = space, None
    return content


def _add_tokens(backend: Any, source: TokenizerSource, make: Any) -> None:
    """Listed tokens that are not there as listed, then roles and further special tokens that are not there."""
    present = backend.get_added_tokens_decoder()
    same = {repr(token) for token in present.values()}
    listed = [(i, _added(token, make, source)) for i, token in sorted(source.added.items())]
    wanted = [token for _, token in listed if repr(token) not in same]
    known = {token.content for token in (*present.values(), *wanted)}
    for token in (*source.roles.values(), *source.extra):
        if token.content not in known:
            known.add(token.content)
            wanted.append(_added(token, make, source, special=True))
    if wanted:
        backend.add_tokens(wanted)
    for number, token in listed:
        if (found := backend.token_to_id(token.content)) != number:
            raise InputError(
                f"{source.root}: the added token {token.content!r:.40} is {number} in its file and gets "
                f"the id {found}: the vocabulary and its added tokens do not belong together. Try: copy the files again"
            )


def _added(token: Token, make: Any, source: TokenizerSource, special: bool = False) -> Any:
    flags = dict(token.flags)
    named = {each.content for each in source.roles.values()}
    special = flags.pop("special", False) or special or token.content in named
    return make(token.content, special=special, **flags)


def _set_frame(backend: Any, source: TokenizerSource, processors: Any) -> None:
    """What stands around a text and between two."""
    names = {role: token.content for role, token in source.roles.items()}

    def pair(role: str) -> tuple[str, int]:
        return names[role], backend.token_to_id(names[role])

    config = source.config
    if source.kind == "bert":
        (cls, _), (sep, _) = frame = pair("cls_token"), pair("sep_token")
        backend.post_processor = processors.TemplateProcessing(
            single=[f"{cls}:0", "$A:0", f"{sep}:0"],
            pair=[f"{cls}:0", "$A:0", f"{sep}:0", "$B:1", f"{sep}:1"],
            special_tokens=list(frame),
        )
    elif source.kind == "roberta":
        trim, space = bool(config.get("trim_offsets", True)), bool(config.get("add_prefix_space", False))
        backend.post_processor = processors.RobertaProcessing(pair("sep_token"), pair("cls_token"), trim, space)
    elif source.kind in ("unigram", "camembert"):
        (bos, _), (eos, _) = frame = pair("bos_token"), pair("eos_token")
        backend.post_processor = processors.TemplateProcessing(
            single=[bos, "$A", eos], pair=[bos, "$A", eos, eos, "$B", eos], special_tokens=list(frame)
        )
    elif backend.post_processor is None:
        backend.post_processor = processors.TemplateProcessing(single="$A:0", pair="$A:0 $B:1", special_tokens=[])
