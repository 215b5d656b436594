"""Contrastive fine-tuning brings partners together, and its result is a sentence-transformers directory."""

import json
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from contrastive_cases import PAIRS, found, make_folder, tune

import fastbert
from fastbert import contrastive
from fastbert.system.cli import run
from fastbert.system.errors import InputError
from fastbert.tasks import contrastive_losses, text_pairs
from fastbert.tasks.examples import Notes
from support import json_lines as rows


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_pairs_find_each_other(folder, pooling, capsys):
    options = ["--epochs", "30", "--batch-size", "5", "--learning-rate", "1e-3", "--pooling", pooling]
    assert tune(folder, "--train", str(folder / "pairs.jsonl"), *options) == 0
    assert "10 pairs; 5 per step" in capsys.readouterr().out
    before, after = fastbert.load(folder / "model"), fastbert.load(folder / "out")
    assert found(after) == 1.0 and found(before) < 0.7
    assert after.embedding.pooling == pooling and after.embedding.normalize
    # the head of the masked words is still there
    assert len(after.fill_mask("a [MASK]", top_k=3)) == 3
    assert after.model.config == before.model.config


def test_texts_are_their_own_partners_under_dropout(folder, capsys):
    assert tune(folder, "--train", str(folder / "texts.txt"), "--epochs", "15", "--learning-rate", "5e-4") == 0
    assert "10 texts, each paired with itself under dropout" in capsys.readouterr().out
    texts = [a for a, _ in PAIRS]

    def likeness(bert):  # of different texts
        vectors = bert.embed(texts)
        return (vectors @ vectors.T)[~np.eye(len(texts), dtype=bool)].mean()

    assert likeness(fastbert.load(folder / "out")) < likeness(fastbert.load(folder / "model")) - 0.2
    assert fastbert.load(folder / "out").model.config.hidden_dropout_prob == 0.0


def test_the_same_seed_gives_the_same_weights(folder):
    results = []
    for name in ("one", "two"):
        paths = [str(folder / "model"), "--output", str(folder / name), "--train", str(folder / "texts.txt")]
        assert run(contrastive.main, contrastive.ContrastiveOptions, [*paths, "--threads", "1"]) == 0
        results.append((folder / name / "model.safetensors").read_bytes())
    assert results[0] == results[1]


def test_sentence_transformers_reads_the_result(folder):
    peer = pytest.importorskip("sentence_transformers", reason="the peer that reads the directory")
    assert tune(folder, "--train", str(folder / "pairs.jsonl")) == 0
    texts = [a for a, _ in PAIRS]
    theirs = peer.SentenceTransformer(str(folder / "out"), device="cpu").encode(texts)
    assert np.abs(theirs - fastbert.load(folder / "out", precision="fp32").embed(texts)).max() <= 1e-5


def test_the_loss_is_the_log_probability_of_the_partner():
    first, second = (F.normalize(torch.randn(4, 6, dtype=torch.float64), dim=-1) for _ in range(2))
    wanted = 0.0
    for i in range(4):
        row = torch.tensor([float(first[i] @ second[j]) / 0.1 for j in range(4)])
        column = torch.tensor([float(first[j] @ second[i]) / 0.1 for j in range(4)])
        wanted -= (row.log_softmax(0)[i] + column.log_softmax(0)[i]).item() / 8
    assert contrastive_losses.info_nce(first, second, 0.1).item() == pytest.approx(wanted, rel=1e-5)


def test_every_pair_comes_once_and_none_alone():
    pairs = [(str(i), str(i)) for i in range(7)]
    sizes = [len(batch) for batch in text_pairs.batches(pairs, 3, 0)]
    assert sizes == [3, 3], "the seventh would have no negatives"
    seen = [pair for batch in text_pairs.batches(pairs[:6], 3, 0) for pair in batch]
    assert sorted(seen) == pairs[:6] and seen != pairs[:6]
    assert seen == [pair for batch in text_pairs.batches(pairs[:6], 3, 0) for pair in batch]


def test_equal_texts_are_in_different_batches_where_that_is_possible():
    pairs = [(f"q{i % 6}", f"p{i % 4}") for i in range(24)]
    found = list(text_pairs.batches(pairs, 3, 0))
    assert sorted(pair for batch in found for pair in batch) == sorted(pairs)
    doubled = [batch for batch in found if len({text for pair in batch for text in pair}) < 2 * len(batch)]
    assert [len(batch) for batch in found] == [3] * 8 and len(doubled) <= 2
    assert [len(batch) for batch in text_pairs.batches([("q", "p")] * 7, 4, 0)] == [4, 3]


# ---- what a file may hold ----
FILES = [
    ("text_a and text_b", ".jsonl", rows({"text_a": "q", "text_b": "p"}, {"text_a": "r", "text_b": "s"}),
     [("q", "p"), ("r", "s")], []),
    ("names of sentence-transformers", ".jsonl", rows(*[{"anchor": "q", "positive": "p", "negative": "n"}] * 2),
     [("q", "p", "n")] * 2, []),
    ("some negatives", ".jsonl", rows({"text_a": "q", "text_b": "p", "negative": "n"}, {"text_a": "r", "text_b": "s"}),
     [("q", "p", "n"), ("r", "s")], []),
    ("an array", ".json", json.dumps([{"sentence1": "q", "sentence2": "p"}] * 2), [("q", "p")] * 2, []),
    ("csv", ".csv", 'text_a,text_b\n"the cat, sat",a cat\ndog,a dog\n',
     [("the cat, sat", "a cat"), ("dog", "a dog")], []),
    ("labels 0 and 1", ".jsonl", rows(*({"text_a": "q", "text_b": str(i), "label": i % 2} for i in range(4))),
     [("q", "1"), ("q", "3")], ["label below 1"]),
    ("a field too many", ".jsonl", rows(*[{"text_a": "q", "text_b": "p", "idx": 3}] * 2), [("q", "p")] * 2, ["'idx'"]),
    ("plain text", ".txt", "one\n\ntwo\n", [("one", "one"), ("two", "two")], []),
]  # fmt: skip


@pytest.mark.parametrize(("name", "ending", "content", "pairs", "noted"), FILES, ids=[f[0] for f in FILES])
def test_pairs_of_every_kind_of_file(tmp_path, name, ending, content, pairs, noted):
    path = tmp_path / f"file{ending}"
    path.write_text(content, encoding="utf-8")
    notes = Notes()
    assert text_pairs.read_pairs(path, notes=notes) == pairs
    lines = notes.lines()
    assert len(lines) == len(noted) and all(text in line for text, line in zip(noted, lines, strict=True))


def test_graded_labels_need_a_threshold(tmp_path):
    path = tmp_path / "file.jsonl"
    path.write_text(rows(*({"text_a": "q", "text_b": str(i), "label": i / 2} for i in range(11))))
    with pytest.raises(InputError, match=r"file\.jsonl: line 2: .*--min-score"):
        text_pairs.read_pairs(path)
    assert [b for _, b in text_pairs.read_pairs(path, min_score=4)] == ["8", "9", "10"]


def test_what_contrastive_labels_cannot_say(tmp_path):
    path = tmp_path / "f.jsonl"
    inference = [{"premise": "a", "hypothesis": "b", "label": 0}, {"premise": "c", "hypothesis": "d", "label": 1}]
    missing = [{"text_a": "a", "text_b": "b", "label": 1}, {"text_a": "c", "text_b": "d", "label": float("nan")}]
    for records, named in ((inference, "--min-score"), (missing, r"line 2.*nan")):
        path.write_text(rows(*records))
        with pytest.raises(InputError, match=named):
            text_pairs.read_pairs(path)
    with pytest.raises(InputError, match=r"line 2.*nan"):
        text_pairs.read_graded_pairs(path)
    (tmp_path / "f.txt").write_text("a\tb\nc\td\n")
    notes = Notes()
    assert text_pairs.read_pairs(tmp_path / "f.txt", notes=notes) == [("a\tb", "a\tb"), ("c\td", "c\td")]
    assert "2 ×" in notes.lines()[0]


def test_equal_texts_are_no_negatives_of_each_other():
    """A batch whose partners are all the same text: a loss of 0, not of log B."""
    batch = [(f"q{i}", "the same passage") for i in range(4)]
    first = F.normalize(torch.randn(4, 6), dim=-1)
    second = first[:1].expand(4, 6)
    same = contrastive_losses.same_texts(batch)
    assert contrastive_losses.info_nce(first, second, 0.05, same=same).item() == pytest.approx(0, abs=1e-6)
    # a text with two partners: neither is a negative
    assert contrastive_losses.same_texts([("q", "a"), ("q", "b"), ("r", "c")]).tolist() == [
        [False, True, False], [True, False, False], [False, False, False],
    ]  # fmt: skip


def test_hard_negatives_are_candidates_of_every_text():
    first, second, negative = (F.normalize(torch.randn(n, 6, dtype=torch.float64), dim=-1) for n in (3, 3, 1))
    batch = [("a", "x"), ("b", "y", "x"), ("c", "z")]
    found = contrastive_losses.info_nce(first, second, 0.1, negative, contrastive_losses.same_texts(batch))
    forward = torch.cat([first @ second.T, first @ negative.T], 1) / 0.1
    forward[0, 3] = float("-inf")  # the negative of b is the partner of a
    backward = (second @ first.T) / 0.1
    expected = -(forward.log_softmax(1).diagonal() + backward.log_softmax(1).diagonal()).mean() / 2
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


# ---- graded pairs, several negatives, fewer dimensions ----
def graded(folder):
    """Texts and the capitals of another text are unlike, of the same alike, of half the same in between."""
    records = []
    for i, (a, b) in enumerate(PAIRS):
        other = PAIRS[(i + 1) % len(PAIRS)][1]
        records += [{"text_a": a, "text_b": text, "score": score} for text, score in ((b, 5.0), (other, 1.5))]
    (folder / "graded.jsonl").write_text(rows(*records))
    return str(folder / "graded.jsonl"), [r["score"] for r in records], records


@pytest.mark.parametrize("loss", ["cosent", "cosine"])
def test_graded_pairs_are_ordered(folder, loss, capsys):
    path, scores, records = graded(folder)
    assert tune(folder, "--train", path, "--loss", loss, "--epochs", "30", "--learning-rate", "1e-3") == 0
    assert "20 pairs, graded from 1.5 to 5" in capsys.readouterr().out

    def cosines(name):
        bert = fastbert.load(folder / name)
        return (bert.embed([r["text_a"] for r in records]) * bert.embed([r["text_b"] for r in records])).sum(1)

    alike = np.array(scores) == 5
    before, after = cosines("model"), cosines("out")
    assert after[alike].min() > after[~alike].max() and not before[alike].min() > before[~alike].max()
    assert loss == "cosent" or ((abs(after[alike] - 1) < 0.3).all() and (abs(after[~alike]) < 0.5).all())


def test_the_losses_of_graded_pairs():
    first, second = (F.normalize(torch.randn(4, 6, dtype=torch.float64), dim=-1) for _ in range(2))
    cosines, grades = (first * second).sum(-1), torch.tensor([3.0, 1.0, 3.0, 2.0])
    wanted = 1.0
    for i in range(4):
        for j in range(4):
            if grades[i] > grades[j]:
                wanted += np.exp((cosines[j] - cosines[i]).item() / 0.1)
    assert contrastive_losses.cosent(first, second, grades, 0.1).item() == pytest.approx(np.log(wanted))
    assert contrastive_losses.cosent(first, second, torch.ones(4), 0.1).item() == 0
    error = ((cosines - grades / 3) ** 2).mean().item()
    assert contrastive_losses.cosine_error(first, second, grades / 3).item() == pytest.approx(error)


def test_the_first_dimensions_alone_find_partners(folder):
    options = ["--epochs", "30", "--batch-size", "5", "--learning-rate", "1e-3", "--dimensions", "4", "16"]
    assert tune(folder, "--train", str(folder / "pairs.jsonl"), *options) == 0
    bert = fastbert.load(folder / "out")
    first, second = (bert.embed([pair[i] for pair in PAIRS], dimensions=4) for i in (0, 1))
    assert first.shape == (len(PAIRS), 4) and np.abs(np.linalg.norm(first, axis=1) - 1).max() < 1e-5
    assert ((first @ second.T).argmax(1) == np.arange(len(PAIRS))).mean() >= 0.9
    whole = bert.embed("a b")
    np.testing.assert_allclose(bert.embed("a b", dimensions=3), whole[:3] / np.linalg.norm(whole[:3]), atol=1e-5)
    with pytest.raises(InputError, match="dimensions=999"):
        bert.embed("a b", dimensions=999)


def test_several_negatives(tmp_path):
    path = tmp_path / "file.jsonl"
    path.write_text(rows(
        {"anchor": "q", "positive": "p", "negative_1": "n", "negative_2": "m"},
        {"anchor": "q", "positive": "p", "negatives": ["n", "m", "k"]},
        {"anchor": "q", "positive": "p", "negative": None},
    ))  # fmt: skip
    pairs = text_pairs.read_pairs(path)
    assert pairs == [("q", "p", "n", "m"), ("q", "p", "n", "m", "k"), ("q", "p")]
    assert contrastive_losses.same_texts(pairs).shape == (3, 3 + 5)


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ('{"text_a": "a", "text_b": "b"}\n{"text_a": "a"', r"pairs\.jsonl: line 2"),
        ('{"text": "a", "label": 1}\n', r"line 1: .*'text', 'label'"),
        ('{"text_a": "a", "text_b": 3}\n', r"line 1: field 'text_b' is 3"),
        ("7\n", "line 1"),
        ('{"text_a": "a", "text_b": "b"}\n\n', r"pairs\.jsonl: has 1 pairs"),
        ('{"text_a": "a", "text_b": "b", "label": "same"}\n', "line 1: label 'same'"),
        (b'{"text_a": "\xff"}\n', "line 1"),
    ],
)
def test_bad_files_leave_nothing_behind(folder, content, where, capsys):
    (folder / "pairs.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert tune(folder, "--train", str(folder / "pairs.jsonl")) == 2
    printed = capsys.readouterr().err
    assert re.search(where, printed) and printed.count("\n") == 1, printed
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "--train"),
        (["--train", "x", "--batch-size", "1"], "--batch-size 1"),
        (["--train", "x", "--temperature", "0"], "--temperature 0.0"),
        (["--train", "x", "--seed", str(2**63)], "--seed"),
        (["--train", "x"], "x: "),
        (["--train", "{pairs}", "--loss", "cosent"], "label"),
        (["--train", "{pairs}", "--loss", "cosine", "--min-score", "1"], "--min-score"),
        (["--train", "{pairs}", "--dimensions", "0"], "--dimensions"),
        (["--train", "{pairs}", "--dimensions", "9999"], "--dimensions 9999"),
        (["--train", "{pairs}", "--device", "cuda:77"], "cuda:77"),
        (["--train", "{pairs}", "--learning-rate", "1e30", "--epochs", "9"], "learning rate"),
    ],
)
def test_bad_options(folder, arguments, named, capsys):
    arguments = [argument.format(pairs=folder / "pairs.jsonl") for argument in arguments]
    assert tune(folder, *arguments) == 2
    printed = capsys.readouterr().err
    assert named in printed and printed.count("\n") == 1, printed
    assert not (folder / "out").exists()


def test_a_full_output_directory_is_left_alone(folder, capsys):
    (folder / "out").mkdir()
    (folder / "out" / "precious").write_text("")
    assert tune(folder, "--train", str(folder / "pairs.jsonl")) == 2
    assert "--output" in capsys.readouterr().err
