"""Texts of any language: equal texts score best, and what a measure cannot read is said."""

import unicodedata

import pytest

from fastbert import metrics
from fastbert.metrics.language import words
from fastbert.system.errors import InputError

TEXTS = {
    "thai": "สวัสดีครับ ผมชื่อสมชาย",
    "russian": "Привет, мир, как твои дела?",
    "chinese": "你好,世界真大。",
    "hindi": "नमस्ते दुनिया, आप कैसे हैं?",
    "arabic": "مَرْحَبًا بِكُم في العالَمِ الجَميلِ",
    "greek": "Καλημέρα κόσμε, τι κάνεις;",
    "english": "The cat sat on the mat.",
    "decomposed": unicodedata.normalize("NFD", "A ação não é o que José vê."),
}
WITHOUT_SPACES = ("thai", "chinese")


@pytest.mark.parametrize("name", TEXTS)
def test_equal_texts_score_best_in_any_language(name):
    text = TEXTS[name]
    found = metrics.rouge([text], [text], language="any")
    assert {kind: score.score for kind, score in found.items()} == {"rouge1": 1, "rouge2": 1, "rougeL": 1}
    assert metrics.exact_match([text], [text], language="any").score == 100
    assert metrics.token_f1([text], [text], language="any").score == 100
    meteor = metrics.meteor([text], [text], language="any")
    assert meteor.score > 0.98 and "lang:any" in meteor.signature and "stem:no" in meteor.signature
    both, others = [text, "quite other words"], [["nothing of it"], ["of the kind"]]
    assert metrics.cider(both, [[text], *others[1:]], language="any").per_text[0] == pytest.approx(10.0)
    scored = [found["rouge1"], meteor, metrics.cider(both, [[text], *others[1:]], language="any")]
    assert all(score.notes == () for score in scored)


def test_letters_that_a_tokenizer_drops_are_counted():
    found = metrics.rouge(["Привет мир"], ["Привет мир"])["rouge1"]
    assert found.score == 0 and any("18 of 18" in note for note in found.notes)
    assert metrics.rouge(["a cat"], ["the ação"])["rouge1"].notes[0].count("2 of 11") == 1
    assert metrics.rouge(["a cat"], ["the cat"])["rouge1"].notes == ()
    assert metrics.rouge(["Привет"], ["Привет"], language="pt")["rouge1"].notes == ()


@pytest.mark.parametrize("name", WITHOUT_SPACES)
def test_a_sentence_that_is_one_word_is_said(name):
    text = TEXTS[name]
    for score in (
        metrics.rouge([text], [text], language="pt")["rouge1"],
        metrics.meteor([text], [text], language="pt", use_synonyms=False),
        metrics.cider([text, text], [text, text]),
        metrics.bleu([text], [text]),
    ):
        assert any(text[:2] in note for note in score.notes), score
    assert metrics.bleu([text], [text], tokenize="char").notes == ()


def test_words_keep_their_marks():
    for text in TEXTS.values():
        spaced = "".join(words(text, tokenize="signs", language="any"))
        assert spaced == "".join(unicodedata.normalize("NFC", text).lower().split())
    assert words("हिन्दी में") == ["हिन्दी", "में"] and words("x̂ + ŷ") == ["x̂", "ŷ"]
    assert words("你好 world ที่นี่", language="any") == ["你", "好", "world", "ที่", "นี่"]
    # the letter before a mark is no article
    assert metrics.exact_match(["à la"], ["a\u0300 la"]).score == 100
    assert metrics.exact_match(["a\u0301 b"], ["b"]).score == 0 and metrics.exact_match(["a\u0324 b"], ["b"]).score == 0


def test_what_no_language_has():
    for call in (
        lambda: metrics.rouge(["a"], ["a"], language="any", stem=True),
        lambda: metrics.rouge(["a"], ["a"], language="any", stop_words=False),
        lambda: metrics.meteor(["a"], ["a"], language="any", stem="porter"),
    ):
        with pytest.raises(InputError, match="'any'"):
            call()
