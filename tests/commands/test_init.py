"""``train --init``: another vocabulary, added words, a vocabulary grown by the text."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from fastbert.model import BertForPreTraining
from fastbert.text import Tokenizer
from support import SMALL, records, train, write_corpus

STEPS = (*SMALL, "--steps", 2, "--evaluations", 0)


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """A finished run of a small vocabulary, and its text."""
    root = tmp_path_factory.mktemp("init")
    corpus = write_corpus(root / "corpus.txt")
    train("--data", corpus, "--output", "old", "--vocab-size", 60, *STEPS, cwd=root)
    return root / "old", corpus


def refused(cwd, *arguments, expected):
    done = train(*arguments, "--output", "refused", *STEPS, code=2, cwd=cwd)
    assert expected in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not (cwd / "refused").exists()


def test_words_are_added(tmp_path, old):
    run, corpus = old
    shutil.copytree(run, tmp_path / "weights")
    (tmp_path / "words.txt").write_text("gatinho\nmenininha\ncafezinho\ngato\n", encoding="utf-8")
    arguments = ("--data", corpus, "--init", "weights", "--add-words", "words.txt", "--output", "new", *STEPS)
    done = train(*arguments, "--steps", 4, "--stop-after", 2, cwd=tmp_path)
    before, after = Tokenizer.load(run), Tokenizer.load(tmp_path / "new")
    added = [word for word in ("gatinho", "menininha", "cafezinho", "gato") if before.token_to_id(word) is None]
    assert after.vocab == [*before.vocab, *added] and "gatinho" in added
    assert f"{len(before)} rows kept, {len(added)} new, 0 dropped" in done.stdout
    (tmp_path / "words.txt").unlink()  # neither is needed again
    shutil.rmtree(tmp_path / "weights")
    train("--resume", "--output", "new", cwd=tmp_path)
    model = BertForPreTraining.from_pretrained(tmp_path / "new").eval()
    assert model.config.vocab_size == len(after)
    transformers = pytest.importorskip("transformers")
    text = "o gato, gatinho e a menininha [MASK] cafezinho"
    ids = transformers.AutoTokenizer.from_pretrained(tmp_path / "new")(text)["input_ids"]
    assert ids == after.encode(text).ids and {after.token_to_id(word) for word in added} <= {*ids, *range(len(before))}
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "new").eval()
    with torch.no_grad():
        torch.testing.assert_close(
            model(torch.tensor([ids])).prediction_logits, theirs(torch.tensor([ids])).logits, rtol=1e-4, atol=1e-4
        )


def test_the_vocabulary_grows_by_the_text(tmp_path, old):
    run, _ = old
    (tmp_path / "new.txt").write_text("o ornitorrinco dorme\n\n" * 30, encoding="utf-8")
    train("--data", "new.txt", "--init", run, "--extend-vocab", 3, "--output", "new", *STEPS, cwd=tmp_path)
    assert "ornitorrinco" in Tokenizer.load(tmp_path / "new").vocab[len(Tokenizer.load(run)) :]


def test_another_vocabulary_of_any_size(tmp_path, old):
    run, corpus = old
    vocab = list(reversed(Tokenizer.load(run).vocab))
    for size in (len(vocab), len(vocab) - 3):  # equal in size, other ids; smaller
        Tokenizer(vocab[-size:], Tokenizer.load(run).options).save(tmp_path / f"v{size}")
        done = train(
            "--data", corpus, "--init", run, "--tokenizer", f"v{size}", "--output", f"o{size}", *STEPS, cwd=tmp_path
        )  # fmt: skip
        assert f"{size} rows kept, 0 new, {len(vocab) - size} dropped" in done.stdout
        assert json.loads((tmp_path / f"o{size}" / "config.json").read_text())["vocab_size"] == size


def test_a_bare_cased_vocabulary_is_said_and_decided(tmp_path, old):
    run, corpus = old
    bare = tmp_path / "bare"
    bare.mkdir()
    vocab = [*Tokenizer.load(run).vocab, "São", "Gato"]
    (bare / "vocab.txt").write_text("\n".join(vocab), encoding="utf-8")
    for extra, lowercase, said in (((), False, 1), (("--lowercase",), True, 0), (("--no-lowercase",), False, 0)):
        output = f"o{len(list(tmp_path.iterdir()))}"
        arguments = ("--data", corpus, "--init", run, "--tokenizer", "bare", "--output", output, *extra, *STEPS)
        done = train(*arguments, cwd=tmp_path)
        assert done.stderr.count("vocab.txt") == said
        assert Tokenizer.load(tmp_path / output).options.lowercase == lowercase
        assert json.loads((tmp_path / output / "tokenizer_config.json").read_text())["do_lower_case"] == lowercase


def test_what_cannot_be_transferred_is_refused(tmp_path, old):
    run, corpus = old
    data = ("--data", corpus)
    (tmp_path / "words.txt").write_text("gatinho\nduas palavras\n")
    refused(tmp_path, *data, "--init", run, "--add-words", "words.txt", expected="line 2")
    refused(tmp_path, *data, "--init", run, "--add-words", "none.txt", expected="--add-words none.txt")
    refused(tmp_path, *data, "--add-words", "words.txt", expected="--add-words words.txt")
    refused(tmp_path, *data, "--extend-vocab", 9, expected="--extend-vocab 9")
    refused(tmp_path, *data, "--init", run, "--extend-vocab", 0, expected="--extend-vocab 0")
    refused(tmp_path, "--data", run / "tokens", "--init", run, "--extend-vocab", 9, expected="--extend-vocab")
    refused(tmp_path, *data, "--init", run, "--lowercase", expected="--lowercase")
    refused(tmp_path, *data, "--no-lowercase", expected="--no-lowercase")
    refused(tmp_path, *data, "--init", run, "--no-lowercase", "--lowercase", expected="--no-lowercase")
    weights = tmp_path / "weights"  # without a vocabulary
    weights.mkdir()
    for name in ("config.json", "model.safetensors"):
        (weights / name).write_bytes((run / name).read_bytes())
    Tokenizer([*Tokenizer.load(run).vocab, "gatinho"]).save(tmp_path / "other")
    refused(tmp_path, *data, "--init", weights, "--tokenizer", "other", expected="no vocabulary of its own")


def test_the_loss_before_the_first_step_is_that_of_the_weights(tmp_path, old):
    run, corpus = old
    done = train("--data", corpus, "--init", run, "--output", "new", *STEPS, "--learning-rate", 0.01, cwd=tmp_path)
    first, last = records(tmp_path / "new", "heldout")
    assert (first["step"], last["step"]) == (0, 2) and f"before the first step: loss {first['loss']:.3f}" in done.stdout
    assert first["loss"] == pytest.approx(records(run, "heldout")[-1]["loss"], abs=1e-5) and first != last


def test_the_result_is_an_average_with_the_weights_it_began_with(tmp_path, old):
    run, _ = old
    shutil.copytree(run, tmp_path / "weights")
    (tmp_path / "new.txt").write_text("\n\n".join(["a menina dorme na cama azul", "o rei come"] * 400))
    arguments = ("--data", "new.txt", "--init", "weights", *STEPS, "--steps", 4)
    for share in ("0", "0.25", None):
        given = () if share is None else ("--init-share", share)
        train(*arguments, *given, "--output", f"o{share}", "--stop-after", 2, cwd=tmp_path)
    start = load_file(run / "model.safetensors")
    shutil.rmtree(tmp_path / "weights")  # not needed again
    for share in ("0", "0.25", None):
        train("--resume", "--output", f"o{share}", cwd=tmp_path)
    trained, mixed, usual = (load_file(tmp_path / f"o{s}" / "model.safetensors") for s in ("0", "0.25", None))
    for name, weights in trained.items():
        torch.testing.assert_close(mixed[name], 0.75 * weights + 0.25 * start[name], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(usual[name], 0.4 * weights + 0.6 * start[name], rtol=1e-5, atol=1e-6)
    assert any(not torch.equal(weights, start[name]) for name, weights in trained.items())
    (tmp_path / "oNone" / "checkpoints" / "start.safetensors").unlink()
    done = train("--resume", "--output", "oNone", "--steps", 6, code=2, cwd=tmp_path)
    assert "start.safetensors" in done.stderr and "--init-share 0" in done.stderr
    train("--resume", "--output", "oNone", "--init-share", 0, cwd=tmp_path)
    refused(tmp_path, "--data", "new.txt", "--init-share", 0.5, expected="--init-share 0.5")
    refused(tmp_path, "--data", "new.txt", "--init", run, "--init-share", 1.5, expected="--init-share 1.5")


def test_replay_resumes_bit_for_bit(tmp_path, old):
    run, corpus = old
    (tmp_path / "new.txt").write_text("\n\n".join(["a menina dorme na cama azul", "o rei come"] * 40))
    arguments = ("--data", "new.txt", "--init", run, "--replay", f"{corpus}:0.25", *STEPS, "--steps", 6)
    done = train(*arguments, "--output", "whole", cwd=tmp_path)
    begun, ended = records(tmp_path / "whole", "replay")  # its own documents are held out
    assert (begun["step"], ended["step"]) == (0, 6) and begun["loss"] != ended["loss"]
    assert f"{ended['loss']:.3f}" in done.stdout
    train(*arguments, "--output", "parts", "--stop-after", 3, cwd=tmp_path)
    train("--resume", "--output", "parts", cwd=tmp_path)
    whole, parts = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts
    alone = ("--data", "new.txt", "--init", run, *STEPS, "--steps", 6, "--output", "alone")
    train(*alone, cwd=tmp_path)
    assert (tmp_path / "alone" / "model.safetensors").read_bytes() != whole


def test_a_replay_that_cannot_be_is_refused(tmp_path, old):
    run, corpus = old
    data = ("--data", corpus, "--init", run)
    for value in ("old.txt", ":0.5", f"{corpus}:1.5", f"{corpus}:x", f"{corpus}:0"):
        refused(tmp_path, *data, "--replay", value, expected=f"--replay {value}")
    refused(tmp_path, *data, "--replay", f"{corpus}:0.01", expected="--max-length (32)")
    refused(tmp_path, *data, "--replay", "none.txt:0.5", expected="none.txt")
    refused(tmp_path, "--data", corpus, "--replay", f"{corpus}:0.5", expected="--init")
    Tokenizer([*Tokenizer.load(run).vocab, "gatinho"]).save(tmp_path / "other")
    refused(tmp_path, *data, "--tokenizer", "other", "--replay", f"{run / 'tokens'}:0.5", expected="another vocabulary")
