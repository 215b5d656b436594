"""Tokenizers of other kinds: ids, types, offsets, words, truncation equal those of transformers on the same files."""

import json
import pickle
import random
import sys

import numpy as np
import pytest
from hf_tokenizers import KINDS, lines, transformers
from hostile_text import TRAPS

from fastbert.system.errors import InputError
from fastbert.text import Tokenizer
from fastbert.text.library_tokenizer import LibraryTokenizer

WORDS = [
    "The Lockdown, vacinas",
    "a <mask> b",
    "x[MASK]y  [MASK] z",
    "<user> <users> <ent>",
    "<m> <e>",
    "",
    " ",
    "São não",
]


@pytest.fixture(scope="module", params=KINDS)
def both(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    KINDS[request.param](root)
    return Tokenizer.load(root), transformers.AutoTokenizer.from_pretrained(root), root


@pytest.fixture(scope="module")
def texts():
    rng = random.Random(0)
    mixed = [" ".join(rng.choices(TRAPS, k=6)) for _ in range(60)]
    return [*WORDS, *TRAPS, *mixed, *lines()[:60]]


def facts(encoding):
    fields = ("ids", "tokens", "offsets", "word_ids", "special_tokens_mask")
    return [list(getattr(encoding, name)) for name in fields] + [[facts(part) for part in encoding.overflowing]]


def assert_same(ours, found):
    assert facts(ours) == facts(found.encodings[0])
    assert ours.type_ids == found.get("token_type_ids", [[0] * len(ours)])[0]


def test_ids_offsets_and_words(both, texts):
    ours, theirs, _ = both
    assert len(ours) == len(theirs)
    for text in texts:
        assert_same(ours.encode(text), theirs([text], return_token_type_ids=None))


def test_pairs_truncation_and_overflow(both, texts):
    ours, theirs, _ = both
    for first, second in zip(texts[::5], texts[3::5], strict=False):
        assert_same(ours.encode(first, second), theirs([first], [second]))
    short = [text for text in texts if len(text) < 40]  # the parts of a pair are all combinations
    for first, second in zip(short[::7], short[2::7], strict=False):
        for side in ("right", "left"):
            theirs.truncation_side = side
            for pair, length, stride in ((None, 9, 2), (second, 14, 0)):
                mine = ours.encode(first, pair, truncation=True, max_length=length, stride=stride, truncation_side=side)
                found = theirs(
                    [first], None if pair is None else [pair], truncation=True, max_length=length, stride=stride,
                    return_overflowing_tokens=True,
                )  # fmt: skip
                assert facts(mine) == facts(found.encodings[0])
    theirs.truncation_side = "right"


def test_batches_equal_single_texts(both, texts, tmp_path):
    ours, _, _ = both
    batch = ours.encode_batch(texts, with_offsets=True, max_length=20)
    for i, text in enumerate(texts):
        one = ours.encode(text, max_length=20)
        assert batch[i].tolist() == one.ids
        assert batch.char_offsets[batch.offsets[i] : batch.offsets[i + 1]].tolist() == [list(o) for o in one.offsets]
    pairs = ours.encode_batch(list(zip(texts[:9], texts[9:18], strict=True)))
    joined = [t for a, b in zip(texts[:9], texts[9:18], strict=True) for t in ours.encode(a, b).type_ids]
    assert pairs.token_type_ids.tolist() == joined
    path = tmp_path / "lines.txt"
    plain = [line for line in texts if line.splitlines() == [line]]
    path.write_text("".join(f"{line}\n" for line in plain), encoding="utf-8")
    np.testing.assert_array_equal(ours.encode_file(path).input_ids, ours.encode_batch(plain).input_ids)


def test_decoding(both, texts):
    ours, theirs, root = both
    if root.name.startswith("course"):
        return  # transformers leaves "##" where there is no decoder
    for text in texts[::3]:
        ids = ours.encode(text).ids
        for skip in (True, False):
            assert ours.decode(ids, skip) == theirs.decode(ids, skip_special_tokens=skip)


def test_special_tokens_in_untrusted_text(both):
    ours, theirs, _ = both
    for text in WORDS:
        theirs.split_special_tokens = True
        assert ours.encode(text, split_special_tokens=True).ids == theirs(text, split_special_tokens=True).input_ids
        theirs.split_special_tokens = False
        assert ours.encode(text).ids == theirs(text, split_special_tokens=False).input_ids


def test_roles(both):
    ours, theirs, _ = both
    for role in ("pad", "unk", "cls", "sep", "mask"):
        assert getattr(ours, f"{role}_id") == getattr(theirs, f"{role}_token_id")
    assert ours.mask_token == theirs.mask_token
    frame = ours.frame
    assert ours.encode("a", "a").ids == [
        *frame.before, *ours.encode("a", add_special_tokens=False).ids, *frame.between,
        *ours.encode("a", add_special_tokens=False).ids, *frame.after,
    ]  # fmt: skip


def test_saved_pickled_and_read_again(both, tmp_path, texts):
    ours, theirs, _ = both
    ours.save(tmp_path)
    for again in (Tokenizer.load(tmp_path), pickle.loads(pickle.dumps(ours))):
        assert again == ours and again.second_type_id == ours.second_type_id
        assert [again.encode(t).ids for t in texts] == [ours.encode(t).ids for t in texts]
    stock = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert [stock(t).input_ids for t in texts] == [theirs(t).input_ids for t in texts]
    assert stock.mask_token_id == ours.mask_id


def test_where_a_word_begins(both):
    ours, _, _ = both
    ids = ours.encode("Uma palavra, hello", add_special_tokens=False).ids
    begins = [i for i in range(1, len(ids)) if not ours.is_continuation[ids[i]]]
    words = ours.encode("Uma palavra, hello", add_special_tokens=False).word_ids
    # where a word is all that stands between two blanks, the punctuation in it begins another one here
    assert {i for i in range(1, len(ids)) if words[i] != words[i - 1]} <= set(begins) and len(begins) < len(ids) - 1
    assert not ours.is_continuation[ours.special_ids].any()


def test_the_package_is_asked_for_by_name(tmp_path, monkeypatch):
    KINDS["roberta"](tmp_path)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(InputError, match=r"fastbert\[tokenizers\]"):
        Tokenizer.load(tmp_path)


def test_wordpiece_of_berts_form_stays_ours(tmp_path):
    KINDS["add_tokens"](tmp_path)
    assert not isinstance(Tokenizer.load(tmp_path / "before"), LibraryTokenizer)
    assert isinstance(Tokenizer.load(tmp_path), LibraryTokenizer)


def test_lone_surrogates_and_bad_options_are_refused(both):
    ours, _, _ = both
    for call in (
        lambda: ours.encode("a\ud800"),
        lambda: ours.encode(None),
        lambda: ours.encode_batch(["a", "\udfff"]),
        lambda: ours.encode_batch(["a"], threads=0),
        lambda: ours.encode_batch(["a"], dtype="int8"),
        lambda: ours.encode("a b c d e f", truncation="only_second", max_length=3),
    ):
        with pytest.raises(InputError):
            call()


@pytest.mark.parametrize(
    ("file", "change", "named"),
    [
        ("tokenizer_config.json", {"truncation_side": "left"}, "truncation_side"),
        ("tokenizer_config.json", {"split_special_tokens": True}, "split_special_tokens"),
        ("tokenizer_config.json", {"do_basic_tokenize": False}, "do_basic_tokenize"),
        ("tokenizer_config.json", {"never_split": ["x"]}, "never_split"),
        ("tokenizer_config.json", {"word_tokenizer_type": "mecab"}, "word_tokenizer_type"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["a.B", None]}}, "auto_map"),
        ("tokenizer_config.json", {"tokenizer_class": "BertJapaneseTokenizer"}, "tokenizer_class"),
        ("tokenizer_config.json", {"some_new_field": 3}, "some_new_field"),
        ("tokenizer_config.json", {"tokenizer_class": "XLMRobertaTokenizer"}, "normalizer"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"9999": {"content": "zzz"}}}, "zzz"),
        ("tokenizer.json", {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}}, r"tokenizer\.json"),
        ("tokenizer.json", {"pre_tokenizer": {"type": "Unheard"}}, r"tokenizer\.json"),
        ("special_tokens_map.json", {"strange": 1}, "strange"),
        ("added_tokens.json", {"x": "y"}, "added_tokens"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(tmp_path, file, change, named):
    KINDS["unigram"](tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    path = tmp_path / file
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | change))
    with pytest.raises(InputError, match=named) as error:
        Tokenizer.load(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)
