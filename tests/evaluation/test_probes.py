"""fastbert.evaluation.probes: each answer is counted where it belongs, and pairs differ in nothing but order."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import fastbert
from fastbert.batch import PackedBatch
from fastbert.bert import Bert
from fastbert.evaluation import probes

CORPUS = """o gato dorme na casa grande e sonha com peixes
a menina feliz come pão com queijo na cozinha
o menino corre depressa pela rua até a escola
ela abriu a porta da casa e saiu sem falar
"""


@pytest.fixture(scope="module")
def bert():
    torch.manual_seed(0)
    tokenizer = fastbert.Tokenizer.train([CORPUS], vocab_size=80, min_frequency=1, lowercase=False)
    config = fastbert.BertConfig.preset("tiny", arch="modern", vocab_size=len(tokenizer))
    return Bert(fastbert.BertForPreTraining(config), tokenizer)


def sentences(bert):
    return [bert.tokenizer.encode(line, add_special_tokens=False).ids for line in CORPUS.splitlines()]


class KnowsSome:
    """Stands for a model: says the right piece for the labels in ``known`` and piece 0 for others."""

    training, device = False, torch.device("cpu")

    def __init__(self, bert, known, answers):
        self.parameters, self.known, self.answers, self.size = (
            bert.model.parameters,
            known,
            answers,
            len(bert.tokenizer),
        )

    def eval(self):
        return self

    def train(self, mode):
        return self

    def __call__(self, batch):
        logits = torch.zeros(len(self.answers), self.size)
        for row, answer in enumerate(self.answers):
            logits[row, answer if answer in self.known else 0] = 20.0
        return type("Out", (), {"prediction_logits": logits})()


def test_masked_accuracy_by_frequency_and_part_of_word(bert):
    tokenizer = bert.tokenizer
    continues = np.asarray(tokenizer.is_continuation).astype(bool)
    ids = [tokenizer.cls_id, *(i for row in sentences(bert) for i in row), tokenizer.sep_id]
    hidden = [p for p in range(1, len(ids) - 1)]
    labels = [ids[p] for p in hidden]
    expected = {"whole": [], "first": [], "continuation": []}
    for p in hidden:
        if continues[ids[p]]:
            expected["continuation"].append(ids[p])
        else:
            expected["first" if continues[ids[p + 1]] else "whole"].append(ids[p])
    assert all(expected.values()), "the corpus should have words of one piece and of several"
    batch = PackedBatch(
        input_ids=torch.tensor([tokenizer.mask_id if p in hidden else i for p, i in enumerate(ids)]),
        position_ids=torch.arange(len(ids)),
        token_type_ids=torch.zeros(len(ids), dtype=torch.long),
        cu_seqlens=torch.tensor([0, len(ids)], dtype=torch.int32),
        max_seqlen=len(ids),
        masked_index=torch.tensor(hidden),
        labels=torch.tensor(labels),
    )
    known = set(labels[::3])
    fake = type("Fake", (), {"model": KnowsSome(bert, known, labels), "tokenizer": tokenizer})()
    counts = np.bincount(labels, minlength=len(tokenizer))
    by_frequency, by_part = probes.masked_accuracy(fake, [batch], counts)
    for band in by_part:
        assert band.tokens == len(expected[band.name])
        assert band.accuracy == pytest.approx(np.mean([i in known for i in expected[band.name]]))
    assert [band.name for band in by_frequency] == [f"1–{len(tokenizer)}"]
    assert by_frequency[0].accuracy == pytest.approx(np.mean([i in known for i in labels]))


def test_bands_are_ranks_in_the_corpus(bert, monkeypatch):
    monkeypatch.setattr(probes, "RANK_BANDS", (2, 5))
    counts = np.zeros(len(bert.tokenizer), np.int64)
    counts[[7, 9, 11, 13, 15]] = [50, 40, 30, 20, 10]
    labels = [7, 9, 9, 13, 20]
    ids = [bert.tokenizer.cls_id, *[bert.tokenizer.mask_id] * 5, bert.tokenizer.sep_id]
    batch = PackedBatch(
        input_ids=torch.tensor(ids), position_ids=torch.arange(7), token_type_ids=torch.zeros(7, dtype=torch.long),
        cu_seqlens=torch.tensor([0, 7], dtype=torch.int32), max_seqlen=7, masked_index=torch.arange(1, 6),
        labels=torch.tensor(labels),
    )  # fmt: skip
    fake = type("Fake", (), {"model": KnowsSome(bert, {9}, labels), "tokenizer": bert.tokenizer})()
    by_frequency, _ = probes.masked_accuracy(fake, [batch], counts)
    assert [(b.name, b.tokens, round(b.accuracy, 3)) for b in by_frequency] == [
        ("1–2", 3, 0.667), ("3–5", 1, 0.0), (f"6–{len(counts)}", 1, 0.0),
    ]  # fmt: skip


def test_pairs_differ_in_order_only(bert):
    made = probes.make_pairs(bert, sentences(bert), count=3)
    assert [len(pairs) for pairs in made.values()] == [3, 3]
    for name, pairs in made.items():
        for real, other in pairs:
            assert real != other and real in CORPUS.splitlines()
            assert sorted(real.split()) == sorted(other.split())
            moved = sum(a != b for a, b in zip(real.split(), other.split(), strict=True))
            assert moved == 2 if name == probes.SWAPPED else moved >= 2
    assert made == probes.make_pairs(bert, sentences(bert), count=3)


def test_minimal_pairs_count_wins(bert, monkeypatch):
    real = set(CORPUS.splitlines())
    for better, expected in ((True, 1.0), (False, 0.0)):
        monkeypatch.setattr(bert, "score", lambda texts, b=better: [0.0 if (t in real) == b else -1.0 for t in texts])
        found = probes.minimal_pairs(bert, sentences(bert), count=4)
        assert [(p.name, p.pairs, p.preferred) for p in found] == [
            (probes.SWAPPED, 4, expected), (probes.SHUFFLED, 4, expected),
        ]  # fmt: skip


def test_short_time_asks_fewer_pairs(bert):
    many = sentences(bert) * 20
    found = probes.minimal_pairs(bert, many, count=60, seconds=0.0)
    assert [pair.pairs for pair in found] == [probes.PAIRS_PER_GROUP] * 2


def test_the_pairs_fill_the_time_that_is_left(bert, monkeypatch):
    """A budget of minutes ends on time: not early while there is something to ask, and within half a group."""
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now

    def score(texts):
        clock.now += 0.1 * len(texts)
        return [0.0] * len(texts)

    monkeypatch.setattr(probes, "time", clock)
    monkeypatch.setattr(bert, "score", score)
    group_s = 2 * 2 * 0.1 * probes.PAIRS_PER_GROUP  # two kinds of two texts
    for seconds in (8.0, 21.0, 33.3):
        clock.now = 0.0
        probes.probe(bert, [], sentences(bert) * 200, np.ones(len(bert.tokenizer)), ends_in_s=lambda s=seconds: s)
        assert abs(clock.now - (seconds - probes.EXIT_S)) <= group_s / 2


def test_nothing_to_ask_is_no_error(bert):
    found = probes.probe(bert, [], [[5, 6]], np.ones(len(bert.tokenizer), np.int64))
    assert found == probes.Probes([], [], []) and str(found) == "" and found.scalars() == {}


def test_a_run_saves_and_prints_them(tmp_path, monkeypatch, capsys):
    from fastbert.train import main
    from fastbert.training.options import TrainOptions

    lines = [f"{a} {b} {c} na {d} de seu tio" for a in ("o gato", "a moça", "o rei") for b in ("vê", "quer", "leva")
             for c in ("pão", "queijo", "um livro", "a flor") for d in ("casa", "rua", "escola", "praça")]  # fmt: skip
    (tmp_path / "corpus.txt").write_text("\n\n".join(lines), encoding="utf-8")
    run = tmp_path / "run"
    main(
        TrainOptions(
            data=[str(tmp_path / "corpus.txt")], output=str(run), preset="tiny", steps=3, batch_tokens=256,
            max_length=32, threads=1, evaluations=1,
        )
    )  # fmt: skip
    description = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert {band["name"] for band in description["probes"]["by_part"]} >= {"whole"}
    assert description["probes"]["pairs"][0]["pairs"] > 0
    assert description["examples"][0].keys() == {"text", "word", "guesses"}
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    probe = next(record for record in records if record["kind"] == "probe")
    assert any(name.startswith("accuracy_") for name in probe) and "prefers_real_all_words_shuffled" in probe
    printed = capsys.readouterr().out
    assert "masked accuracy by frequency" in printed and "prefers the original" in printed
