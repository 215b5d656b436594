"""ONNX files with int8 weights: smaller, near the exact answers, and measured on the user's texts."""

import functools
import json
import re

import numpy as np
import pytest
import torch

import support
from fastbert.export import ExportOptions, main
from fastbert.system.cli import run
from fastbert.tasks.model import TaskModel, TaskSettings
from support import SPECIAL

onnxruntime = pytest.importorskip("onnxruntime", reason="quantizes, and runs the file")
VOCAB = [*SPECIAL, *"abcdefghijklmnop"]
make_bert = functools.partial(support.make_bert, VOCAB, precision="fp32", max_position_embeddings=16)


@pytest.fixture
def folder(tmp_path):
    bert = make_bert()
    bert.task_model = TaskModel(bert.model, TaskSettings("classification", ("x", "y"), max_length=16)).eval()
    with torch.no_grad():
        bert.task_model.classifier.weight.normal_()
    bert.save(tmp_path / "model")
    texts = ["a b", "c d e", "f g", "h i p", "m n o"]
    rows = [{"text": text, "label": bert.classify(text)["label"]} for text in texts]
    (tmp_path / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "texts.txt").write_text("a b\nc d e\n")
    return tmp_path, bert, texts


def test_classes_and_accuracy(folder, capsys):
    root, bert, texts = folder
    made = ExportOptions(str(root / "model"), str(root / "small.onnx"), int8=True, texts=str(root / "labelled.jsonl"))
    assert main(made) == 0
    printed = capsys.readouterr().out
    assert "accuracy 100.0% in 32 bits" in printed and "5 texts: cosine" in printed
    before, after = map(float, re.search(r"(\S+) MB in 32 bits, (\S+) MB in 8", printed).groups())
    assert after <= before
    assert sorted(path.name for path in root.iterdir()) == ["labelled.jsonl", "model", "small.onnx", "texts.txt"]
    session = onnxruntime.InferenceSession(root / "small.onnx", providers=["CPUExecutionProvider"])
    names = {each.name for each in session.get_inputs()}
    for text in texts:
        ids = bert.tokenizer.encode(text).ids
        values = {"input_ids": [ids], "attention_mask": [[1] * len(ids)], "token_type_ids": [[0] * len(ids)]}
        (logits,) = session.run(None, {name: np.array(values[name], np.int64) for name in names})
        scores = np.exp(logits[0]) / np.exp(logits[0]).sum()
        assert np.abs(scores - list(bert.classify(text)["scores"].values())).max() < 0.1


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("--int8", "--to", "sentence-transformers"), "--int8"),
        (("--texts", "{root}/texts.txt"), "--texts"),
        (("--int8", "--texts", "{root}/none.txt"), "none.txt"),
    ],
)
def test_bad_options(folder, more, named, capsys):
    root, _, _ = folder
    more = [part.format(root=root) for part in more]
    assert run(main, ExportOptions, [str(root / "model"), str(root / "small.onnx"), *more]) == 2
    printed = capsys.readouterr().err
    assert named in printed and printed.count("\n") == 1
    assert not list(root.glob("*.onnx"))
