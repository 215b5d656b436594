"""Joint filling against every filling there is, on a vocabulary small enough to try them all."""

import functools
import itertools
import math

import pytest
import torch

import support
from fastbert.inference import fill_mask
from fastbert.system.errors import InputError
from fastbert.text.tokenizer_files import TokenizerOptions
from support import SPECIAL

VOCAB = [*SPECIAL, "o", "mar", "casa", "##inho", "##s", "é", "azul"]
WORDS = range(5, 12)
TEXT = "o [MASK] é [MASK] [MASK]"


make_bert = functools.partial(
    support.make_bert,
    VOCAB,
    tokenizer_options=TokenizerOptions(strip_accents=False),
    max_position_embeddings=24,
    noise=0.2,
)


@pytest.fixture(scope="module")
def bert():
    return make_bert()


def log_probs(bert, ids):
    with torch.no_grad():
        return bert.model(torch.tensor([ids])).prediction_logits[0].double().log_softmax(-1)


def joint_score(bert, ids, wanted):
    """The definition: fill the surest mask, ask again. ``wanted``: place -> token."""
    ids, left, score = list(ids), sorted(wanted), 0.0
    while left:
        here = log_probs(bert, ids)
        place = max(left, key=lambda p: (here[p].max().item(), -p))
        score += here[place][wanted[place]].item()
        ids[place] = wanted[place]
        left.remove(place)
    return score


@pytest.mark.parametrize("arch", ["classic", "modern"])
def test_the_joint_probabilities_of_all_fillings_sum_to_one(arch):
    bert = make_bert(arch)
    ids = bert.tokenizer.encode("o [MASK] é [MASK]").ids
    every = list(itertools.product(range(len(VOCAB)), repeat=2))
    scores = fill_mask.joint_log_scores(bert.model, bert.tokenizer, [ids] * len(every), every)
    assert sum(map(math.exp, scores)) == pytest.approx(1, abs=1e-4)
    for pair in every[::29]:
        assert scores[every.index(pair)] == pytest.approx(joint_score(bert, ids, {2: pair[0], 4: pair[1]}), abs=1e-4)


def test_a_wide_beam_finds_the_best_of_all_fillings(bert):
    ids = bert.tokenizer.encode(TEXT).ids
    places = [i for i, token in enumerate(ids) if token == bert.tokenizer.mask_id]
    every = list(itertools.product(WORDS, repeat=3))
    scores = fill_mask.joint_log_scores(bert.model, bert.tokenizer, [ids] * len(every), every)
    best = sorted(zip(scores, every, strict=True), reverse=True)[:5]
    found = bert.fill_mask(TEXT, top_k=5, method="beam", beam=len(WORDS) ** 2)
    assert [tuple(answer["tokens"]) for answer in found] == [tokens for _, tokens in best]
    assert [answer["log_score"] for answer in found] == pytest.approx([score for score, _ in best], abs=1e-4)
    top = found[0]
    assert top["score"] == pytest.approx(math.exp(top["log_score"]))
    assert top["token_strs"] == [VOCAB[token] for token in top["tokens"]]
    filled = list(ids)
    for place, token in zip(places, top["tokens"], strict=True):
        filled[place] = token
    assert top["sequence"] == bert.tokenizer.decode(filled)


@pytest.mark.parametrize("arch", ["classic", "modern"])
@pytest.mark.parametrize("text", ["o [MASK] [MASK] é", TEXT, "[MASK] mar [MASK] [MASK]"])
def test_the_exact_search_finds_the_best_of_all_fillings(arch, text):
    bert = make_bert(arch)
    ids = bert.tokenizer.encode(text).ids
    every = list(itertools.product(WORDS, repeat=text.count("[MASK]")))
    scores = fill_mask.joint_log_scores(bert.model, bert.tokenizer, [ids] * len(every), every)
    best = sorted(zip(scores, every, strict=True), reverse=True)[:4]
    found = bert.fill_mask(text, top_k=4, method="exact", beam=1)
    assert [tuple(answer["tokens"]) for answer in found] == [tokens for _, tokens in best]
    assert [answer["log_score"] for answer in found] == pytest.approx([score for score, _ in best], abs=1e-4)
    assert all(answer["proven"] for answer in found)


def test_the_exact_search_repairs_what_a_narrow_beam_misses(random_start):
    """Over many models: the beam of one is sometimes wrong, the exact search never, and it says so."""
    missed = 0
    for seed in range(12):
        bert = make_bert(seed=seed)
        narrow, exact = (bert.fill_mask(TEXT, 1, method, beam=1)[0] for method in ("beam", "exact"))
        wide = bert.fill_mask(TEXT, 1, "beam", beam=len(WORDS) ** 3)[0]
        assert exact["tokens"] == wide["tokens"] and exact["proven"]
        missed += narrow["tokens"] != exact["tokens"]
    assert missed, "a narrow beam that never fails tests nothing"


def test_an_exact_search_cut_short_says_that_nothing_is_proven(bert):
    whole = bert.fill_mask(TEXT, 20, "exact", beam=1)
    short = bert.fill_mask(TEXT, 20, "exact", beam=1, passes=1)
    assert not short[0]["proven"] and whole[0]["proven"]
    assert short[0]["log_score"] <= whole[0]["log_score"] + 1e-5
    beam = bert.fill_mask(TEXT, 1, "beam", beam=4)[0]
    assert bert.fill_mask(TEXT, 1, "exact", beam=4, passes=1)[0]["log_score"] >= beam["log_score"] - 1e-5


def test_the_exact_search_chooses_among_candidates_and_lengths(bert):
    options = {"candidates": [["mar", "casas", "marinho"], ["azul", "o"]], "top_k": 6}
    exact, beam = (bert.fill_mask("[MASK] é [MASK]", method=m, beam=64, **options) for m in ("exact", "beam"))
    assert [a["token_strs"] for a in exact] == [a["token_strs"] for a in beam] and len(exact) == 6
    assert all(answer["proven"] for answer in exact)


def test_best_first_fills_the_surest_mask_and_asks_again(bert):
    ids = list(bert.tokenizer.encode(TEXT).ids)
    score = 0.0
    for _ in range(3):
        here = log_probs(bert, ids)
        place = max((i for i, t in enumerate(ids) if t == bert.tokenizer.mask_id), key=lambda p: here[p].max().item())
        token = max(WORDS, key=lambda t: here[place][t].item())
        score += here[place][token].item()
        ids[place] = token
    answers = bert.fill_mask(TEXT, top_k=3, method="best-first")
    assert answers[0]["log_score"] >= score - 1e-4, "the greedy filling is among the beginnings"
    assert any(answer["log_score"] == pytest.approx(score, abs=1e-4) for answer in answers)
    assert bert.fill_mask(TEXT, top_k=1, method="best-first")[0]["sequence"] == bert.tokenizer.decode(ids)


def test_one_mask_is_filled_alike_by_every_method(bert):
    plain = bert.fill_mask("o [MASK] é azul", top_k=3)
    for method in ("best-first", "beam", "exact"):
        joint = bert.fill_mask("o [MASK] é azul", top_k=20, method=method)
        assert len(joint) == len(WORDS), "special tokens are no words"
        by_token = {answer["tokens"][0]: answer["score"] for answer in joint}
        for guess in plain:
            if guess["token"] in WORDS:
                assert by_token[guess["token"]] == pytest.approx(guess["score"], rel=1e-4)


def test_words_of_several_pieces(bert):
    found = bert.fill_mask("o [MASK] é azul", top_k=200, method="beam", beam=100, max_pieces=3)
    starts, ends = ["o", "mar", "casa", "é", "azul"], ["inho", "s"]
    wanted = {a + "".join(b) for a in starts for n in range(3) for b in itertools.product(ends, repeat=n)}
    assert {answer["token_strs"][0] for answer in found} == wanted and len(found) == len(wanted)
    by_word = {answer["token_strs"][0]: answer for answer in found}
    ids = [2, 5, 4, 4, 10, 11, 3]
    assert by_word["casas"]["tokens"] == [[7, 9]]
    assert by_word["casas"]["log_score"] == pytest.approx(joint_score(bert, ids, {2: 7, 3: 9}), abs=1e-4)


def test_candidates_of_any_length(bert):
    found = bert.fill_mask("o [MASK] é azul", candidates=["Marinho", "casa", "casas azul"], top_k=5)
    assert {guess["token_str"] for guess in found} == {"marinho", "casa", "casas azul"}
    by_word = {guess["token_str"]: guess for guess in found}
    assert by_word["casa"]["token"] == 7 and by_word["marinho"]["token"] == [6, 8]
    plain = {guess["token"]: guess["score"] for guess in bert.fill_mask("o [MASK] é azul", top_k=12)}
    assert by_word["casa"]["score"] == pytest.approx(plain[7], rel=1e-4)
    want = math.exp(joint_score(bert, [2, 5, 4, 4, 10, 11, 3], {2: 6, 3: 8}))
    assert by_word["marinho"]["score"] == pytest.approx(want, rel=1e-3)
    assert by_word["marinho"]["sequence"] == "o marinho é azul"


def test_candidates_of_each_mask_and_all_pairs(bert):
    pairs = bert.fill_mask("[MASK] é [MASK]", method="beam", candidates=[["mar", "casas"], ["azul", "o"]], top_k=9)
    assert {tuple(answer["token_strs"]) for answer in pairs} == set(itertools.product(["mar", "casas"], ["azul", "o"]))
    ids = [2, 4, 4, 10, 4, 3]
    by_words = {tuple(answer["token_strs"]): answer["log_score"] for answer in pairs}
    assert by_words["casas", "o"] == pytest.approx(joint_score(bert, ids, {1: 7, 2: 9, 4: 5}), abs=1e-4)
    each = bert.fill_mask("[MASK] é [MASK]", candidates=[["mar", "casas"], ["azul", "o"]])
    assert [{guess["token_str"] for guess in guesses} for guesses in each] == [{"mar", "casas"}, {"azul", "o"}]
    assert "[MASK]" in each[0][0]["sequence"], "the other mask stays"


def test_several_texts_at_once_equal_one_by_one(bert):
    texts = [TEXT, "[MASK] casa", "o [MASK] [MASK]"]
    for method in ("best-first", "beam", "exact"):
        together = bert.fill_mask(texts, top_k=2, method=method)
        for text, answers in zip(texts, together, strict=True):
            alone = bert.fill_mask(text, top_k=2, method=method)
            assert [a["tokens"] for a in alone] == [a["tokens"] for a in answers]


def test_a_joint_filling_is_at_least_as_likely_as_independent_guesses(bert):
    ids = bert.tokenizer.encode(TEXT).ids
    words = [
        next(g["token"] for g in guesses if g["token"] in WORDS)
        for guesses in bert.fill_mask(TEXT, top_k=len(WORDS) + 5)
    ]
    apart = fill_mask.joint_log_scores(bert.model, bert.tokenizer, [ids], [words])[0]
    assert bert.fill_mask(TEXT, method="beam")[0]["log_score"] >= apart - 1e-5


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("o mar", {}, r"no \[MASK\] in 'o mar'"),
        (TEXT, {"method": "greedy"}, "method='greedy': .*best-first"),
        (TEXT, {"top_k": 0}, "top_k=0: expected at least 1"),
        (TEXT, {"beam": 0, "method": "beam"}, "beam=0"),
        (TEXT, {"passes": 0, "method": "exact"}, "passes=0"),
        (TEXT, {"candidates": []}, "expected a list of words"),
        (TEXT, {"candidates": "mar"}, "expected a list of words"),
        (TEXT, {"candidates": ["mar", "zebra"]}, "candidate 'zebra': the vocabulary cannot write it"),
        (TEXT, {"candidates": [["mar"], ["azul"]]}, r"2 lists of candidates for 3 \[MASK\]s"),
        (TEXT, {"method": "beam", "max_pieces": 9}, "more than 512 combinations"),
        ("[MASK] " + "o " * 20, {"max_pieces": 3}, "has 25 tokens and the model takes 24"),
    ],
)
def test_what_cannot_be_filled(bert, text, options, message):
    with pytest.raises(InputError, match=message):
        bert.fill_mask(text, **options)
