"""The files of sentence-transformers: each field is honoured or named, old layouts are read, vectors are its own."""

import json
import shutil

import numpy as np
import pytest
from hf_models import peer
from hf_tokenizers import KINDS

import fastbert
from fastbert.inference.embedding import EmbeddingSettings
from fastbert.system.errors import InputError
from fastbert.text import Tokenizer

TEXTS = ["She opened the Door.", "O rei não dorme.", "a " * 40]


def write(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture
def directory(tmp_path):
    """A RoBERTa with mean pooling, as sentence-transformers 2 writes it."""
    KINDS["roberta"](tmp_path)
    model = peer("roberta", "Model", vocab_size=len(Tokenizer.load(tmp_path)))
    model.save_pretrained(tmp_path)
    write(tmp_path / "sentence_bert_config.json", {"max_seq_length": 24, "do_lower_case": False})
    write(tmp_path / "1_Pooling" / "config.json", {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True})
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    write(tmp_path / "modules.json", modules)
    return tmp_path


def vectors(directory):
    return fastbert.load(directory, precision="fp32").embed(TEXTS)


def assert_like_the_library(directory):
    library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is the peer compared with")
    wanted = library.SentenceTransformer(str(directory), device="cpu").encode(TEXTS)
    assert np.abs(vectors(directory) - wanted).max() <= 1e-5


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (None, None),
        ("1_Pooling/config.json", {"word_embedding_dimension": 32, "pooling_mode_cls_token": True}),
        ("1_Pooling/config.json", {"embedding_dimension": 32, "pooling_mode": "max", "include_prompt": True}),
        ("sentence_bert_config.json", {"max_seq_length": 9, "do_lower_case": True}),
        ("sentence_bert_config.json", {"max_seq_length": None}),
        ("config_sentence_transformers.json", {"prompts": {"q": "query: "}, "default_prompt_name": "q"}),
        ("config_sentence_transformers.json", {"prompts": {"q": "query: "}, "similarity_fn_name": "dot"}),
    ],
    ids=str,
)
def test_honoured(directory, file, content):
    plain = vectors(directory)
    if file is not None:
        write(directory / file, content)
    if content and (content.get("default_prompt_name") or content.get("do_lower_case") or "Pooling" in file):
        assert np.abs(vectors(directory) - plain).max() > 1e-3
    assert_like_the_library(directory)


@pytest.mark.parametrize("normalized", [True, False])
def test_truncate_dim_is_cut_after_the_normalization(directory, normalized, tmp_path_factory):
    if normalized:
        modules = json.loads((directory / "modules.json").read_text())
        modules.append({"idx": 2, "name": "2", "path": "2_N", "type": "sentence_transformers.models.Normalize"})
        write(directory / "modules.json", modules)
    whole = vectors(directory)
    write(directory / "config_sentence_transformers.json", {"truncate_dim": 8})
    bert = fastbert.load(directory, precision="fp32")
    np.testing.assert_array_equal(bert.embed(TEXTS), whole[:, :8])
    np.testing.assert_allclose(bert.embed(TEXTS, windows=True)[:2], whole[:2, :8], atol=1e-6)
    unit = whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(bert.embed(TEXTS, normalize=True), unit, atol=1e-6)
    again = tmp_path_factory.mktemp("again")
    bert.save(again)
    np.testing.assert_array_equal(vectors(again), whole[:, :8])
    assert_like_the_library(again)


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("1_Pooling/config.json", {"pooling_mode_lasttoken": True}, "pooling_mode_lasttoken"),
        ("1_Pooling/config.json", {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, r"mean\+max"),
        ("1_Pooling/config.json", {"pooling_mode": "mean", "layers": [1, 2]}, "layers"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "transformer_task"),
        ("sentence_bert_config.json", {"model_args": {"attn": 1}}, "model_args"),
        ("config_sentence_transformers.json", {"truncate_dim": 8.5}, "truncate_dim"),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "model_type"),
        ("config_sentence_transformers.json", {"new_field": 1}, "new_field"),
    ],
)
def test_refused_by_name(directory, file, content, named):
    write(directory / file, content)
    with pytest.raises(InputError, match=named) as error:
        vectors(directory)
    assert file in str(error.value)


def test_a_prompt_that_pooling_leaves_out(directory):
    write(directory / "config_sentence_transformers.json", {"prompts": {"q": "q: "}, "default_prompt_name": "q"})
    write(directory / "1_Pooling" / "config.json", {"pooling_mode": "mean", "include_prompt": False})
    with pytest.raises(InputError, match="include_prompt"):
        vectors(directory)
    write(directory / "config_sentence_transformers.json", {"prompts": {}, "default_prompt_name": "q"})
    with pytest.raises(InputError, match="default_prompt_name"):
        fastbert.load(directory)


@pytest.mark.parametrize("kind", ["Dense", "LayerNorm"])
def test_other_modules(directory, kind):
    modules = json.loads((directory / "modules.json").read_text())
    modules.append({"idx": 2, "name": "2", "path": "2_X", "type": f"sentence_transformers.models.{kind}"})
    write(directory / "modules.json", modules)
    with pytest.raises(InputError, match=rf"{kind}.*modules\.json"):
        vectors(directory)


@pytest.mark.parametrize("whole", [True, False], ids=["with config.json", "without"])
def test_the_old_layout(directory, whole, tmp_path_factory):
    wanted = vectors(directory)
    old = tmp_path_factory.mktemp("old")
    for name in ("modules.json", "1_Pooling"):
        shutil.move(directory / name, old / name)
    shutil.move(directory, old / "0_Transformer")
    modules = json.loads((old / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    write(old / "modules.json", modules)
    if whole:
        write(old / "config.json", {"__version__": "0.2.0"})
    np.testing.assert_array_equal(vectors(old), wanted)
    assert_like_the_library(old)


def test_written_and_read_again(directory, tmp_path_factory):
    write(directory / "config_sentence_transformers.json", {"prompts": {"q": "q: "}, "default_prompt_name": "q"})
    write(directory / "sentence_bert_config.json", {"max_seq_length": 12, "do_lower_case": True})
    bert = fastbert.load(directory)
    again = tmp_path_factory.mktemp("again")
    bert.save(again)
    assert (
        fastbert.load(again).embedding
        == bert.embedding
        == EmbeddingSettings("mean", False, 12, "", True, "q: ", prompts={"q": "q: "})
    )
    np.testing.assert_array_equal(vectors(again), vectors(directory))
    assert_like_the_library(again)


@pytest.mark.parametrize("kind", ["cosine", "dot", "euclidean", "manhattan"])
def test_similarity_as_the_directory_says(directory, kind):
    write(directory / "config_sentence_transformers.json", {"similarity_fn_name": kind})
    write(directory / "1_Pooling" / "config.json", {"word_embedding_dimension": 32, "pooling_mode_cls_token": True})
    library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is the peer compared with")
    peer = library.SentenceTransformer(str(directory), device="cpu")
    wanted = peer.similarity_pairwise(peer.encode(TEXTS[:2]), peer.encode(TEXTS[1:3])).numpy()
    found = fastbert.load(directory, precision="fp32").similarity(TEXTS[:2], TEXTS[1:3])
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4)


def test_another_similarity_is_refused_by_name(directory):
    write(directory / "config_sentence_transformers.json", {"similarity_fn_name": "maxsim"})
    with pytest.raises(InputError, match=r"similarity_fn_name.*maxsim"):
        fastbert.load(directory).similarity("a", "b")


def test_prompts_by_name_are_kept(directory, tmp_path_factory):
    prompts = {"query": "query: ", "doc": "é: "}
    write(directory / "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": "doc"})
    bert = fastbert.load(directory, precision="fp32")
    copy = tmp_path_factory.mktemp("copy")
    bert.save(copy)
    plain = bert.embed("x")
    assert np.abs(bert.embed("x", prompt="query") - plain).max() > 1e-3
    again = fastbert.load(copy, precision="fp32")
    assert again.embedding.prompts == prompts
    np.testing.assert_allclose(again.embed("x"), plain, atol=1e-6)
    np.testing.assert_allclose(again.embed("x", prompt="query"), bert.embed("x", prompt="query"), atol=1e-6)
    with pytest.raises(InputError, match="'query', 'doc'"):
        bert.embed("x", prompt="passage")
    library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is the peer compared with")
    for folder in (directory, copy):
        peer = library.SentenceTransformer(str(folder), device="cpu")
        assert np.abs(peer.encode("x", prompt_name="query") - bert.embed("x", prompt="query")).max() <= 1e-5
