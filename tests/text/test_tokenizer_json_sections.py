"""Sections of tokenizer.json in every form: ids and offsets as in transformers, or a refusal that names the file."""

import json

import pytest
from hf_tokenizers import KINDS, transformers

from fastbert.system.errors import InputError
from fastbert.text import Tokenizer

TEXTS = [
    "The Lockdown, vacinas são BOAS!", "  two  blanks ", "naïve Ünïcode ﬁ Å İ ß", "x[MASK]y [MASK] z<ent>",
    "12345 a-b_c", "", "漢字 가각 👩‍👧", "tab\there\nline",
]  # fmt: skip
NFD = {"type": "NFD"}
STRIP = {"type": "StripAccents"}
LOWER = {"type": "Lowercase"}
TOKEN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
SPLIT = {"type": "Split", "pattern": {"Regex": r"\d"}, "behavior": "Isolated", "invert": False}
SPACES = {"type": "WhitespaceSplit"}


def sequence(kind, *steps):
    return {"type": "Sequence", {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers"}[kind]: list(steps)}


CASES = [
    ("normalizer", None),
    ("normalizer", {"type": "NFC"}),
    ("normalizer", {"type": "NFKC"}),
    ("normalizer", {"type": "NFKD"}),
    ("normalizer", {"type": "Nmt"}),
    ("normalizer", {"type": "Strip", "strip_left": True, "strip_right": True}),
    ("normalizer", {"type": "Replace", "pattern": {"String": "two"}, "content": "2"}),
    ("normalizer", {"type": "Replace", "pattern": {"Regex": "[aeiou]"}, "content": "_"}),
    ("normalizer", {"type": "Prepend", "prepend": "▁"}),
    ("normalizer", sequence("normalizer", NFD, STRIP, LOWER)),
    ("normalizer", sequence("normalizer", NFD, LOWER)),
    ("normalizer", {"type": "BertNormalizer", "clean_text": False, "handle_chinese_chars": False, "strip_accents": True,
                    "lowercase": False}),
    ("normalizer", {"type": "Unheard"}),
    ("pre_tokenizer", {"type": "Whitespace"}),
    ("pre_tokenizer", {"type": "BertPreTokenizer"}),
    ("pre_tokenizer", {"type": "Digits", "individual_digits": True}),
    ("pre_tokenizer", {"type": "CharDelimiterSplit", "delimiter": "-"}),
    ("pre_tokenizer", sequence("pre_tokenizer", SPACES, {"type": "Punctuation", "behavior": "Isolated"})),
    ("pre_tokenizer", sequence("pre_tokenizer", SPACES, {"type": "Punctuation", "behavior": "MergedWithNext"})),
    ("pre_tokenizer", sequence("pre_tokenizer", SPACES, {"type": "UnicodeScripts"})),
    ("pre_tokenizer", sequence("pre_tokenizer", SPACES, SPLIT)),
    ("pre_tokenizer", {"type": "Unheard"}),
    ("truncation", {"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}),
    ("padding", {"strategy": {"Fixed": 20}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 0,
                 "pad_type_id": 0, "pad_token": "[PAD]"}),
    ("post_processor", None),
    ("post_processor", {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}),
    ("post_processor", {"type": "RobertaProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2], "trim_offsets": True,
                        "add_prefix_space": False}),
    ("added", {"content": "vac", "lstrip": True}),
    ("added", {"content": "vac", "rstrip": True}),
    ("added", {"content": "cin", "single_word": True}),
    ("added", {"content": "vacinas", "single_word": True, "lstrip": True, "rstrip": True}),
    ("added", {"content": "lockdown", "normalized": True}),
    ("added", {"content": "Lockdown", "normalized": False}),
    ("added", {"content": "<ent>", "special": True}),
    ("added", {"content": "<ent>", "special": True, "normalized": True, "lstrip": True}),
    ("added", {"content": "two  blanks"}),
    ("model", {"max_input_chars_per_word": 4}),
    ("model", {"continuing_subword_prefix": "@@"}),
    ("model", {"unk_token": "[PAD]"}),
    ("model", {"unk_token": "<nowhere>"}),
    ("model", {"type": "Unheard"}),
]  # fmt: skip


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("course")
    KINDS["course"](root)
    return {path.name: path.read_text(encoding="utf-8") for path in root.iterdir()}


@pytest.mark.parametrize(("section", "value"), CASES, ids=lambda value: json.dumps(value)[:60])
def test_as_transformers_or_refused(original, tmp_path, section, value):
    for name, text in original.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    content = json.loads(original["tokenizer.json"])
    if section == "added":
        content["added_tokens"].append({"id": len(content["model"]["vocab"]), **TOKEN, **value})
    elif section == "model":
        content["model"] |= value
    else:
        content[section] = value
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    try:
        ours = Tokenizer.load(tmp_path)
    except InputError as error:
        assert str(tmp_path) in str(error) and "\n" not in str(error)
        assert section in ("model", "normalizer", "pre_tokenizer") and (
            "Unheard" in str(value) or "nowhere" in str(value)
        )
        return
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        for pair in (None, TEXTS[0]):
            mine = ours.encode(text, pair)
            found = theirs([text], None if pair is None else [pair], padding=False, truncation=False).encodings[0]
            assert (mine.ids, mine.tokens) == (found.ids, found.tokens)
            assert [tuple(offset) for offset in mine.offsets] == [tuple(offset) for offset in found.offsets]
