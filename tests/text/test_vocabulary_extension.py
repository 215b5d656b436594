"""Words and pieces appended to a vocabulary: old ids stay, each new word is one piece."""

import pytest

from fastbert.system.errors import InputError
from fastbert.text import Tokenizer
from fastbert.text.tokenizer_files import TokenizerOptions
from fastbert.text.vocabulary_extension import WordList, count_words, extended, most_useful_pieces

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [form for char in "abcdefghijklmnopqrstuvwxyz" for form in (char, "##" + char)]
VOCAB = [*SPECIAL, *LETTERS, "-", "1", "9", "##9", "gato", "##ico"]


@pytest.fixture
def tokenizer():
    return Tokenizer(VOCAB, TokenizerOptions(lowercase=True), added_tokens={"[MASK]": 4, "gato": VOCAB.index("gato")})


def words_file(path, text):
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_words_are_normalized_divided_and_counted(tmp_path, tokenizer):
    listed = WordList.read(
        words_file(tmp_path / "w.txt", "\ufeffBevacizumab\r\n\n gato \nCOVID-19\nbevacizumab\n[MASK]\nAção\n"),
        tokenizer,
    )
    assert listed.words == ["bevacizumab", "covid", "19", "acao"]
    assert listed.present == 2 and listed.divided == ["COVID-19"]
    assert "COVID-19" in str(listed) and "4 words added" in str(listed)
    more = extended(tokenizer, listed.words)
    assert more.vocab[: len(VOCAB)] == VOCAB and len(more) == len(VOCAB) + 4
    assert more.encode("Bevacizumab COVID-19", add_special_tokens=False).tokens == ["bevacizumab", "covid", "-", "19"]
    assert more.special_tokens == tokenizer.special_tokens
    accents = Tokenizer(VOCAB, TokenizerOptions(lowercase=False))
    assert WordList.read(words_file(tmp_path / "w.txt", "ac\u0327a\u0303o"), accents).words == ["a\u00e7\u00e3o"]
    assert WordList.read(tmp_path / "w.txt", accents, compose=False).words == ["ac\u0327a\u0303o"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("uma palavra\n", "line 1"),
        ("gato\n\x07\n", "line 2"),
        ("gato\n\n" + "a" * 101, "line 3"),
        ("\n \n", "no words"),
        (b"gato\n\xff\n", "byte 5"),
        (None, "w.txt"),
    ],
)
def test_a_line_that_is_no_word_is_named(tmp_path, tokenizer, content, expected):
    path = tmp_path / "w.txt"
    if content is not None:
        words_file(path, content)
    with pytest.raises(InputError) as error:
        WordList.read(path, tokenizer)
    assert expected in str(error.value) and f"--add-words {path}" in str(error.value) and "Try:" in str(error.value)


def test_the_pieces_that_save_most_are_found(tokenizer):
    text = ["bevacizumab " * 50 + "metformina " * 30 + "gato " * 500 + "raro é é ☂ "]
    counts = count_words(text, tokenizer)
    assert most_useful_pieces(counts, tokenizer, 1) == ["bevacizumab"]
    assert most_useful_pieces(counts, tokenizer, 2) == ["bevacizumab", "metformina"]
    found = most_useful_pieces(counts, tokenizer, 1000, min_frequency=1)
    assert {"bevacizumab", "metformina", "raro", "☂"} <= set(found) and not set(found) & set(VOCAB)
    assert "☂" not in most_useful_pieces(counts, tokenizer, 1000)  # seen once
    more = extended(tokenizer, found)
    assert more.encode("raro ☂ metformina", add_special_tokens=False).tokens == ["raro", "☂", "metformina"]
    assert most_useful_pieces([("gato", 9)], tokenizer, 5) == []


def test_characters_that_the_vocabulary_lacks_count_as_their_words():
    tokenizer = Tokenizer([*SPECIAL, *LETTERS], TokenizerOptions(lowercase=False))
    counts = [("żaba", 40), ("ab", 9), ("bż", 3)]
    found = most_useful_pieces(counts, tokenizer, 3)
    assert set(found) == {"żaba", "ab", "bż"}
    assert extended(tokenizer, found).encode("żaba bż", add_special_tokens=False).tokens == ["żaba", "bż"]
    assert most_useful_pieces([("ż", 2), ("aż", 2), ("az", 2)], tokenizer, 1) == ["aż"]
    assert "ż" in most_useful_pieces([("ż", 2), ("aż", 2), ("az", 2)], tokenizer, 9)
