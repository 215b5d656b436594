"""Contrastive fine-tuning brings partners together, and its result is a sentence-transformers directory."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fastbert
from fastbert import contrastive
from fastbert.bert import Bert
from fastbert.config import BertConfig
from fastbert.model import BertForPreTraining
from fastbert.system.cli import run
from fastbert.text import Tokenizer
from support import SPECIAL

LETTERS = "abcdefghijklmnop"
VOCAB = [*SPECIAL, *LETTERS, *LETTERS.upper()]
# a text and the same text in capitals belong together
PAIRS = [(" ".join(x), " ".join(x).upper()) for x in ("ab", "cde", "fgh", "ij", "kl", "mnop", "ag", "bh", "ci", "dj")]


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    model = BertForPreTraining(BertConfig.preset("tiny", vocab_size=len(VOCAB), max_position_embeddings=16))
    from fastbert.text.tokenizer_files import TokenizerOptions

    Bert(model, Tokenizer(VOCAB, TokenizerOptions(lowercase=False))).save(tmp_path / "model")
    lines = [json.dumps({"text_a": a, "text_b": b}) for a, b in PAIRS]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "texts.txt").write_text("\n\n".join(a for a, _ in PAIRS) + "\n")
    return tmp_path


def tune(folder, *arguments):
    paths = [str(folder / "model"), "--output", str(folder / "out"), "--threads", "1"]
    return run(contrastive.main, contrastive.ContrastiveOptions, [*paths, *arguments])


def found(bert):
    """Share of the texts whose nearest capitals are their own."""
    first, second = (bert.embed([pair[i] for pair in PAIRS]) for i in (0, 1))
    return float(np.mean((first @ second.T).argmax(1) == np.arange(len(PAIRS))))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_pairs_find_each_other(folder, pooling, capsys):
    options = ["--epochs", "30", "--batch-size", "5", "--learning-rate", "1e-3", "--pooling", pooling]
    assert tune(folder, "--train", str(folder / "pairs.jsonl"), *options) == 0
    assert "10 pairs; 5 in a step" in capsys.readouterr().out
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
    assert contrastive.info_nce(first, second, 0.1).item() == pytest.approx(wanted, rel=1e-5)


def test_every_pair_comes_once_and_none_alone():
    pairs = [(str(i), str(i)) for i in range(7)]
    sizes = [len(batch) for batch in contrastive.batches(pairs, 3, 0)]
    assert sizes == [3, 3], "the seventh would have no negatives"
    seen = [pair for batch in contrastive.batches(pairs[:6], 3, 0) for pair in batch]
    assert sorted(seen) == pairs[:6] and seen != pairs[:6]
    assert seen == [pair for batch in contrastive.batches(pairs[:6], 3, 0) for pair in batch]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text_a": "a", "text_b": "b"}\n{"text_a": "a"', "pairs.jsonl, line 2: not valid JSON"),
        ('{"text": "a", "label": 1}\n', "line 1: text_a is missing, expected a text (fields here: text, label)"),
        ('{"text_a": "a", "text_b": 3}\n', "line 1: text_b is 3, expected a text"),
        ("[1]\n", "line 1: list where an object is expected"),
        ('{"text_a": "a", "text_b": "b"}\n\n', "holds 1 pair(s) of texts: at least 2"),
        (b'{"text_a": "\xff"}\n', "line 1: not UTF-8"),
    ],
)
def test_bad_files_leave_nothing_behind(folder, content, message, capsys):
    (folder / "pairs.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert tune(folder, "--train", str(folder / "pairs.jsonl")) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--train is missing"),
        (["--train", "x", "--batch-size", "1"], "--batch-size 1: expected at least 2"),
        (["--train", "x", "--temperature", "0"], "--temperature 0.0: expected a positive number"),
        (["--train", "x"], "x: cannot be read"),
    ],
)
def test_bad_options(folder, arguments, message, capsys):
    assert tune(folder, *arguments) == 2
    assert message in capsys.readouterr().err
    (folder / "out").mkdir()
    (folder / "out" / "precious").write_text("")
    assert tune(folder, "--train", str(folder / "pairs.jsonl")) == 2
    assert "already holds something" in capsys.readouterr().err
