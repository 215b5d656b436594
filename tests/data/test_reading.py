"""What readers do to text: Unicode normalization, and where a document of plain text ends."""

import json
import sys
import unicodedata

import pytest
from corpus_files import read, write
from made_up_stores import Words, documents_of, ids

from fastbert.data import Corpus, write_store
from fastbert.data.corpus import reading, text_blocks
from fastbert.data.corpus.reading import ReadingRules
from fastbert.system import native
from fastbert.system.errors import InputError
from fastbert.text import Tokenizer

ACCENTS = "Não há hesitação: José é um médico.\nA ação começou às três."
RULES = ("blank", "line", "file", "<|endoftext|>")


@pytest.mark.skipif(native.core() is None, reason="the twin always normalizes")
def test_no_text_that_normalization_changes_is_passed_over():
    may_change = native.core().may_change_in_nfc
    for code in (c for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000):
        char = chr(code)
        if not may_change(char):
            assert not unicodedata.combining(char), hex(code)
            for text in (char, "a" + char, "\u1100" + char, "\u09c7" + char):
                assert unicodedata.is_normalized("NFC", text), hex(code)


def test_most_texts_are_not_normalized_again(monkeypatch):
    if native.core() is None:
        pytest.skip("the twin always normalizes")
    monkeypatch.setattr(reading, "unicodedata", None)
    for text in ("plain", "“Não”, disse — e foi.", "中文。かな", "Привет", "😀 한국어", ACCENTS * 50):
        assert ReadingRules().normalized(text) is text


@pytest.mark.parametrize("impl", ["auto", "reference"])
@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".csv"])
def test_decomposed_accents_are_composed_unless_they_are_kept(tmp_path, monkeypatch, ending, impl):
    monkeypatch.setenv("FASTBERT_IMPL", impl)
    decomposed = unicodedata.normalize("NFD", ACCENTS)
    content = {".txt": decomposed, ".jsonl": json.dumps({"text": decomposed}), ".csv": f'text\n"{decomposed}"\n'}
    path = write(tmp_path / f"a{ending}", content[ending])
    assert read(path) == [ACCENTS.split("\n")]
    assert "".join(Corpus([str(path)]).text_chunks()).strip() == ACCENTS
    assert read(path, normalize="none") == [decomposed.split("\n")]
    for rules, expected in (({}, ACCENTS), ({"normalize": "none"}, decomposed)):
        store = write_store(tmp_path / "-".join(rules.values()), Corpus([str(path)], **rules), Words())
        assert documents_of(store) == [ids(expected)]


def test_the_rules_are_part_of_what_a_store_was_made_from(tmp_path):
    path = write(tmp_path / "a.txt", "um\n\ndois\ntrês")
    stores = [{}, {"documents": "line"}, {"normalize": "none"}, {"documents": "line", "normalize": "none"}]
    corpora = [Corpus([str(path)], **rules) for rules in stores]
    digests = [
        write_store(tmp_path / str(number), corpus, Words()).manifest.corpus for number, corpus in enumerate(corpora)
    ]
    assert len(set(digests)) == len(digests)
    with pytest.raises(InputError, match="another text"):
        write_store(tmp_path / "0", corpora[1], Words())


TEXT = "a b\n \nc<|endoftext|>d\n\n<|endoftext|>\n\t\ne\nf\n\n\ng<|endoftext|>\nh"
EXPECTED = {
    "blank": ["a b", "c<|endoftext|>d", "<|endoftext|>", "e f", "g<|endoftext|> h"],
    "line": ["a b", "c<|endoftext|>d", "<|endoftext|>", "e", "f", "g<|endoftext|>", "h"],
    "file": ["a b c<|endoftext|>d <|endoftext|> e f g<|endoftext|> h"],
    "<|endoftext|>": ["a b c", "d", "e f g", "h"],
}


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("rule", RULES)
def test_documents_end_where_the_rule_says(tmp_path, small_batches, rule, newline):
    path = write(tmp_path / "a.txt", TEXT.replace("\n", newline))
    expected = EXPECTED[rule]
    assert [" ".join(lines) for lines in read(path, documents=rule)] == expected
    store = write_store(tmp_path / "s", Corpus([str(path)] * 2, documents=rule), Words())
    assert documents_of(store) == [ids(document) for document in expected * 2]
    counted = " ".join(Corpus([str(path)], documents=rule).text_chunks()).split()
    assert counted == " ".join(expected).split(), "the vocabulary is trained on the same words"


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("tail", [
    "", "\n", "\n\n", "\nfim", "\n\nfim", " \n\nfim", "\n\n\n fim\n", "<|endoftext|>fim", "\n<|endoftext|>\nfim",
])  # fmt: skip
@pytest.mark.parametrize("over", range(4))
def test_a_cut_line_ends_no_document(tmp_path, small_batches, monkeypatch, rule, tail, over):
    text = ("abcdefg " * 16)[: 120 + over] + tail
    path = write(tmp_path / "a.txt", text)
    whole = documents_of(write_store(tmp_path / "whole", Corpus([str(path)], documents=rule), Words()))
    monkeypatch.setattr(text_blocks, "MAX_LINE_BYTES", 120)
    corpus = Corpus([str(path)], documents=rule)
    assert documents_of(write_store(tmp_path / "s", corpus, Words())) == whole
    assert [[i for line in lines for i in ids(line)] for lines in read(path, documents=rule)] == whole


def test_records_are_documents_under_every_rule(tmp_path):
    path = write(tmp_path / "a.jsonl", "".join(json.dumps({"text": f"um {i}\n\ndois"}) + "\n" for i in range(3)))
    for rule in RULES:
        assert read(path, documents=rule) == [[f"um {i}", "dois"] for i in range(3)]


@pytest.mark.parametrize("rules", [{"documents": ""}, {"documents": "a\nb"}, {"normalize": "nfkc"}])
def test_rules_that_mean_nothing_are_refused(tmp_path, rules):
    path = write(tmp_path / "a.txt", "a")
    with pytest.raises(InputError, match=r"--documents|--normalize"):
        Corpus([str(path)], **rules)


def test_decomposed_text_is_spelled_by_a_vocabulary_of_composed_text(tmp_path):
    tokenizer = Tokenizer.train([ACCENTS * 3], vocab_size=300, lowercase=False)
    path = write(tmp_path / "nfd.txt", unicodedata.normalize("NFD", ACCENTS))
    assert write_store(tmp_path / "nfc", Corpus([str(path)]), tokenizer).num_unknown == 0
    assert write_store(tmp_path / "none", Corpus([str(path)], normalize="none"), tokenizer).num_unknown > 5
