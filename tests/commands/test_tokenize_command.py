"""python -m fastbert.tokenize: stores, parts, resuming, and one clear line for every mistake."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
import unicodedata

import numpy as np
import pytest
from made_up_stores import documents_of

from fastbert.data import TokenStore
from fastbert.system.cli import run
from fastbert.system.errors import InputError
from fastbert.text import Tokenizer
from fastbert.tokenize import TokenizeOptions, main, parse_shard
from support import SPECIAL

WORDS = ["o", "gato", "dorme", "na", "casa", "do", "rei", ",", "e", "a", "rainha", "lê", "um", "livro", "."]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    directory = tmp_path_factory.mktemp("vocabulary")
    pieces = [*SPECIAL, *dict.fromkeys(WORDS), "[", "]", "sep", "##s"]
    (directory / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    (directory / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    return directory


def call(*argv):
    return run(main, TokenizeOptions, [str(a) for a in argv])


def a_text(path, documents):
    def word(i):
        return WORDS[i * i % len(WORDS)]

    path.write_text(
        "\n\n".join("\n".join(" ".join(word(d + s * w) for w in range(5)) for s in range(3)) for d in range(documents)),
        encoding="utf-8",
    )
    return path


def test_a_store(tmp_path, vocabulary, capsys):
    text = a_text(tmp_path / "a.txt", 20)
    output = tmp_path / "store"
    assert call("--data", text, "--tokenizer", vocabulary, "--output", output, "--threads", 1, "--verify") == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(
        rf"{output}: 300 tokens \(uint16\) in 60 lines of 20 documents, 0\.00% \[UNK\], checksums right; \d+\.\d s\n",
        out,
    )
    assert err == ""
    store, tokenizer = TokenStore.open(output), Tokenizer.load(vocabulary)
    assert store.fingerprint == tokenizer.fingerprint() and store.vocab_size == len(tokenizer)
    expected = [
        tokenizer.encode(document.replace("\n", " "), add_special_tokens=False).ids
        for document in text.read_text(encoding="utf-8").split("\n\n")
    ]
    assert documents_of(store) == expected


def test_special_tokens_in_the_text_are_text(tmp_path, vocabulary):
    (tmp_path / "a.txt").write_text("gato [SEP] rei [MASK]")
    assert call("--data", tmp_path / "a.txt", "--tokenizer", vocabulary, "--output", tmp_path / "s") == 0
    store = TokenStore.open(tmp_path / "s")
    tokens = Tokenizer.load(vocabulary)
    assert [tokens.id_to_token(i) for i in store.gather([0], [store.num_tokens]).tolist()] == (
        ["gato", "[", "sep", "]", "rei", "[", "[UNK]", "]"]
    )


@pytest.mark.parametrize(
    ("text", "causes"),
    [
        (
            "o gato lê\n" * 20 + unicodedata.normalize("NFD", "a rainha lê um livro\n") * 20,
            ["decomposed", "--normalize nfc"],
        ),
        ("o gato\n" * 20 + "o rei Q ∑\n", ["not in the vocabulary", "Q ∑"]),
        ("o gato\n" * 20 + "a" * 101 + "\n", ["over 100 characters", "--max-word-chars"]),
        ("o gato\n" * 20 + "aeo\n", ['"##" form']),
    ],
)
def test_the_share_of_unknown_tokens_is_told_with_its_causes(tmp_path, vocabulary, capsys, text, causes):
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    (tmp_path / "cased").mkdir()
    (tmp_path / "cased" / "vocab.txt").write_bytes((vocabulary / "vocab.txt").read_bytes())
    (tmp_path / "cased" / "tokenizer_config.json").write_text('{"do_lower_case": false, "strip_accents": false}')
    argv = "--data", tmp_path / "a.txt", "--tokenizer", tmp_path / "cased", "--output", tmp_path / "s"
    assert call(*argv, "--normalize", "none") == 0
    out, err = capsys.readouterr()
    store = TokenStore.open(tmp_path / "s")
    unk_id = Tokenizer.load(vocabulary).unk_id
    assert store.num_unknown == np.count_nonzero(store.gather([0], [store.num_tokens]) == unk_id) > 0
    assert "% [UNK]" in out and err.startswith("warning: ") and err.count("\n") == 1
    for word in causes:
        assert word in err


def test_same_bytes_from_the_reference(tmp_path, vocabulary, monkeypatch):
    text = a_text(tmp_path / "a.txt", 50)
    for impl in ("auto", "reference"):
        monkeypatch.setenv("FASTBERT_IMPL", impl)
        assert call("--data", text, "--tokenizer", vocabulary, "--output", tmp_path / impl) == 0
    for path in (tmp_path / "auto").iterdir():
        assert path.read_bytes() == (tmp_path / "reference" / path.name).read_bytes()


def test_parts_and_merge(tmp_path, vocabulary, capsys):
    text = a_text(tmp_path / "a.txt", 30)
    common = "--tokenizer", vocabulary, "--data", text, "--output"
    for i in (3, 1, 2):
        assert call(*common, tmp_path / "parts", "--shard", f"{i}/3") == 0
    parts = [tmp_path / "parts" / f"part-{i}-of-3" for i in (1, 2, 3)]
    assert call("--merge", *parts, "--output", tmp_path / "merged", "--verify") == 0
    assert call(*common, tmp_path / "whole") == 0
    merged, whole = TokenStore.open(tmp_path / "merged"), TokenStore.open(tmp_path / "whole")
    assert documents_of(merged) != documents_of(whole) and sorted(documents_of(merged)) == sorted(documents_of(whole))
    assert call("--output", tmp_path / "merged", "--verify") == 0
    assert "checksums right" in capsys.readouterr().out


def test_a_run_that_was_killed_goes_on(tmp_path, vocabulary):
    """The real thing: a process that is killed in the middle, repeated, gives the bytes of a run that was not."""
    text = a_text(tmp_path / "a.txt", 200_000)
    code = (
        "import sys\nfrom fastbert.data import Corpus, write_store\n"
        "from fastbert.data.corpus import text_blocks\nfrom fastbert.data.store import text_batches\n"
        "from fastbert.text import Tokenizer\n"
        "text_batches.BATCH_SIZE = text_blocks.BLOCK_BYTES = 100_000\n"
        "write_store(sys.argv[1], Corpus([sys.argv[2]]), Tokenizer.load(sys.argv[3]), shard_tokens=50_000)"
    )
    outputs = tmp_path / "killed", tmp_path / "whole"
    commands = [[sys.executable, "-c", code, str(o), str(text), str(vocabulary)] for o in outputs]
    process = subprocess.Popen(commands[0])
    deadline = time.monotonic() + 60
    while not (outputs[0] / "tokens-00003.bin").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was done before it could be killed"
    with pytest.raises(InputError, match="unfinished"):
        TokenStore.open(outputs[0])
    kept = os.stat(outputs[0] / "tokens-00001.bin").st_mtime_ns
    for command in commands:
        subprocess.run(command, check=True, timeout=120)
    assert os.stat(outputs[0] / "tokens-00001.bin").st_mtime_ns == kept
    assert {p.name: p.read_bytes() for p in outputs[0].iterdir()} == {
        p.name: p.read_bytes() for p in outputs[1].iterdir()
    }


def test_shard_names():
    assert parse_shard("1/1") == (0, 1) and parse_shard("12/12") == (11, 12)
    for text in ("0/3", "4/3", "1", "1/0", "-1/3", "a/b", "1/3/5", "", "1.0/2"):
        with pytest.raises(InputError, match="--shard"):
            parse_shard(text)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], ["--data", "missing"]),
        (["--data", "TEXT"], ["--tokenizer", "missing"]),
        (["--data", "NONE.txt", "--tokenizer", "VOCAB"], ["NONE.txt", "no such file"]),
        (["--data", "TEXT", "--tokenizer", "NONE"], ["NONE"]),
        (["--data", "TEXT", "--tokenizer", "VOCAB", "--shard", "3/2"], ["--shard 3/2"]),
        (["--data", "TEXT", "--tokenizer", "VOCAB", "--threads", "0"], ["--threads 0"]),
        (["--data", "TEXT", "--merge", "x"], ["--merge", "--data"]),
        (["--merge", "NONE"], ["NONE", "no such directory"]),
        (["--verify"], ["no such directory"]),
        (["--data", "BAD", "--tokenizer", "VOCAB"], ["BAD", "byte 4 ", "iconv"]),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(tmp_path, vocabulary, capsys, argv, words):
    a_text(tmp_path / "TEXT", 5)
    (tmp_path / "BAD").write_bytes(b"gato\xff")
    argv = [str(vocabulary) if a == "VOCAB" else str(tmp_path / a) if a[0].isupper() else a for a in argv]
    assert call(*argv, "--output", tmp_path / "out") == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    for word in words:
        assert word in err
    assert not (tmp_path / "out").exists()


def test_as_a_process(tmp_path, vocabulary):
    """--help, exit codes and no torch, which takes seconds to import."""
    command = [sys.executable, "-X", "importtime", "-m", "fastbert.tokenize"]
    done = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "python -m fastbert.tokenize" in done.stdout and "--text-field" in done.stdout
    argv = ["--data", "-", "--tokenizer", str(vocabulary), "--output", str(tmp_path / "s")]
    done = subprocess.run([*command, *argv], capture_output=True, text=True, timeout=60, input="o gato\n\no rei")
    assert done.returncode == 0 and "4 tokens" in done.stdout and "2 documents" in done.stdout
    assert "numpy" in done.stderr and not re.search(r"\| +torch$", done.stderr, re.M)


def test_a_bare_vocabulary_is_as_cased_as_asked(tmp_path):
    (tmp_path / "vocab").mkdir()
    (tmp_path / "vocab" / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nAbc\nabc\n", encoding="utf-8")
    (tmp_path / "a.txt").write_text("Abc abc\n", encoding="utf-8")
    for option, lowercase in (({}, False), ({"lowercase": True}, True), ({"no_lowercase": True}, False)):
        output = tmp_path / f"store{len(option)}{lowercase}"
        options = TokenizeOptions(
            output=output, data=(str(tmp_path / "a.txt"),), tokenizer=tmp_path / "vocab", **option
        )
        main(options)
        assert Tokenizer.load(output).options.lowercase == lowercase
    with pytest.raises(InputError, match="--no-lowercase"):
        main(dataclasses.replace(options, lowercase=True))
