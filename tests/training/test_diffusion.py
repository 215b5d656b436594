"""--objective diffusion: a model that writes from nothing, and the bound it is measured by."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

import fastbert
import support
from fastbert.batch import pack_rows
from fastbert.config import BertConfig
from fastbert.model import BertForPreTraining
from fastbert.training.validation import evaluate

SENTENCES = [
    "o gato preto dorme na cama velha hoje",
    "as estrelas frias brilham sobre nossa casa branca",
    "um velho marinheiro conta histórias do mar distante",
    "a menina azul corre pela praia deserta sempre",
]


def train(*arguments, **how):
    options = ("--objective", "diffusion", "--threads", 1, *arguments)
    return support.train(*options, **how, FASTBERT_IMPL="reference")  # the same on every machine


def test_a_model_that_knows_a_text_by_heart_writes_it_from_nothing(tmp_path):
    (tmp_path / "text.txt").write_text("\n\n".join(SENTENCES) + "\n", encoding="utf-8")
    train(
        "--data", "text.txt", "--steps", "400", "--output", "run", "--evaluations", "1", "--precision", "fp32",
        cwd=tmp_path,
    )  # fmt: skip
    bert = fastbert.load(tmp_path / "run")
    written = bert.generate("", 8, samples=12)
    right = [text for text in written if text in SENTENCES]
    assert len(right) >= 8, written
    assert bert.generate("o gato preto", 5) == SENTENCES[0]
    assert bert.generate("as [MASK] frias brilham [MASK] nossa [MASK] branca") == SENTENCES[1]


def test_evaluation_reports_the_bound_beside_bert_s_questions(tmp_path):
    words = [f"palavra{i}" for i in range(40)]
    documents = [" ".join(words[(i * j + j) % 40] for j in range(60)) for i in range(40)]
    (tmp_path / "text.txt").write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    done = train(
        "--data", "text.txt", "--steps", "4", "--output", "run", "--preset", "tiny", "--max-length", "64", cwd=tmp_path
    )  # fmt: skip
    assert "diffusion bound" in done.stdout
    records = support.records(tmp_path / "run")
    heldout = [record for record in records if "diffusion_bound" in record]
    assert heldout and all(0 < record["diffusion_bound"] < 10 and record["masked_tokens"] > 0 for record in heldout)
    span = train("--data", "text.txt", "--mask-unit", "span", "--output", "none", code=2, cwd=tmp_path)
    assert "--mask-unit span" in span.stderr
    assert not (tmp_path / "none").exists()


def test_the_bound_is_the_weighted_mean_and_leaves_the_other_figures_alone():
    torch.manual_seed(0)
    model = BertForPreTraining(BertConfig.preset("tiny", "modern", vocab_size=50)).eval()
    batch = dataclasses.replace(pack_rows([[2, 4, 9, 3], [2, 4, 4, 8, 3]], [1, 5, 6]), labels=torch.tensor([7, 11, 12]))
    weighted = dataclasses.replace(batch, label_weights=torch.tensor([4.0, 1.5, 1.5]))
    both, plain = evaluate(model, [batch, weighted]), evaluate(model, [batch])
    assert dataclasses.replace(both, diffusion_bound=None) == plain and plain.diffusion_bound is None
    with torch.no_grad():
        each = F.cross_entropy(model.predict(batch), batch.labels, reduction="none")
        assert model(weighted).loss.item() == pytest.approx((4 * each[0] + 1.5 * each[1] + 1.5 * each[2]).item() / 7)
    assert both.diffusion_bound == pytest.approx(model(weighted).loss.item())
    assert f"diffusion bound {both.diffusion_bound:.3f}" in str(both) and math.isfinite(plain.loss)
