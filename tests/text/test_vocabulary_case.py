"""A vocab.txt without a configuration is read as its entries are: cased or not, accents kept or not."""

import warnings

import pytest

from fastbert.system.errors import InputError
from fastbert.text import Tokenizer
from fastbert.text.vocabulary_case import VocabularyCase

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [form for char in "abcdefghijklmnopqrstuvwxyz" for form in (char, "##" + char)]
CASED = [*SPECIAL, *LETTERS, "São", "Paulo", "não", "##ção", "Brasil"]
UNCASED = [*SPECIAL, *LETTERS, "são", "paulo", "não", "##ção"]
STRIPPED = [*SPECIAL, *LETTERS, "sao", "paulo", "nao"]


def bare(directory, vocab):
    directory.mkdir(exist_ok=True)
    (directory / "vocab.txt").write_text("\n".join(vocab), encoding="utf-8")
    return directory


@pytest.mark.parametrize(
    ("vocab", "lowercase", "strips", "tokens"),
    [
        (CASED, False, False, ["São", "Paulo", "não"]),
        (UNCASED, True, False, ["são", "paulo", "não"]),
        (STRIPPED, True, True, ["sao", "paulo", "nao"]),
        ([*SPECIAL, "A", "C", "G", "T", "##A", "##C"], False, False, None),
        ([*SPECIAL, "が", "##が", "か"], True, False, None),  # a voiced kana is stripped to another
        ([*SPECIAL, "中", "文"], True, True, None),
        # bert-base-chinese and the multilingual uncased BERT have two entries with capitals, people add more
        ([*SPECIAL, *(f"word{i}" for i in range(1000)), "COVID"], True, True, None),
        ([*SPECIAL, *(f"λ{i}" for i in range(1000)), "ação"], True, True, None),
        (["[UNUSED1]", *STRIPPED], True, True, None),
    ],
)
def test_entries_decide_and_it_is_said(tmp_path, vocab, lowercase, strips, tokens):
    with pytest.warns(UserWarning) as said:
        tokenizer = Tokenizer.load(bare(tmp_path / "v", vocab))
    assert len(said) == 1 and "vocab.txt" in str(said[0].message) and "--lowercase" in str(said[0].message)
    assert ("uncased" in str(said[0].message)) == lowercase
    assert (tokenizer.options.lowercase, tokenizer.options.normalizer.strip_accents) == (lowercase, strips)
    if tokens:
        assert tokenizer.encode("São Paulo não", add_special_tokens=False).tokens == tokens


def test_the_caller_decides_without_a_word(tmp_path):
    directory = bare(tmp_path / "v", CASED)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Tokenizer.load(directory, lowercase=True).options.lowercase
        assert not Tokenizer.load(bare(tmp_path / "u", STRIPPED), lowercase=False).options.lowercase


def test_a_configuration_decides(tmp_path):
    directory = bare(tmp_path / "v", CASED)
    (directory / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Tokenizer.load(directory).options.lowercase
        assert Tokenizer.load(directory, lowercase=True).options.lowercase
        with pytest.raises(InputError, match="--no-lowercase"):
            Tokenizer.load(directory, lowercase=False)
        Tokenizer.load(bare(tmp_path / "u", UNCASED), lowercase=False).save(tmp_path / "saved")
        assert not Tokenizer.load(tmp_path / "saved").options.lowercase
    (directory / "tokenizer_config.json").write_text('{"model_max_length": 512}')  # says nothing about case
    with pytest.warns(UserWarning, match=r"vocab\.txt"):
        assert not Tokenizer.load(directory).options.lowercase


def test_counts():
    found = VocabularyCase.of(CASED)
    assert (found.capitals, found.accents, found.cased, found.accented) == (3, 3, True, True)
    assert VocabularyCase.of([]) == VocabularyCase(0, 0, False, False)
