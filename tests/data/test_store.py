"""fastbert.data: writing, resuming, reading, merging and checking token stores."""

import json
import os
import pickle

import numpy as np
import pytest
from made_up_stores import Words, a_corpus, contents, documents_of, ids, numbers

from fastbert.data import Corpus, TokenStore, write_store
from fastbert.data.corpus import formats
from fastbert.data.store import writer
from fastbert.data.store.token_store import FORMAT, token_dtype
from fastbert.system.errors import InputError


def test_tokens_sentences_and_documents(tmp_path):
    store = write_store(tmp_path / "s", a_corpus(tmp_path, "a b c\nd\n\ne f\n\nzero\n\ng\nzero\nh i"), Words())
    assert (store.num_tokens, store.num_sentences, store.num_documents) == (9, 5, 3)
    assert store.sentence_offsets.tolist() == [0, 3, 4, 6, 7, 9]
    assert store.document_offsets.tolist() == [0, 4, 6, 9]
    assert store.sentence_offsets.dtype == store.document_offsets.dtype == np.int64
    assert store.gather([0], [9]).tolist() == ids("a b c d e f g h i")
    assert store.gather([6, 0, 3], [3, 2, 0]).tolist() == ids("g h i a b")
    assert store.gather([0], [9]).dtype == np.int32
    assert (store.vocab_size, store.fingerprint) == (1000, "words-1000")
    assert sorted(contents(tmp_path / "s")) == ["documents.bin", "manifest.json", "sentences.bin", "tokens-00000.bin"]
    again = TokenStore.open(tmp_path / "s", verify=True)
    assert again.gather([0], [9]).tolist() == store.gather([0], [9]).tolist()
    assert pickle.loads(pickle.dumps(again)).num_tokens == 9


def read_everything(store: TokenStore) -> list[int]:
    return [*store.gather([0], [9]).tolist(), *store.sentence_offsets.tolist(), *store.document_offsets.tolist()]


@pytest.mark.parametrize("name", ["tokens-00000.bin", "sentences.bin", "documents.bin"])
@pytest.mark.parametrize("change", ["cut", "overwritten", "rewritten", "replaced"])
def test_a_file_changed_while_the_store_is_open(tmp_path, name, change):
    """A cut map would kill the process (SIGBUS), other ids would be trained on; the same bytes are still good."""
    store = write_store(tmp_path / "s", a_corpus(tmp_path, "a b c\nd\n\ne f\n\ng\nh i"), Words())
    before, path = read_everything(store), tmp_path / "s" / name
    data = path.read_bytes()
    os.utime(path, ns=(0, 0))  # so that the clock's resolution hides no change
    assert read_everything(store) == before
    if change == "replaced":
        (tmp_path / "new").write_bytes(b"")
        os.replace(tmp_path / "new", path)
    else:
        path.write_bytes({"cut": b"", "overwritten": data[::-1], "rewritten": data}[change])
    if change in ("rewritten", "replaced"):
        assert read_everything(store) == before
    else:
        with pytest.raises(InputError, match=name):
            read_everything(store)


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_536, "uint16"), (65_537, "uint32")])
def test_width_of_the_ids(tmp_path, vocab_size, dtype):
    text = " ".join(f"w{i}" for i in range(100_000))
    store = write_store(tmp_path / "s", a_corpus(tmp_path, text), Words(vocab_size))
    assert store.dtype.name == dtype == token_dtype(vocab_size).name
    tokens = store.gather([0], [100_000]).tolist()
    assert tokens == ids(text, vocab_size) and max(tokens) > 65_000
    assert (tmp_path / "s" / "tokens-00000.bin").stat().st_size == 100_000 * np.dtype(dtype).itemsize


def test_ids_outside_the_vocabulary_are_a_bug(tmp_path):
    tokenizer = Words(10)
    tokenizer.encode_file = lambda data, **options: Words.Encoded([data.decode()], 10_000)
    with pytest.raises(ValueError, match="from 0 to 9"):
        write_store(tmp_path / "s", a_corpus(tmp_path, numbers(50)), tokenizer)


def test_many_shards_hold_what_one_holds(tmp_path, small_batches):
    corpus = a_corpus(tmp_path, numbers(500))
    one = write_store(tmp_path / "one", corpus, Words())
    many = write_store(tmp_path / "many", corpus, Words(), shard_tokens=64)
    names = [name for name in contents(tmp_path / "many") if name.startswith("tokens")]
    assert len(names) > 15 and all((tmp_path / "many" / name).stat().st_size <= 128 for name in names)
    assert one.gather([0], [one.num_tokens]).tolist() == many.gather([0], [one.num_tokens]).tolist()
    assert one.sentence_offsets.tolist() == many.sentence_offsets.tolist()
    assert one.document_offsets.tolist() == many.document_offsets.tolist()
    tokens = one.gather([0], [one.num_tokens])
    random = np.random.default_rng(0)
    starts = random.integers(0, one.num_tokens + 1, 300)
    lengths = random.integers(0, one.num_tokens - starts + 1)
    expected = np.concatenate([tokens[a : a + n] for a, n in zip(starts, lengths, strict=True)])
    assert (many.gather(starts, lengths) == expected).all() and (one.gather(starts, lengths) == expected).all()
    many.verify()


BLANKS = ["", " ", "\t \x0b\x0c", "\u2003\xa0", "\x85", "\x1c", "\x1f\x1e \x1d", "\u2028"]
NO_BLANKS = ["zero", "\u200b", "\ufeff", "zero \x1c zero"]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("row", BLANKS + NO_BLANKS)
def test_documents_of_text_end_where_the_readers_say(tmp_path, small_batches, row, newline):
    """Blank lines are found in another way when text stays bytes; the answer is the same."""
    text = f"a b\n{row}\nc\n\n{row}\n{row}\nd\ne" + f"\nf\n{row}" * 30
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", newline).encode())
    corpus = Corpus([str(path), str(path)])
    tokenizer = Words()
    expected = [[i for line in document.lines for i in ids(line)] for document in corpus.documents()]
    assert documents_of(write_store(tmp_path / "s", corpus, tokenizer)) == [d for d in expected if d]
    assert (len(expected) > 40) == (row in BLANKS)


def test_text_and_records_mixed(tmp_path, small_batches):
    paths = []
    for k in range(6):
        paths.append(tmp_path / f"{k}{'.txt' if k % 3 else '.jsonl'}")
        documents = [f"w{k}.{i} x\nlinha" for i in range(12)]
        text = "\n\n".join(documents) if k % 3 else "\n".join(json.dumps({"text": d}) for d in documents)
        paths[-1].write_text(text)
    corpus = Corpus([str(p) for p in paths])
    store = write_store(tmp_path / "s", corpus, Words(), shard_tokens=20)
    assert documents_of(store) == [ids(f"w{k}.{i} x linha") for k in range(6) for i in range(12)]
    assert store.num_sentences == 2 * 6 * 12
    part = write_store(tmp_path / "p", corpus, Words(), shard=(1, 4))
    assert documents_of(part) == [ids(f"w{k}.{i} x linha") for k in (1, 5) for i in range(12)]


def test_gather_nothing_and_outside(tmp_path):
    store = write_store(tmp_path / "s", a_corpus(tmp_path, "a b c"), Words())
    assert store.gather([], []).shape == (0,)
    assert store.gather([3], [0]).shape == (0,)
    for start, length in ((-1, 1), (0, 4), (3, 1), (1, -1)):
        with pytest.raises(ValueError, match="outside"):
            store.gather([start], [length])


@pytest.mark.parametrize("shard_tokens", [40, 64, 1000])
def test_interrupted_anywhere_and_repeated_gives_the_same_bytes(tmp_path, small_batches, shard_tokens):
    corpus = a_corpus(tmp_path, numbers(70))
    whole = Words()
    write_store(tmp_path / "whole", corpus, whole, shard_tokens=shard_tokens)
    saved_work = 0
    for stop in range(whole.calls):
        directory = tmp_path / f"stopped-{stop}"
        with pytest.raises(KeyboardInterrupt):
            write_store(directory, corpus, Words(stop_after=stop), shard_tokens=shard_tokens)
        assert not (directory / "manifest.json").exists()
        with pytest.raises(InputError, match="unfinished"):
            TokenStore.open(directory)
        rest = Words()
        write_store(directory, corpus, rest, shard_tokens=shard_tokens)
        saved_work += whole.calls - rest.calls
        assert contents(directory) == contents(tmp_path / "whole")
    assert (saved_work > whole.calls) == (shard_tokens < 1000)


def test_document_in_parts_is_one_document_also_when_interrupted(tmp_path, small_batches, monkeypatch):
    monkeypatch.setattr(formats, "PART_CHARS", 200)
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": numbers(n, blank=10**9)}) + "\n" for n in (3, 200, 2, 90)))
    corpus = Corpus([str(path)])
    assert sum(document.continues for document in corpus.documents()) > 10
    for stop in (5, 12):
        with pytest.raises(KeyboardInterrupt):
            write_store(tmp_path / "s", corpus, Words(stop_after=stop), shard_tokens=50)
        assert (tmp_path / "s" / "progress.json").exists()
    store = write_store(tmp_path / "s", corpus, Words(), shard_tokens=50)
    sizes = [len(numbers(n, blank=10**9).split()) for n in (3, 200, 2, 90)]
    assert np.diff(store.document_offsets).tolist() == sizes


@pytest.mark.parametrize("change", ["text", "tokenizer", "shard size", "lost shard", "lost offsets", "bad progress"])
def test_other_work_is_begun_anew(tmp_path, small_batches, change):
    corpus = a_corpus(tmp_path, numbers(120))
    directory = tmp_path / "s"
    with pytest.raises(KeyboardInterrupt):
        write_store(directory, corpus, Words(stop_after=9), shard_tokens=40)
    tokenizer, shard_tokens = Words(), 40
    if change == "text":
        corpus = a_corpus(tmp_path, numbers(121))
    elif change == "tokenizer":
        tokenizer = Words(70_000)
    elif change == "shard size":
        shard_tokens = 50
    elif change == "lost shard":
        (directory / "tokens-00001.bin").unlink()
    elif change == "lost offsets":
        (directory / "sentences.bin.tmp").write_bytes(bytes(8))
    else:
        (directory / "progress.json").write_text('{"task": ')
    (directory / "notes.txt").write_text("mine")
    store = write_store(directory, corpus, tokenizer, shard_tokens=shard_tokens)
    expected = write_store(tmp_path / "whole", corpus, Words(len(tokenizer)), shard_tokens=shard_tokens)
    assert contents(directory) == contents(expected.directory) | {"notes.txt": b"mine"}
    store.verify()


def test_complete_store_is_opened_and_never_overwritten(tmp_path):
    corpus = a_corpus(tmp_path, numbers(50))
    write_store(tmp_path / "s", corpus, Words())
    before = contents(tmp_path / "s")
    again = Words()
    write_store(tmp_path / "s", corpus, again)
    assert again.calls == 0
    for other in ((a_corpus(tmp_path, "a", "b.txt"), Words()), (corpus, Words(999))):
        with pytest.raises(InputError, match="another text or tokenizer"):
            write_store(tmp_path / "s", *other)
    assert contents(tmp_path / "s") == before


def test_bad_text_leaves_nothing(tmp_path, small_batches):
    (tmp_path / "bad.txt").write_bytes(numbers(500).encode() + b"\n\n\xff")
    corpora = [Corpus([str(tmp_path / "bad.txt")]), a_corpus(tmp_path, "zero zero", "zero.txt")]
    for corpus, words in zip(corpora, ("not UTF-8", "no token"), strict=True):
        with pytest.raises(InputError, match=words):
            write_store(tmp_path / "s", corpus, Words(), shard_tokens=50)
        assert not (tmp_path / "s").exists()


def test_unwritable_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_store(tmp_path / "file" / "s", a_corpus(tmp_path, "a b"), Words())


def test_full_disk_is_one_line_and_what_is_finished_stays(tmp_path, small_batches, monkeypatch):
    corpus = a_corpus(tmp_path, numbers(120))
    synced = []

    def full(file):
        synced.append(file.name)
        if len(synced) == 8:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(writer, "flush_to_disk", full)
        with pytest.raises(InputError, match=r"No space left on device.*free some space"):
            write_store(tmp_path / "s", corpus, Words(), shard_tokens=40)
    assert (tmp_path / "s" / "progress.json").exists() and not (tmp_path / "s" / "manifest.json").exists()
    rest = Words()
    write_store(tmp_path / "s", corpus, rest, shard_tokens=40).verify()
    whole = Words()
    write_store(tmp_path / "whole", corpus, whole, shard_tokens=40)
    assert contents(tmp_path / "s") == contents(tmp_path / "whole") and rest.calls < whole.calls


def test_progress_is_told(tmp_path, small_batches):
    told = []
    store = write_store(tmp_path / "s", a_corpus(tmp_path, numbers(60)), Words(), progress=lambda *n: told.append(n))
    assert told == sorted(told) and len(told) > 3 and told[-1] == (store.num_tokens, store.num_documents - 1)


# ---- damaged stores ----


@pytest.fixture
def store_path(tmp_path, small_batches):
    write_store(tmp_path / "s", a_corpus(tmp_path, numbers(60)), Words(), shard_tokens=50)
    return tmp_path / "s"


FILES = ["tokens-00000.bin", "tokens-00002.bin", "sentences.bin", "documents.bin"]


@pytest.mark.parametrize("name", FILES)
def test_cut_long_and_missing_files(store_path, name):
    path = store_path / name
    data = path.read_bytes()
    for content in (data[:-1], data[: len(data) // 2], b"", data + b"\0"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}: has {len(content)} bytes, but the manifest lists {len(data)}"):
            TokenStore.open(store_path)
    path.unlink()
    with pytest.raises(InputError, match=f"{name}: cannot be read"):
        TokenStore.open(store_path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", [0, 13, -1])
def test_flipped_bit(store_path, name, where):
    path = store_path / name
    data = bytearray(path.read_bytes())
    data[where] ^= 4
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"{name}: is damaged.*store again"):
        TokenStore.open(store_path, verify=True)


def test_manifest_with_flipped_bits_and_cut_short(store_path):
    path = store_path / "manifest.json"
    data = path.read_bytes()
    for where in range(len(data)):
        harmed = bytearray(data)
        harmed[where] ^= 1 << where % 7
        for content in (bytes(harmed), data[:where])[: 2 if where % 16 == 0 else 1]:
            path.write_bytes(content)
            try:
                TokenStore.open(store_path)
            except InputError as error:
                assert "manifest.json" in str(error)
            else:
                assert json.loads(content) == json.loads(data)  # white space


def test_foreign_and_newer_manifests(store_path, tmp_path):
    path = store_path / "manifest.json"
    good = json.loads(path.read_text())
    for content in ([], {"format": "something else"}, "text", good | {"format": FORMAT + " 2"}):
        path.write_text(json.dumps(content))
        with pytest.raises(InputError, match=r"not the manifest of a|expected a JSON object"):
            TokenStore.open(store_path)
    path.write_text(json.dumps(good | {"version": 2}))
    with pytest.raises(InputError, match=r"version 2.*update fastbert"):
        TokenStore.open(store_path)
    with pytest.raises(InputError, match="not a token store"):
        TokenStore.open(tmp_path)
    with pytest.raises(InputError, match="no such directory"):
        TokenStore.open(tmp_path / "none")
