"""Pseudo-log-likelihoods equal a loop that hides one token at a time; texts are packed, order is kept."""

import functools
import itertools
import math

import pytest
import torch

import support
from fastbert.inference import scoring
from fastbert.inference.scoring import TextScore, pseudo_perplexity, score_texts
from fastbert.system.errors import InputError
from fastbert.text.tokenizer_files import TokenizerOptions
from support import SPECIAL

VOCAB = [*SPECIAL, "o", "a", "casa", "mar", "##inho", "##es", "é", "azul", ".", ",", "não"]
TEXTS = [
    "o mar é azul .",
    "a",
    "",
    "marinhoes , não marinho .",
    "o zebra é mares",
    "o [SEP] mar",
    "a casa é a casa é a casa",
]


make_bert = functools.partial(
    support.make_bert,
    VOCAB,
    tokenizer_options=TokenizerOptions(strip_accents=False),
    max_position_embeddings=32,
    noise=0.2,
)


@pytest.fixture(scope="module")
def bert():
    return make_bert()


def one_at_a_time(bert, text, method):
    """The definition, in the plainest way."""
    encoding = bert.tokenizer.encode(text)
    scores = []
    for place, token in enumerate(encoding.ids):
        if encoding.tokens[place] in ("[CLS]", "[SEP]", "[PAD]"):
            continue
        ids = list(encoding.ids)
        ids[place] = bert.tokenizer.mask_id
        for later in range(place + 1, len(ids)):
            if method == "l2r" and encoding.word_ids[later] == encoding.word_ids[place]:
                ids[later] = bert.tokenizer.mask_id
        with torch.no_grad():
            logits = bert.model(torch.tensor([ids])).prediction_logits[0, place]
        scores.append(logits.double().log_softmax(-1)[token].item())
    return scores


@pytest.mark.parametrize("method", ["l2r", "pll"])
@pytest.mark.parametrize(("arch", "window"), [("classic", None), ("roformer", None), ("modern", None), ("modern", 2)])
def test_equals_the_loop_over_single_tokens(arch, window, method):
    bert = make_bert(arch, window=window)
    scored = bert.score(TEXTS, method, per_token=True)
    for text, score in zip(TEXTS, scored, strict=True):
        wanted = one_at_a_time(bert, text, method)
        assert score.log_probs == pytest.approx(wanted, abs=1e-4), text
        assert score.text == text and score.score == pytest.approx(math.fsum(wanted), abs=1e-3)
    assert len({round(s.score, 3) for s in scored if s.log_probs}) == len(TEXTS) - 1, "a model that tells texts apart"


def test_methods_differ_in_words_of_several_pieces_only(bert):
    l2r, pll = (bert.score(TEXTS, method, per_token=True) for method in ("l2r", "pll"))
    assert l2r[0].log_probs == pytest.approx(pll[0].log_probs, abs=1e-5)
    pieces = l2r[3].tokens
    assert pieces == ["mar", "##inho", "##es", ",", "não", "mar", "##inho", "."]
    differs = [abs(x - y) > 1e-3 for x, y in zip(l2r[3].log_probs, pll[3].log_probs, strict=True)]
    assert differs == [True, True, False, False, False, True, False, False]


def test_tokens_point_into_the_text(bert):
    score = bert.score("Marinho, não.", per_token=True)
    assert score.tokens == ["mar", "##inho", ",", "não", "."]
    assert ["Marinho, não."[a:b] for a, b in score.offsets] == ["Mar", "inho", ",", "não", "."]


def test_any_batch_size_gives_the_same(bert):
    whole = score_texts(bert.model, bert.tokenizer, TEXTS)
    for tokens in (1, 9, 40):
        parts = score_texts(bert.model, bert.tokenizer, TEXTS, batch_tokens=tokens)
        for one, other in zip(whole, parts, strict=True):
            assert one.log_probs == pytest.approx(other.log_probs, abs=1e-4)


def test_a_repeated_text_is_scored_once(bert, monkeypatch):
    scored = []
    compute = scoring.label_log_probs
    monkeypatch.setattr(scoring, "label_log_probs", lambda m, b: scored.append(len(b.labels)) or compute(m, b))
    scores = bert.score([TEXTS[0], TEXTS[6], TEXTS[0]], per_token=True)
    assert sum(scored) == len(scores[0].log_probs) + len(scores[1].log_probs)
    assert scores[2] == scores[0] != scores[1]
    scores[0].log_probs.append(0.0)
    assert scores[2] != scores[0], "each answer is its own"


def test_one_text_gives_a_number_and_several_a_list(bert):
    scores = bert.score(TEXTS)
    assert all(isinstance(score, float) for score in scores) and len(scores) == len(TEXTS)
    assert bert.score(TEXTS[3]) == pytest.approx(scores[3], abs=1e-4)
    assert isinstance(bert.score("a", per_token=True), TextScore)
    assert bert.score([]) == [] and bert.score("") == 0.0


def test_pseudo_perplexity_is_over_all_tokens_of_all_texts(bert):
    scored = bert.score(TEXTS, per_token=True)
    log_probs = list(itertools.chain(*(score.log_probs for score in scored)))
    assert bert.pseudo_perplexity(TEXTS) == pytest.approx(math.exp(-sum(log_probs) / len(log_probs)))
    assert bert.pseudo_perplexity("a casa") == pytest.approx(bert.score("a casa", per_token=True).pseudo_perplexity)
    assert pseudo_perplexity([TextScore("x", ["x"], [(0, 1)], [-5000.0])]) < math.inf


@pytest.mark.parametrize(
    ("texts", "method", "message"),
    [
        ("o [MASK]", "l2r", r"\[MASK\] in 'o \[MASK\]'"),
        ("a", "ltr", "method='ltr': expected one of l2r, pll"),
        ("a " * 40, "l2r", "has 42 tokens and the model takes 32"),
    ],
)
def test_what_cannot_be_scored(bert, texts, method, message):
    with pytest.raises(InputError, match=message):
        bert.score(texts, method)


def test_nothing_to_score(bert):
    with pytest.raises(InputError, match="no token to score"):
        bert.pseudo_perplexity(["", ""])
    encoder = make_bert()
    encoder.model.fresh = ["head.dense.weight"]
    with pytest.raises(InputError, match="no masked-LM head"):
        encoder.score("a")
