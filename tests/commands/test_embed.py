"""``python -m fastbert.embed``: a row for every text, in files that survive interruption."""

import json

import numpy as np
import pytest

import fastbert
from fastbert import embed
from fastbert.system.cli import run
from support import make_bert

WORDS = ["um", "dois", "três", "gato", "casa"]
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
TEXTS = [" ".join(WORDS[(i + k) % 5] for k in range(1 + i % 7)) if i % 4 else "" for i in range(23)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embed")
    for name, seed in (("model", 0), ("other", 1)):
        make_bert(VOCAB, seed=seed).save(folder / name)
    (folder / "texts.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    (folder / "texts.jsonl").write_text("".join(json.dumps({"doc": {"t": t or None}}) + "\n" for t in TEXTS))
    return folder


@pytest.fixture
def embedded(folder, tmp_path, capsys, monkeypatch):
    """``embedded("texts.txt", "out.npy", …)`` → (exit code, standard output and error)."""
    monkeypatch.chdir(folder)

    def embedded(data: str, output: str, *options: str, model: str = "model") -> tuple[int, str]:
        arguments = [model, data, "--output", str(tmp_path / output), "--precision", "fp32", *options]
        code = run(embed.main, embed.EmbedOptions, arguments, prog="embed")
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return embedded


@pytest.mark.parametrize(("data", "options"), [("texts.txt", ()), ("texts.jsonl", ("--text-field", "doc.t"))])
def test_row_n_belongs_to_text_n(folder, tmp_path, embedded, monkeypatch, data, options):
    monkeypatch.setattr(embed, "CHUNK_TEXTS", 4)
    assert embedded(data, "out.npy", *options)[0] == 0
    vectors = np.load(tmp_path / "out.npy")
    expected = fastbert.load(folder / "model", precision="fp32").embed(TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.npy"]


def test_truncated_texts_are_counted_in_one_line(folder, embedded, monkeypatch):
    monkeypatch.setattr(embed, "CHUNK_TEXTS", 2)
    (folder / "long.txt").write_text("gato\n" + "casa " * 600 + "\ngato\n" + "um " * 600 + "\n", encoding="utf-8")
    code, printed = embedded("long.txt", "long.npy")
    assert code == 0 and printed.count("warning") == 1 and "2 of 4 texts" in printed


def test_parquet_and_unnormalized(folder, tmp_path, embedded):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert embedded("texts.txt", "out.parquet", "--unnormalized", "--pooling", "cls")[0] == 0
    rows = parquet.read_table(tmp_path / "out.parquet")["embedding"].to_pylist()
    expected = fastbert.load(folder / "model", precision="fp32").embed(TEXTS, "cls", normalize=False)
    np.testing.assert_allclose(np.array(rows), expected, rtol=1e-4, atol=1e-4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.parquet"]


def test_interrupted_and_repeated_gives_the_same_bytes(tmp_path, embedded, monkeypatch):
    monkeypatch.setattr(embed, "CHUNK_TEXTS", 4)
    assert embedded("texts.txt", "whole.npy")[0] == 0
    real, calls = fastbert.bert.Bert.embed, []

    def stopped(self, *arguments, **options):
        calls.append(0)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(self, *arguments, **options)

    monkeypatch.setattr(fastbert.bert.Bert, "embed", stopped)
    assert embedded("texts.txt", "out.npy")[0] == 130
    assert not (tmp_path / "out.npy").exists()
    with open(tmp_path / "out.npy.partial", "ab") as file:  # as if killed in the middle of a write
        file.write(b"half a row")
    for model, data in (("other", "texts.txt"), ("model", "texts.jsonl")):
        options = ("--text-field", "doc.t") if data == "texts.jsonl" else ("--pooling", "max")
        code, printed = embedded(data, "out.npy", *options, model=model)
        # the same texts in another form are the same texts
        assert (code, "out.npy.progress" in printed) == ((2, True) if model == "other" else (0, False)), printed
        if code == 0:
            assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert len(calls) == 4 + 3


def test_other_texts_do_not_continue(folder, tmp_path, embedded, monkeypatch):
    monkeypatch.setattr(embed, "CHUNK_TEXTS", 4)
    real = fastbert.bert.Bert.embed
    monkeypatch.setattr(
        fastbert.bert.Bert, "embed", lambda self, part, *_, **__: real(self, part) if len(part) == 4 else 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        embedded("texts.txt", "out.npy")
    (folder / "changed.txt").write_text("gato\n" + "\n".join(TEXTS), encoding="utf-8")
    code, printed = embedded("changed.txt", "out.npy")
    assert code == 2 and "other texts" in printed and (tmp_path / "out.npy.partial").exists()


@pytest.mark.parametrize(
    ("data", "output", "named"),
    [
        ("texts.txt", "out.csv", "--output"),
        ("texts.txt", "no/such/out.npy", "--output"),
        ("texts.txt", "there.npy", "there.npy"),
        ("missing.txt", "out.npy", "missing.txt"),
        ("empty.txt", "out.npy", "empty.txt"),
        ("texts.jsonl", "out.npy", "text"),
    ],
)
def test_mistakes_are_one_line(folder, tmp_path, embedded, data, output, named):
    (tmp_path / "there.npy").write_bytes(b"")
    (folder / "empty.txt").write_bytes(b"")
    code, printed = embedded(data, output)
    assert code == 2 and named in printed and printed.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there.npy"]
