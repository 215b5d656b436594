"""Combining marks belong to their word, wherever words are cut."""

import unicodedata

import numpy as np
import pytest

from fastbert.system.marks import spans_with_marks
from fastbert.tasks.examples import QuestionExample, word_spans
from fastbert.tasks.features import span_rows
from fastbert.tasks.prediction import entities
from fastbert.text import Tokenizer

TEXT = "José e Pelé vivem em Maceió, não?"


@pytest.mark.parametrize("text", [TEXT, "Müller's naïve café.", "(é) à", "é!é"])
def test_both_ways_to_write_accents_give_the_same_words(text):
    both = [unicodedata.normalize(form, text) for form in ("NFC", "NFD")]
    composed, decomposed = ([x[a:b] for a, b in word_spans(x)] for x in both)
    assert [unicodedata.normalize("NFC", word) for word in decomposed] == composed
    assert len(both[1]) > len(both[0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("कि हिन्दी, में।", ["कि", "हिन्दी", ",", "में", "।"]),
        ("ที่นี่!", ["ที่นี่", "!"]),
        ("❤️ 1️⃣ x̂.", ["❤️", "1️⃣", "x̂", "."]),
        ("می‌ خانه", ["می‌", "خانه"]),
        ("ന്‍, x", ["ന്‍", ",", "x"]),
        ("👩‍👩‍👧! 🐈‍⬛🐈 👍🏽 🇧🇷🇵🇹 ❤️‍🔥.", ["👩‍👩‍👧", "!", "🐈‍⬛", "🐈", "👍🏽", "🇧🇷", "🇵🇹", "❤️‍🔥", "."]),
        ("\u0301a", ["\u0301", "a"]),
    ],
)
def test_marks_that_have_no_composed_form(text, expected):
    assert [text[a:b] for a, b in word_spans(text)] == expected


def test_an_entity_ends_with_its_marks():
    text = unicodedata.normalize("NFD", "Mora José")
    found = entities(text, word_spans(text), ["O", "B-PER"], [1.0, 1.0])
    assert [(e["text"], e["end"]) for e in found] == [(unicodedata.normalize("NFD", "José"), len(text))]


@pytest.mark.parametrize("lowercase", [True, False])
def test_an_answer_ends_with_its_marks(lowercase):
    """A tokenizer that removes accents gives "é" of two characters the span of the first."""
    context = unicodedata.normalize("NFD", "Aqui mora José")
    answer = unicodedata.normalize("NFD", "José")
    tokenizer = Tokenizer.train([TEXT, context], vocab_size=120, min_frequency=1, lowercase=lowercase)
    example = QuestionExample("", "1", "?", context, [(answer, context.index(answer))], [answer])
    rows = span_rows([example], tokenizer, 64, 8, labelled=True)
    first, last = rows.targets[0]
    start, end = int(rows.offsets[0][first, 0]), int(rows.offsets[0][last, 1])
    assert first > 0 and context[start:end] == answer


def test_spans_grow_over_marks_that_no_other_span_covers():
    text = "e\u0301\u0302a b\u0301"
    assert spans_with_marks(text, [(0, 1), (3, 4), (5, 6)]) == [(0, 3), (3, 4), (5, 7)]
    assert spans_with_marks(text, [(0, 1), (1, 2), (2, 3)]) == [(0, 1), (1, 2), (2, 3)]
    assert spans_with_marks("", []) == [] and np.array(spans_with_marks("ab", [(0, 1)])).tolist() == [[0, 1]]
