"""Every file that is read from elsewhere, damaged in every way we can think of: it is read, or refused in one line.

A case takes a good file, changes it (bits, cuts, insertions, or a value of its JSON put in place of another), repairs
the checksum where there is one, so that the checks behind it are reached, and reads it. Nothing but `InputError` may
come out, and no case may ask for memory out of proportion.

The suite tries a few hundred cases a reader; ``FASTBERT_FUZZ_CASES=200000 pytest tests/test_hostile_files.py`` is the
long proof.
"""

import copy
import json
import os
import random
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fastbert import BertConfig, BertForPreTraining, Tokenizer
from fastbert.data import Corpus, TokenStore, write_store
from fastbert.data.store.token_store import _crc_of
from fastbert.runs import checkpoint
from fastbert.runs.directory import RunDirectory
from fastbert.system.errors import InputError
from fastbert.weights import huggingface

CASES = int(os.environ.get("FASTBERT_FUZZ_CASES", "300"))
EXTRA_BYTES = 4 << 30  # of address space that a case may ask for beyond what the process has
HOSTILE = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, 10**30, -(10**30), 0.5, -0.0, 1e308, float("inf"), float("nan"),
    "", "x", "0", "12", "é" * 9, "../../etc/passwd", "/dev/zero", "a\x00b", "\ud800", [], [[]], [None], {}, {"": {}},
    {"a": [1]}, "[MASK]", "[UNK]", ["full_attention"], [0] * 300,
)  # fmt: skip


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, insert, repeat or overwrite."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        place = rng.randrange(len(changed) + 1)
        kind = rng.randrange(6)
        if kind == 0 and place < len(changed):
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del changed[place:]
        elif kind == 2:
            changed[place:place] = rng.randbytes(rng.randrange(1, 9))
        elif kind == 3:
            del changed[place : place + rng.randrange(1, 40)]
        elif kind == 4:
            changed[place : place + 8] = rng.choice((b"\xff" * 8, b"\0" * 8, b"9" * 8, b"\xed\xa0\x80", b'"', b"[" * 8))
        else:
            start = rng.randrange(len(changed) + 1)
            changed[place:place] = changed[start : start + rng.randrange(1, 200)]
    return bytes(changed)


def places(value, path=()):
    """Every place of a JSON value."""
    yield path
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from places(inner, (*path, key))


def mutate_json(value, rng: random.Random):
    """A copy with one to three values replaced, deleted, or moved under another name."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        path = rng.choice(list(places(value)))
        if not path:
            if rng.randrange(50) == 0:
                return copy.deepcopy(rng.choice(HOSTILE))
            continue
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        kind = rng.randrange(5)
        if kind == 0:
            del parent[path[-1]]
        elif kind == 1 and isinstance(parent, dict):
            parent[rng.choice(("", "x", "format", str(path[-1]) + "s"))] = parent.pop(path[-1])
        elif kind == 2 and isinstance(parent[path[-1]], int):
            parent[path[-1]] += rng.choice((-1, 1, 63, 2**20, -(2**20)))
        else:
            parent[path[-1]] = copy.deepcopy(rng.choice(HOSTILE))
    return value


def json_bytes(value) -> bytes:
    return json.dumps(value).encode()


def with_crc(value) -> bytes:
    """A manifest whose checksum fits, so that what it says is looked at."""
    if isinstance(value, dict):
        value.pop("crc32", None)
        value["crc32"] = _crc_of(value)
    return json_bytes(value)


def with_sha256(value) -> bytes:
    if isinstance(value, dict):
        value.pop("sha256", None)
        value["sha256"] = checkpoint._fingerprint_of(value)
    return json_bytes(value)


def with_header(value) -> bytes:
    """A safetensors file with this header and sixteen zero bytes of data."""
    header = json_bytes(value)
    return len(header).to_bytes(8, "little") + header + bytes(16)


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """A run's worth of good files."""
    root = tmp_path_factory.mktemp("good")
    (root / "text.txt").write_text("Olá, mundo.\nA casa é azul.\n\nO gato dorme.\n" * 3, encoding="utf-8")
    rows = [{"text": f"Linha {i}: ação.", "other": i} for i in range(4)]
    (root / "rows.jsonl").write_text("".join(json.dumps(r, ensure_ascii=i < 2) + "\n" for i, r in enumerate(rows)))
    (root / "rows.csv").write_text('text,other\nolá,1\n"a ""b"",\nc",2\n', encoding="utf-8")
    tokenizer = Tokenizer.train([str(root / "text.txt")], vocab_size=60, min_frequency=1)
    tokenizer.save(root / "tokenizer")
    write_store(root / "store", Corpus([str(root / "text.txt")]), tokenizer)
    for arch in ("classic", "modern"):
        fields = {"window": 8} if arch == "modern" else {}
        config = BertConfig.preset(
            "tiny", arch, hidden_size=8, num_attention_heads=2, intermediate_size=8, vocab_size=60,
            max_position_embeddings=16, **fields,
        )  # fmt: skip
        model = BertForPreTraining(config)
        model.save_pretrained(root / arch)
    tensors = {"random/cpu": torch.zeros(2), "m": torch.zeros(2, 2)}
    checkpoint.save(root, 1, model.state_dict(), config, tensors, {"tokens": 1})
    (root / "run").mkdir()
    (root / "run/run.json").write_text(json.dumps({"options": {"data": ["x"], "seed": 0}, "resumed": []}))
    return root


def read_corpus(path: Path) -> None:
    corpus = Corpus([str(path)])
    for _ in corpus.documents():
        pass
    for _ in corpus.text_chunks():
        pass


def read_store(path: Path) -> None:
    store = TokenStore.open(path.parent, verify=True)
    store.gather([0], [min(store.num_tokens, 1000)])


# name -> (file below the good files, how a mutated JSON value is written, or None where only bytes change; the reader)
READERS: dict[str, tuple[str, Callable | None, Callable[[Path], object]]] = {
    "manifest": ("store/manifest.json", with_crc, read_store),
    "sentences": ("store/sentences.bin", None, read_store),
    "tokens": ("store/tokens-00000.bin", None, read_store),
    "config classic": ("classic/config.json", json_bytes, lambda p: huggingface.read_config(p.parent)),
    "config modern": ("modern/config.json", json_bytes, lambda p: huggingface.read_config(p.parent)),
    "tokenizer.json": ("tokenizer/tokenizer.json", json_bytes, lambda p: Tokenizer.load(p.parent).encode("Olá é")),
    "tokenizer_config.json": ("tokenizer/tokenizer_config.json", json_bytes, lambda p: Tokenizer.load(p.parent)),
    "vocab.txt": ("tokenizer/vocab.txt", None, lambda p: Tokenizer.from_file(p).encode("Olá mundo é")),
    "safetensors": ("classic/model.safetensors", None, huggingface.read_safetensors),
    "safetensors header": ("classic/model.safetensors", with_header, huggingface.read_safetensors),
    "jsonl": ("rows.jsonl", None, read_corpus),
    "csv": ("rows.csv", None, read_corpus),
    "text": ("text.txt", None, read_corpus),
    "checkpoint state": ("checkpoints/step-1/state.json", with_sha256, lambda p: checkpoint.load(p.parent)),
    "run.json": ("run/run.json", json_bytes, lambda p: RunDirectory.reopen(str(p.parent))),
}


def original(path: Path, name: str):
    """The JSON value that a mutation starts from."""
    data = path.read_bytes()
    if name == "safetensors header":
        return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return json.loads(data)


@pytest.mark.parametrize("name", READERS)
def test_hostile_files_are_read_or_refused(name, good):
    below, write, read = READERS[name]
    path = good / below
    whole = path.read_bytes()
    value = original(path, name) if write else None
    before = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    read(path)  # the good file is good
    refused = 0
    resource.setrlimit(resource.RLIMIT_AS, (mapped + EXTRA_BYTES, before[1]))
    try:
        for case in range(CASES):
            rng = random.Random(f"{name} {case}")
            data = write(mutate_json(value, rng)) if write and rng.randrange(4) else mutate_bytes(whole, rng)
            path.write_bytes(data)
            try:
                read(path)
            except InputError as error:
                refused += 1
                assert "\n" not in str(error), f"case {case}: more than one line: {error}"
            except BaseException as error:
                raise AssertionError(
                    f"{name}, case {case}: {type(error).__name__}: {error}\n{data[:2000]!r}"
                ) from error
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        path.write_bytes(whole)
    assert refused > 0 or name in ("text", "vocab.txt"), "no case was refused: the reader checks nothing"
