"""Generation: the same seed gives the same text, nothing forbidden is written, every option does what it says."""

import itertools
import json

import pytest
import torch

import support
from fastbert import generate
from fastbert.bert import Bert
from fastbert.config import BertConfig
from fastbert.inference import generation
from fastbert.inference.generation import Sampling
from fastbert.model import BertForPreTraining
from fastbert.system.cli import run
from fastbert.system.errors import InputError
from fastbert.text import Tokenizer
from support import SPECIAL

VOCAB = [*SPECIAL, "[unused0]", "[unused1]", *"abcdefghijklmnop", "##s", "##z"]
MASK = 4


def make_bert(peaked=False):
    bert = support.make_bert(VOCAB, "modern", seed=1, noise=0.15, max_position_embeddings=40)
    if peaked:  # specials, unused entries and pieces of words are what it likes best
        with torch.no_grad():
            bert.model.head.bias[[0, 1, 2, 3, 4, 5, 6, 23, 24]] += 50.0
    return bert


@pytest.fixture(scope="module")
def bert():
    return make_bert()


def rows_of(bert, count=3, length=20, **options):
    rows = generation.masked_sequences(bert.tokenizer, "a b", length, count, 32, 40)
    return generation.generate(bert.model, bert.tokenizer, rows, Sampling(**options))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"order": "random"},
        {"order": "left-to-right", "temperature": 1.5, "top_p": 1.0},
        {"remask": True, "steps": 6},
        {"steps": 1},
        {"steps": 50},
        {"block": 3},
        {"gibbs": 2, "temperature": 0},
        {"no_repeat_ngram": 0, "repetition_penalty": 1.0},
    ],
    ids=str,
)
def test_every_mask_is_filled_and_the_seed_decides_how(bert, options):
    rows = rows_of(bert, **options)
    assert all(len(row) == 24 and row[:3] == [2, 7, 8] and row[-1] == 3 for row in rows)
    assert all(set(row[3:-1]) <= set(range(7, 25)) for row in rows), "ordinary tokens only"
    assert rows_of(bert, **options) == rows
    if options.get("temperature") != 0 or "gibbs" not in options:
        assert rows_of(bert, seed=1, **options) != rows
        assert rows[0] != rows[1], "samples of one prompt differ"


def test_specials_and_unused_entries_are_never_written_nor_a_word_begun_in_its_middle():
    bert = make_bert(peaked=True)
    rows = generation.masked_sequences(bert.tokenizer, "", 20, 4, 32, 40)
    rows = generation.generate(bert.model, bert.tokenizer, rows, Sampling(no_repeat_ngram=0, repetition_penalty=1.0))
    for row in rows:
        assert set(row[1:-1]) <= set(range(7, 25)) and row[1] < 23
        assert set(row[2:-1]) & {23, 24}, "the model would write them everywhere"


def test_nothing_is_repeated(bert):
    for order, block in itertools.product(["confidence", "left-to-right", "random"], [None, 4]):
        for row in rows_of(bert, length=30, no_repeat_ngram=2, order=order, block=block, temperature=0.3, gibbs=1):
            assert all(a != b for a, b in itertools.pairwise(row))
            pairs = list(itertools.pairwise(row[1:-1]))
            assert len(set(pairs)) == len(pairs)
    free = rows_of(bert, length=30, no_repeat_ngram=0, repetition_penalty=1.0, temperature=0)
    assert any(a == b for row in free for a, b in itertools.pairwise(row)), "left to itself the model repeats"


def test_the_penalty_makes_more_different_tokens(bert):
    plain, penalised = (
        rows_of(bert, length=30, count=8, repetition_penalty=penalty, no_repeat_ngram=0) for penalty in (1.0, 3.0)
    )
    assert sum(len(set(row)) for row in penalised) > sum(len(set(row)) for row in plain) + 8


def test_temperature_zero_takes_the_most_likely_token_each_time(bert):
    ids = [2, 7, MASK, MASK, 3]
    options = {"temperature": 0, "no_repeat_ngram": 0, "repetition_penalty": 1.0}
    found = generation.generate(bert.model, bert.tokenizer, [ids], Sampling(**options))[0]
    ordinary = torch.arange(7, 25)
    wanted = list(ids)
    for _ in range(2):
        with torch.no_grad():
            logits = bert.model(torch.tensor([wanted])).prediction_logits[0]
        probabilities = logits[:, ordinary].softmax(-1)
        place = max((i for i in (2, 3) if wanted[i] == MASK), key=lambda p: probabilities[p].max().item())
        wanted[place] = int(ordinary[probabilities[place].argmax()])
    assert found == wanted


def test_top_p_keeps_the_tokens_that_hold_that_probability(bert):
    writer = generation._Sampler(bert.model, bert.tokenizer, Sampling(temperature=1.0, top_p=0.6))
    log_probs = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().repeat(400, 1)
    drawn = writer._draw(log_probs)
    assert set(drawn.tolist()) == {0, 1} and 0.5 < (drawn == 0).double().mean() < 0.75  # 0.625 of what is left


def test_left_to_right_writes_from_the_left(bert, monkeypatch):
    seen = []
    propose = generation._Sampler._propose
    monkeypatch.setattr(
        generation._Sampler, "_propose", lambda self, rows, masks: seen.append(masks[0]) or propose(self, rows, masks)
    )
    rows_of(bert, count=1, length=4, order="left-to-right")
    assert seen == [[3, 4, 5, 6], [4, 5, 6], [5, 6], [6]]
    seen.clear()
    rows_of(bert, count=1, length=6, steps=3, block=2)
    assert [len(masks) for masks in seen] == [2, 2, 2]
    seen.clear()
    rows_of(bert, count=1, length=6, steps=3, remask=True)
    assert [len(masks) for masks in seen] == [6, 4, 2]


def test_the_prompt_stays_and_its_masks_are_filled(bert):
    assert bert.generate("a b c", 5).startswith("a b c ")
    words = bert.generate("a [MASK] c [MASK]").split()
    assert words[0] == "a" and "c" in words and "[MASK]" not in words
    assert isinstance(bert.generate("", 3), str) and len(bert.generate("", 3, samples=2)) == 2
    assert bert.generate(samples=1) == [bert.generate()]


def test_a_vocabulary_in_which_everything_repeats_comes_to_an_end():
    tokenizer = Tokenizer([*SPECIAL, "a", "b"])
    model = BertForPreTraining(BertConfig.preset("tiny", vocab_size=7, max_position_embeddings=32))
    assert len(Bert(model, tokenizer).generate("a", 12).split()) == 13


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"steps": 0}, "steps=0: expected at least 1"),
        ({"temperature": -1}, "temperature=-1"),
        ({"top_p": 0}, "top_p=0"),
        ({"order": "any"}, "order='any': expected one of confidence, random, left-to-right"),
        ({"block": 0}, "block=0"),
        ({"gibbs": -1}, "gibbs=-1"),
        ({"repetition_penalty": 0}, "repetition_penalty=0"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram=-1"),
        ({"seed": -1}, "seed=-1"),
        ({"length": 0}, "length=0"),
        ({"length": 40}, "1 tokens and 40 new ones: the model takes 38"),
        ({"samples": 0}, "samples=0"),
        ({"top_k": 3}, "top_k=…: generate\\(\\) has no such option"),
    ],
    ids=str,
)
def test_what_cannot_be(bert, call, message):
    with pytest.raises(InputError, match=message):
        bert.generate("a", **call)


@pytest.fixture
def directory(tmp_path, bert):
    bert.save(tmp_path)
    return str(tmp_path)


def test_the_command_writes_and_repeats_itself(directory, capsys):
    options = [directory, "a b c", "--length", "5", "--samples", "2", "--order", "left-to-right", "--top-p", "0.8"]
    assert run(generate.main, generate.GenerateOptions, options) == 0
    first = capsys.readouterr().out
    assert len(first.splitlines()) == 2 and all(line.startswith("a b c ") for line in first.splitlines())
    assert run(generate.main, generate.GenerateOptions, options) == 0
    assert capsys.readouterr().out == first
    assert run(generate.main, generate.GenerateOptions, [*options, "--seed", "1", "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["prompt"] for record in records] == ["a b c", "a b c"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--top-p", "0"], "top_p=0.0: expected a probability"),
        (["--samples", "0"], "--samples 0: expected at least 1"),
        (["--length", "99"], "the model takes 38 together"),
        (["--order", "any"], "order"),
    ],
)
def test_the_command_refuses_in_one_line(directory, options, message, capsys):
    assert run(generate.main, generate.GenerateOptions, [directory, "", *options]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
