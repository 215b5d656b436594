"""What becomes of the text of a run: resumed elsewhere, changed, mostly unknown."""

import json
import shutil
import unicodedata

import pytest

from fastbert.data import TokenStore
from fastbert.text import Tokenizer
from support import SMALL, SPECIAL, command, train, write_corpus

QUICK = (*SMALL, "--steps", 4, "--evaluations", 0)


def test_a_run_is_resumed_in_another_folder_whatever_became_of_its_text(tmp_path):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    (home / "texts").mkdir(parents=True)
    elsewhere.mkdir()
    for name in ("a.txt", "b.txt"):
        write_corpus(home / "texts" / name)
    done = train("--data", "texts", "--output", "out", "--stop-after", 2, *QUICK, cwd=home)
    assert f"--resume --output {home / 'out'}" in done.stdout, done.stderr
    copy = tmp_path / "copy"
    shutil.copytree(home / "out", copy)

    done = train("--resume", "--output", home / "out", cwd=elsewhere)
    assert "text has changed" not in done.stdout, done.stderr

    (home / "texts" / "a.txt").unlink()
    with (home / "texts" / "b.txt").open("a") as file:
        file.write("more\n")
    write_corpus(home / "texts" / "c.txt")
    done = train("--resume", "--output", copy, cwd=elsewhere)
    (line,) = (line for line in done.stdout.splitlines() if "text has changed" in line)
    names = [str(home / "texts" / name) for name in ("a.txt", "b.txt", "c.txt")]
    assert [line.index(f"{kind}: {name}") for kind, name in zip(("gone", "changed", "new"), names, strict=True)]
    weights = [(run / "model.safetensors").read_bytes() for run in (home / "out", copy)]
    assert weights[0] == weights[1]


def test_a_run_killed_while_its_text_was_stored_finds_it_again(tmp_path):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    write_corpus(home / "a.txt")
    train("--data", "a.txt", "--output", "out", "--stop-after", 1, *QUICK, cwd=home)
    for name in ("tokens", "checkpoints"):
        shutil.rmtree(home / "out" / name)
    done = train("--resume", "--output", home / "out", cwd=elsewhere)
    assert TokenStore.open(home / "out" / "tokens").num_documents == 40, done.stderr


@pytest.mark.parametrize("module", ["fastbert.train", "fastbert.tokenize"])
def test_text_that_is_mostly_unknown_is_refused_and_leaves_nothing(tmp_path, module):
    corpus = write_corpus(tmp_path / "corpus.txt")
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "vocab.txt").write_text("\n".join([*SPECIAL, "o", "gato", "."]))
    given = "--data", corpus, "--tokenizer", tmp_path / "v", "--output", tmp_path / "out"
    quick = QUICK if module == "fastbert.train" else ()
    done = command(module, *given, *quick, code=2, cwd=tmp_path)
    errors = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(errors) == 1, done.stderr
    assert "[UNK]" in done.stderr and "not in the vocabulary" in done.stderr and "--allow-unknown" in done.stderr
    assert not (tmp_path / "out").exists()
    command(module, *given, *quick, "--allow-unknown", cwd=tmp_path)


def test_a_store_that_is_mostly_unknown_is_refused_for_training(tmp_path):
    corpus = write_corpus(tmp_path / "corpus.txt")
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "vocab.txt").write_text("\n".join([*SPECIAL, "o", "gato", "."]))
    given = "--tokenizer", tmp_path / "v", "--output", tmp_path / "store", "--allow-unknown"
    command("fastbert.tokenize", "--data", corpus, *given, cwd=tmp_path)
    done = train("--data", tmp_path / "store", "--output", tmp_path / "run", *QUICK, code=2, cwd=tmp_path)
    assert str(tmp_path / "store") in done.stderr and "--allow-unknown" in done.stderr
    assert not (tmp_path / "run").exists()


def test_the_limit_of_word_lengths_reaches_every_command(tmp_path):
    (tmp_path / "dna.txt").write_text("".join(("ACGT" * 50)[i : i + 150] + "\n\n" for i in range(50)))
    given = "--data", tmp_path / "dna.txt", "--max-word-chars", 150
    train(*given, "--output", tmp_path / "run", *QUICK, cwd=tmp_path)
    assert Tokenizer.load(tmp_path / "run").options.max_input_chars_per_word == 150
    assert TokenStore.open(tmp_path / "run" / "tokens").num_unknown == 0
    short = "--tokenizer", tmp_path / "run", "--max-word-chars", 10, "--output", tmp_path / "store", "--allow-unknown"
    done = command("fastbert.tokenize", "--data", tmp_path / "dna.txt", *short, code=2, cwd=tmp_path)
    assert "over 10 characters" in done.stderr
    for bad in (0, -1):
        train("--data", tmp_path / "dna.txt", "--max-word-chars", bad, code=2, cwd=tmp_path)


def test_documents_and_normalization_reach_the_store(tmp_path):
    text = unicodedata.normalize("NFD", "".join(f"à noite {i}, já é manhã\n" for i in range(40)))
    (tmp_path / "a.txt").write_text(text)
    options = "--documents", "line", "--normalize", "none"
    train("--data", tmp_path / "a.txt", "--output", tmp_path / "run", *options, *QUICK, cwd=tmp_path)
    assert TokenStore.open(tmp_path / "run" / "tokens").num_documents == 40
    assert "\u0301" in (tmp_path / "run" / "vocab.txt").read_text()
    facts = json.loads((tmp_path / "run" / "run.json").read_text())["options"]
    assert (facts["documents"], facts["normalize"]) == ("line", "none")
    given = "--data", tmp_path / "a.txt", "--tokenizer", tmp_path / "run", "--output", tmp_path / "store"
    command("fastbert.tokenize", *given, "--documents", "file", *options[2:], cwd=tmp_path)
    assert TokenStore.open(tmp_path / "store").num_documents == 1
    done = command("fastbert.tokenize", *given[:4], "--output", tmp_path / "composed", code=2, cwd=tmp_path)
    assert "--normalize none" in done.stderr, "the vocabulary has decomposed accents"
    done = train(*given[:2], "--documents", "line", "--objective", "mlm+nsp", *QUICK, code=2, cwd=tmp_path)
    assert "mlm+nsp" in done.stderr
