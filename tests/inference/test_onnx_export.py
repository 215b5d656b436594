"""ONNX Runtime gives the model's own numbers, for any batch and length."""

import dataclasses
import functools

import numpy as np
import pytest
import torch

import support
from fastbert.batch import pack_rows
from fastbert.inference import onnx_export
from fastbert.inference.embedding import EmbeddingSettings
from fastbert.system.errors import InputError
from fastbert.tasks.model import PaddedHead, TaskModel, TaskSettings
from support import SPECIAL

VOCAB = [*SPECIAL, *"abcdefghijklmnop"]
TEXTS = ["a b c", "p", "a b c d e f g h i j k l"]


make_bert = functools.partial(support.make_bert, VOCAB, precision="fp32", max_position_embeddings=32)


def run(path, ids, mask):
    onnxruntime = pytest.importorskip("onnxruntime", reason="runs the exported file")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    names = [node.name for node in session.get_inputs()]
    return session.run(None, {name: feed[name] for name in names})[0], names, session.get_outputs()[0].name


@pytest.fixture(autouse=True)
def packages():
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="the extra fastbert[onnx]")


# an export takes seconds: each architecture once
@pytest.mark.parametrize(("arch", "changes"), [("classic", {}), ("modern", {"window": 3})], ids=["classic", "modern"])
def test_logits(arch, changes, tmp_path):
    bert = make_bert(arch, **changes)
    bert.to_onnx(tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    for rows, length in ((1, 1), (2, 32), (5, 13)):
        ids = torch.randint(0, len(VOCAB), (rows, length))
        mask = torch.ones_like(ids)
        mask[0, max(1, length // 2) :] = 0
        logits, inputs, output = run(tmp_path / "model.onnx", ids.numpy(), mask.numpy())
        with torch.no_grad():
            wanted = bert.model(ids, mask).prediction_logits.numpy()
        real = mask.bool().numpy()
        assert np.abs(logits - wanted)[real].max() <= 1e-4 and wanted[real].std() > 0.1
        assert output == "logits" and ("token_type_ids" in inputs) == (arch != "modern")


def padded(bert):
    rows = [bert.tokenizer.encode(text).ids for text in TEXTS]
    ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
    return ids, np.array([[i < len(row) for i in range(ids.shape[1])] for row in rows], np.int64)


def test_embeddings_are_those_of_embed(tmp_path):
    bert = make_bert("roformer", EmbeddingSettings())
    bert.to_onnx(tmp_path / "model.onnx", "embedding")
    vectors, _, name = run(tmp_path / "model.onnx", *padded(bert))
    assert name == "sentence_embedding"
    np.testing.assert_allclose(vectors, bert.embed(TEXTS), atol=1e-5)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_what_is_exported_pools_as_embed(pooling, normalize):
    bert = make_bert("modern", EmbeddingSettings(pooling, normalize))
    with torch.no_grad():
        vectors = onnx_export._Padded(bert.model, "embedding", bert.embedding)(*map(torch.from_numpy, padded(bert)))
    np.testing.assert_allclose(vectors.numpy(), bert.embed(TEXTS), atol=1e-5)


HEADS = {
    "classification": ("classic", "cls", ("a", "b", "c")),
    "regression": ("modern", "mean", ()),
    "tagging": ("modern", "cls", ("O", "B-X", "I-X")),
    "qa": ("roformer", "cls", ()),
}


def with_head(task):
    arch, pooling, labels = HEADS[task]
    bert = make_bert(arch)
    torch.manual_seed(1)
    bert.task_model = TaskModel(bert.model, TaskSettings(task, labels), pooling=pooling).eval()
    with torch.no_grad():
        bert.task_model.classifier.weight.normal_()
    return bert


def wanted_of(bert, ids, mask):
    """What the head gives for each packed row, without padding."""
    head, found = bert.task_model.settings.head, []
    for row, real in zip(ids, mask, strict=True):
        batch = pack_rows([row[real != 0].tolist()])
        if head == "token":
            batch = dataclasses.replace(batch, masked_index=torch.arange(batch.num_tokens))
        with torch.no_grad():
            found.append(bert.task_model(batch).numpy())
    return found


def assert_same(bert, outputs, ids, mask):
    for number, wanted in enumerate(wanted_of(bert, ids, mask)):
        given = np.stack([np.asarray(output)[number] for output in outputs], -1)
        if bert.task_model.settings.head == "sequence":
            given, wanted = given[..., 0], wanted[0]
        else:
            given = given[: len(wanted)].reshape(len(wanted), -1)
        assert np.abs(given - wanted).max() <= 1e-4


@pytest.mark.parametrize("task", HEADS)
def test_a_head_on_padded_inputs(task):
    bert = with_head(task)
    ids, mask = padded(bert)
    head = PaddedHead(bert.task_model)
    with torch.no_grad():
        wrapped = onnx_export._Padded(bert.model, "logits", EmbeddingSettings(), head)
        assert_same(bert, wrapped(torch.from_numpy(ids), torch.from_numpy(mask)), ids, mask)


def test_answers_with_external_data(tmp_path, monkeypatch):
    """Weights over the limit lie in a second file, which the first names; an older file is replaced as a whole."""
    monkeypatch.setattr(onnx_export, "MAX_BYTES", 1000)
    bert = with_head("qa")
    ids, mask = padded(bert)
    (tmp_path / "model.onnx").write_bytes(b"old")
    bert.to_onnx(tmp_path / "model.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for path in list(tmp_path.glob("model*")):
        path.rename(moved / path.name)
    onnxruntime = pytest.importorskip("onnxruntime", reason="runs the exported file")
    session = onnxruntime.InferenceSession(moved / "model.onnx", providers=["CPUExecutionProvider"])
    assert [node.name for node in session.get_outputs()] == ["start_logits", "end_logits"]
    feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    assert_same(bert, session.run(None, feed), ids, mask)


def test_classes(tmp_path):
    bert = with_head("classification")
    ids, mask = padded(bert)
    bert.to_onnx(tmp_path / "model.onnx")
    logits, _, name = run(tmp_path / "model.onnx", ids, mask)
    assert name == "logits" and logits.shape == (len(TEXTS), 3)
    assert_same(bert, [logits], ids, mask)


def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_bert().to_onnx(tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported(tmp_path):
    bert = make_bert()
    with pytest.raises(InputError, match="output='logit': expected one of logits, hidden, embedding"):
        bert.to_onnx(tmp_path / "model.onnx", "logit")
    with pytest.raises(InputError, match="no such directory"):
        bert.to_onnx(tmp_path / "none" / "model.onnx")
    bert.model.fresh = ["head.bias"]
    with pytest.raises(InputError, match="no masked-LM head"):
        bert.to_onnx(tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
