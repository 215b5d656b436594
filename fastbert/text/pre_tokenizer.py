"""Where words are divided, as the pre-tokenizer of tokenizer.json says it."""

from collections.abc import Mapping
from typing import Any

_BY_PUNCTUATION: dict[bool, dict[str, Any]] = {True: {"type": "BertPreTokenizer"}, False: {"type": "WhitespaceSplit"}}
# not the library's "Digits", which isolates superscripts and fractions too
_DIGITS: dict[str, Any] = {"type": "Split", "pattern": {"Regex": "[0-9]"}, "behavior": "Isolated", "invert": False}


def pre_tokenizer(split_punctuation: bool, single_digits: bool) -> dict[str, Any]:
    """The pre-tokenizer of tokenizer.json."""
    words = _BY_PUNCTUATION[split_punctuation]
    return {"type": "Sequence", "pretokenizers": [words, _DIGITS]} if single_digits else words


def word_divisions(value: object) -> dict[str, bool] | None:
    """The options of :class:`fastbert.text.TokenizerOptions` that a pre-tokenizer means, None for another one."""
    for split_punctuation in (True, False):
        for single_digits in (False, True):
            known = pre_tokenizer(split_punctuation, single_digits)
            # "BertPreTokenizer" has no fields; what a file gives it besides was always passed over
            same_type = isinstance(value, Mapping) and value.get("type") == known["type"]
            if value == known or (same_type and len(known) == 1):
                return {"split_punctuation": split_punctuation, "single_digits": single_digits}
    return None
