"""ONNX Runtime gives the model's own numbers, for any batch and length."""

import functools

import numpy as np
import pytest
import torch

import support
from fastbert.inference import onnx_export
from fastbert.inference.embedding import EmbeddingSettings
from fastbert.system.errors import InputError
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
