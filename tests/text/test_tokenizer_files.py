"""A saved tokenizer: read back by us, and by transformers with the same ids under both architectures."""

import itertools
import json

import pytest

from fastbert.system.errors import InputError
from fastbert.text import Tokenizer, TokenizerOptions
from fastbert.text.library_tokenizer import LibraryTokenizer
from support import SPECIAL

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZáéíóúãõçßẽ漢字.,!?'[]"
VOCAB = [*SPECIAL, *LETTERS, *("##" + c for c in LETTERS), "hello", "world", "##ing", "não", "nao", "ação"]
TEXTS = [
    "Hello, wórld! [MASK] x\u200by 漢字 \u0301a É",
    "não ação " + "a" * 101 + " " + "b" * 60,
    "",
    "it's. 'tis do not, n't",
    "hello.world x12y 3.14 ²½٣ (1)",
]
NO_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False}
ALL_OPTIONS = [
    TokenizerOptions(*values)
    for values in itertools.product((True, False), (None, True, False), (True, False), (True, False), (100, 50))
]
DIVISIONS = [
    TokenizerOptions(lowercase=False, split_punctuation=punctuation, single_digits=digits)
    for punctuation, digits in ((False, False), (True, True), (False, True))
]


@pytest.fixture(params=["classic", "modern", "no config"])
def architecture(request):
    return request.param


def write_config(directory, architecture, vocab_size):
    if architecture == "no config":
        return
    transformers = pytest.importorskip("transformers")
    if architecture == "classic":
        config = transformers.BertConfig(vocab_size=vocab_size)
    else:
        names = ("pad", "bos", "eos", "cls", "sep")
        ids = {f"{name}_token_id": i for name, i in zip(names, (0, 2, 3, 2, 3), strict=True)}
        config = transformers.ModernBertConfig(vocab_size=vocab_size, **ids)
    config.save_pretrained(directory)


@pytest.mark.parametrize("options", [*ALL_OPTIONS[::5], *DIVISIONS], ids=str)
def test_transformers_gives_the_same_ids(tmp_path, architecture, options, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    transformers = pytest.importorskip("transformers")
    tok = Tokenizer(VOCAB, options)
    tok.save(tmp_path, token_type_ids=architecture != "modern")
    write_config(tmp_path, architecture, len(tok))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert len(theirs) == len(tok)
    special = ("pad_token_id", "unk_token_id", "cls_token_id", "sep_token_id", "mask_token_id")
    assert [getattr(theirs, name) for name in special] == [0, 1, 2, 3, 4]
    assert sorted(theirs.all_special_ids) == tok.special_ids
    for text in TEXTS:
        assert theirs(text)["input_ids"] == tok.encode(text).ids
        both, ours = theirs(text, TEXTS[0], return_offsets_mapping=True), tok.encode(text, TEXTS[0])
        assert both["input_ids"] == ours.ids and [tuple(o) for o in both["offset_mapping"]] == ours.offsets
        assert ("token_type_ids" in both) == (architecture != "modern")
        assert both.get("token_type_ids", ours.type_ids) == ours.type_ids
        assert theirs.decode(ours.ids, skip_special_tokens=True) == tok.decode(ours.ids)
        assert theirs.decode(ours.ids) == tok.decode(ours.ids, skip_special_tokens=False)


@pytest.mark.parametrize("options", [*ALL_OPTIONS, *DIVISIONS], ids=str)
def test_reads_what_it_wrote(tmp_path, options):
    tok = Tokenizer(VOCAB, options)
    tok.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tokenizer.json", "tokenizer_config.json", "vocab.txt"]
    again = Tokenizer.load(tmp_path)
    assert again == tok and again.options == options
    if options not in DIVISIONS:
        assert Tokenizer.from_file(tmp_path / "vocab.txt", *[*vars(options).values()][:5]) == tok


def test_reads_what_transformers_wrote(tmp_path):
    transformers = pytest.importorskip("transformers")
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB), encoding="utf-8")
    theirs = transformers.BertTokenizer(str(tmp_path / "vocab.txt"), do_lower_case=False)
    theirs.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "vocab.txt").unlink(missing_ok=True)  # tokenizer.json alone
    tok = Tokenizer.load(tmp_path / "saved")
    assert tok.vocab == VOCAB and tok.options.lowercase is False
    for text in TEXTS:
        assert tok.encode(text).ids == theirs(text)["input_ids"]


def test_a_vocabulary_alone_and_with_a_config(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB), encoding="utf-8")
    with pytest.warns(UserWarning, match="cased"):
        assert Tokenizer.load(tmp_path).options == TokenizerOptions(lowercase=False)
    config = {"do_lower_case": False, "strip_accents": True, "tokenize_chinese_chars": False, "model_max_length": 512}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert Tokenizer.load(tmp_path).options == TokenizerOptions(False, True, True, False)


def test_added_tokens_are_kept(tmp_path):
    tok = Tokenizer([*VOCAB, "[USER]"], added_tokens={"[USER]": len(VOCAB)})
    tok.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again == tok
    assert again.encode("a[USER]b").ids == [2, tok.token_to_id("a"), len(VOCAB), tok.token_to_id("b"), 3]


def change(path, **changes):
    content = json.loads(path.read_text(encoding="utf-8"))
    for key, value in changes.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"type": "BPE"}},
        {"model": {"unk_token": "<unk>"}},
        {"model": {"vocab": {}}},
        {"model": {"vocab": {"a": 1 << 30}}},
        {"pre_tokenizer": {"type": "Unheard"}},
    ],
    ids=str,
)
def test_what_cannot_be_read_is_refused(tmp_path, changes):
    Tokenizer(VOCAB).save(tmp_path)
    change(tmp_path / "tokenizer.json", **changes)
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"continuing_subword_prefix": "@@"}},
        {"normalizer": {"type": "NFC"}},
        {"normalizer": None},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"post_processor": None},
        {"added_tokens": [{"id": 5, "content": "a", "normalized": True, "special": False, **NO_FLAGS}]},
    ],
    ids=str,
)
def test_other_tokenizers_are_left_to_the_library(tmp_path, changes):
    tokenizers = pytest.importorskip("tokenizers")
    Tokenizer(VOCAB).save(tmp_path)
    change(tmp_path / "tokenizer.json", **changes)
    ours = Tokenizer.load(tmp_path)
    assert isinstance(ours, LibraryTokenizer)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    plain = TEXTS[1:]  # tokenizer_config.json has special tokens that the library is not told of
    assert [ours.encode(text).ids for text in plain] == [theirs.encode(text).ids for text in plain]


@pytest.mark.parametrize(
    ("given", "named"), [({"lowercase": False}, "do_lower_case"), ({"strip_accents": True}, "strip")]
)
def test_a_class_that_takes_another_default_than_the_file_says(tmp_path, given, named):
    """BertTokenizer lower-cases unless tokenizer_config.json says otherwise, whatever tokenizer.json says."""
    Tokenizer(VOCAB).save(tmp_path)
    change(tmp_path / "tokenizer.json", normalizer=given)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    with pytest.raises(InputError, match=named):
        Tokenizer.load(tmp_path)
    keys = {"do_lower_case": given.get("lowercase", True), "strip_accents": given.get("strip_accents")}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **keys}))
    loaded = Tokenizer.load(tmp_path).options
    assert loaded.lowercase == keys["do_lower_case"] and loaded.strip_accents == keys["strip_accents"]


def test_unusable_directories(tmp_path):
    with pytest.raises(InputError, match="missing"):
        Tokenizer.load(tmp_path / "missing")
    with pytest.raises(InputError, match=r"vocab\.txt"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{ not json")
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Tokenizer(VOCAB).save(tmp_path / "file")
