"""Vectors equal sentence-transformers', and its directories are read and written."""

import functools
import json

import numpy as np
import pytest
import torch

import fastbert
import support
from fastbert.inference.embedding import EmbeddingSettings, embed_texts
from fastbert.system.errors import InputError
from support import SPECIAL

VOCAB = [*SPECIAL, *"abcdefghijklmnop", "##s", "##z"]
TEXTS = ["a b c", "", "a", "ps ps o n m l k j i h g f e d c b a", "as bz", "b a c"]


make_bert = functools.partial(support.make_bert, VOCAB, precision="fp32", max_position_embeddings=16)


@pytest.fixture(scope="module")
def bert():
    return make_bert()


def by_hand(bert, text, pooling, normalize):
    ids = bert.tokenizer.encode(text, truncation=True, max_length=16).ids
    with torch.no_grad():
        hidden = bert.model.encode(bert._batch([ids])).numpy()
    vector = {"mean": hidden.mean(0), "cls": hidden[0], "max": hidden.max(0)}[pooling]
    return vector / np.linalg.norm(vector) if normalize else vector


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_pooling_of_each_text_in_its_place(bert, pooling, normalize):
    vectors = bert.embed(TEXTS, pooling, normalize)
    assert vectors.shape == (len(TEXTS), 128) and vectors.dtype == np.float32
    for text, vector in zip(TEXTS, vectors, strict=True):
        np.testing.assert_allclose(vector, by_hand(bert, text, pooling, normalize), atol=1e-5)
    assert np.abs(vectors[0] - vectors[2]).max() > 1e-2


def test_no_head_runs_and_any_batch_size_gives_the_same(bert, monkeypatch):
    whole = bert.embed(TEXTS)
    monkeypatch.setattr(bert.model, "decode", None)
    monkeypatch.setattr(bert.model, "pooled", None)
    for tokens in (1, 7, 30):
        parts = embed_texts(bert.model, bert.tokenizer, TEXTS, EmbeddingSettings(), batch_tokens=tokens)
        np.testing.assert_allclose(parts, whole, atol=1e-6)


def test_the_default_is_the_mean_of_length_one(bert):
    vectors = bert.embed(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(vectors, bert.embed(TEXTS, "mean", True))
    np.testing.assert_allclose(bert.embed(TEXTS[3]), vectors[3], atol=1e-6)
    assert bert.embed("a").shape == (128,) and bert.embed([]).shape == (0, 128)
    with pytest.raises(InputError, match="pooling='sum': expected one of mean, cls, max"):
        bert.embed(TEXTS, "sum")


@pytest.mark.parametrize(
    "settings", [EmbeddingSettings("cls", False, 9), EmbeddingSettings("max"), EmbeddingSettings()]
)
def test_a_saved_directory_remembers(tmp_path, settings):
    bert = make_bert(settings=settings)
    bert.save(tmp_path)
    again = fastbert.load(tmp_path, precision="fp32")
    assert again.embedding.pooling == settings.pooling and again.embedding.normalize == settings.normalize
    np.testing.assert_array_equal(again.embed(TEXTS), bert.embed(TEXTS))
    make_bert().save(tmp_path / "plain")
    assert fastbert.load(tmp_path / "plain").embedding is None


@pytest.mark.parametrize("arch", ["classic", "roformer", "modern"])
@pytest.mark.parametrize("settings", [EmbeddingSettings(), EmbeddingSettings("cls", False, 9)], ids=["mean", "cls"])
def test_sentence_transformers_gives_the_same(tmp_path, arch, settings):
    peer = pytest.importorskip("sentence_transformers", reason="the peer compared with")
    bert = make_bert(arch, settings)
    bert.save(tmp_path)
    theirs = peer.SentenceTransformer(str(tmp_path), device="cpu")
    wanted = theirs.encode(TEXTS)
    ours = fastbert.load(tmp_path, precision="fp32").embed(TEXTS)
    assert np.abs(ours - wanted).max() <= 1e-5 * max(1, np.abs(wanted).max())
    theirs.save(str(tmp_path / "theirs"))  # and what it writes, in its own newer form, is read back
    assert np.abs(fastbert.load(tmp_path / "theirs", precision="fp32").embed(TEXTS) - ours).max() <= 1e-6


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("modules.json", "{", "modules.json: no valid JSON"),
        ("modules.json", "{}", "modules.json: holds dict where a list is expected"),
        ("modules.json", '[{"path": ""}]', "modules.json: type is missing"),
        ("modules.json", '[{"type": "x.Pooling", "path": "../1_Pooling"}]', "leaves the directory"),
        ("1_Pooling/config.json", "[]", "1_Pooling/config.json: .*list"),
        ("sentence_bert_config.json", '{"max_seq_length": "x"}', "max_seq_length is 'x'"),
    ],
)
def test_damaged_files(tmp_path, file, content, message):
    make_bert(settings=EmbeddingSettings()).save(tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(InputError, match=message):
        fastbert.load(tmp_path)


def test_what_is_not_supported_says_so_and_can_be_overruled(tmp_path):
    make_bert(settings=EmbeddingSettings()).save(tmp_path)
    pooling = tmp_path / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({"embedding_dimension": 128, "pooling_mode": "lasttoken"}))
    bert = fastbert.load(tmp_path)
    with pytest.raises(InputError, match=r"has pooling lasttoken .*not supported"):
        bert.embed(TEXTS)
    assert bert.embed(TEXTS, "mean", True).shape == (6, 128)
    modules = json.loads((tmp_path / "modules.json").read_text())
    (tmp_path / "modules.json").write_text(json.dumps([*modules, {"type": "x.models.Dense", "path": "3_Dense"}]))
    with pytest.raises(InputError, match="a module Dense"):
        fastbert.load(tmp_path).embed(TEXTS)


def test_an_encoder_without_a_head_is_saved_without_one(tmp_path):
    bert = make_bert(settings=EmbeddingSettings())
    bert.model.fresh = [name for name in bert.model.state_dict() if name.startswith(("head.", "next_sentence."))]
    bert.save(tmp_path)
    again = fastbert.load(tmp_path, precision="fp32")
    assert again.model.fresh == sorted(bert.model.fresh)
    np.testing.assert_array_equal(again.embed(TEXTS), bert.embed(TEXTS))
    with pytest.raises(InputError, match="no masked-LM head"):
        again.fill_mask("a [MASK]")
