"""Encoding prose to ids: `fastbert.Tokenizer` against Hugging Face tokenizers, flash-tokenizer, tokie and others.

    pytest benchmarks/test_tokenizer.py          pytest-benchmark's tables
    python benchmarks/test_tokenizer.py [MB]     one interleaved run; MB per second and ratios of medians
    python benchmarks/test_tokenizer.py --threads [MB]    two threads against one, wall clock: needs a quiet machine

The text is that of FASTBERT_SHARED/data/text (or ../shared beside the checkout), else the bundled corpora, one text a
line, empty lines left out. English is encoded uncased with bert-base-uncased, Portuguese cased with
bert-base-portuguese-cased where these vocabularies are beside the text, else with vocabularies trained on the text.
MB are 10^6 bytes of UTF-8. A time is CPU seconds of the process on one thread, which neighbours on the machine disturb
less; with --threads, wall-clock seconds.

"first pass" makes a new tokenizer before every pass: its caches are empty. "again" repeats the pass. The peers run the
same `list[str]`; Hugging Face is not asked for its `.ids`, which would cost it about 6 % more.

tensorflow-text brings tensorflow and its own numpy, so it runs in an environment of its own: FASTBERT_TFTEXT_PYTHON
names the interpreter of one (`python -m venv tf && tf/bin/pip install tensorflow-text`), else it is left out.

Before anything is timed, every line's ids are compared with Hugging Face's; flash-tokenizer, tensorflow-text, tokie and
kitoken may differ, and the number of lines on which they do is shown, of the text and of 3,000 lines of odd Unicode.
"""

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAYON_NUM_THREADS", "1")  # tokie's threads

import numpy as np
import pytest
from harness import Worker, need_peer, seconds, take_turns
from texts import VOCABULARIES, Corpus, corpus

ROUNDS = 5
# one thread, nothing cut
FLASH = {"padding": "longest", "max_length": 100_000, "do_multiprocess": False}
PEER_MB = 2.0  # the slower peers get the beginning of the text only


def hugging_face(text: Corpus) -> Any:
    tokenizers = need_peer("tokenizers", "tokenizers")
    vocab = {entry: i for i, entry in enumerate(text.vocab)}
    return tokenizers.BertWordPieceTokenizer(vocab, lowercase=text.lowercase)._tokenizer


def flash(text: Corpus, folder: Path) -> Any:
    module = need_peer("flash_tokenizer", "flash-tokenizer")
    path = folder / "vocab.txt"
    path.write_text("\n".join(text.vocab) + "\n", encoding="utf-8")
    return module.BertTokenizerFlash(str(path), do_lower_case=text.lowercase)


def tokie(text: Corpus, folder: Path) -> Any:
    module = need_peer("tokie", "tokie")
    text.tokenizer().save(folder)
    return module.Tokenizer.from_json(str(folder / "tokenizer.json"))


def kitoken(text: Corpus, folder: Path) -> Any:
    module = need_peer("kitoken", "kitoken")
    text.tokenizer().save(folder)
    return module.Kitoken.from_tokenizers_file(str(folder / "tokenizer.json"))


def odd_lines(count: int = 3000) -> list[str]:
    """Characters of all of Unicode among letters, half of them from the first planes' scripts and marks."""
    generator = np.random.default_rng(0)
    lines = []
    for _ in range(count):
        points = (
            generator.integers(0x20, 0x3100, 24) if generator.random() < 0.5 else generator.integers(0, 0x2FA20, 24)
        )
        points = np.where(generator.random(24) < 0.5, generator.integers(97, 123, 24), points)
        lines.append("".join(chr(c) for c in points if not 0xD800 <= c <= 0xDFFF and c not in (10, 13)))
    return lines


class TensorflowText(Worker):
    """tensorflow-text's FastBertTokenizer in a process of its own, which measures its own CPU time."""

    def __init__(self, text: Corpus, folder: Path):
        python = os.environ.get("FASTBERT_TFTEXT_PYTHON")
        if not python:
            pytest.skip("FASTBERT_TFTEXT_PYTHON does not name an interpreter that has tensorflow-text")
        vocab, lines, ids = folder / "tf_vocab.txt", folder / "tf_lines.txt", folder / "tf_ids.npz"
        vocab.write_text("\n".join(text.vocab) + "\n", encoding="utf-8", newline="\n")
        lines.write_text("\n".join(text.lines), encoding="utf-8", newline="\n")
        worker = Path(__file__).with_name("tensorflow_text_worker.py")
        command = [python, worker, vocab, lines, int(text.lowercase), ids]
        super().__init__("tensorflow-text", command, stderr=subprocess.DEVNULL)
        try:
            self.versions = self.read()["versions"]
        except SystemExit as failed:
            pytest.skip(f"{failed}: {python} {worker.name}")
        self.rows: list[Any] = []
        with np.load(ids) as result:
            self.rows = np.split(result["ids"], np.cumsum(result["lengths"])[:-1])


def check(text: Corpus) -> None:
    """Every line's ids equal Hugging Face's, from a list and from bytes."""
    tokenizer, reference = text.tokenizer(), hugging_face(text)
    batch = tokenizer.encode_batch(text.lines)
    for start in range(0, len(text.lines), 4096):
        for i, encoding in enumerate(reference.encode_batch_fast(text.lines[start : start + 4096]), start):
            assert batch[i].tolist() == encoding.ids, text.lines[i]
    from_bytes = tokenizer.encode_file("\n".join(text.lines).encode())
    assert np.array_equal(from_bytes.input_ids, batch.input_ids)


@pytest.mark.parametrize("language", ["en", "pt"])
@pytest.mark.parametrize("source", ["list", "file"])
def test_ours(benchmark, language, source, tmp_path):
    text = corpus(language, 8.0)
    check(text.head(PEER_MB))
    path = tmp_path / "text.txt"
    path.write_text("\n".join(text.lines), encoding="utf-8")

    def setup():
        tokenizer = text.tokenizer()
        argument = text.lines if source == "list" else path
        return ((tokenizer.encode_batch if source == "list" else tokenizer.encode_file), argument), {}

    benchmark.extra_info["MB"] = text.num_bytes / 1e6
    benchmark.pedantic(lambda encode, argument: encode(argument, threads=1), setup=setup, rounds=ROUNDS)


@pytest.mark.parametrize("language", ["en", "pt"])
def test_hugging_face(benchmark, language):
    text = corpus(language, PEER_MB)
    reference = hugging_face(text)
    benchmark.extra_info["MB"] = text.num_bytes / 1e6
    benchmark.pedantic(reference.encode_batch_fast, args=(text.lines,), rounds=3)


@pytest.mark.parametrize("language", ["en", "pt"])
def test_flash_tokenizer(benchmark, language, tmp_path):
    text = corpus(language, PEER_MB)
    tokenizer = flash(text, tmp_path)
    benchmark.extra_info["MB"] = text.num_bytes / 1e6
    benchmark.pedantic(lambda: tokenizer(text.lines, **FLASH), rounds=3)


@pytest.mark.parametrize("language", ["en", "pt"])
@pytest.mark.parametrize("name", ["tokie", "kitoken"])
def test_rust_peers(benchmark, name, language, tmp_path):
    text = corpus(language, PEER_MB)
    tokenizer = (tokie if name == "tokie" else kitoken)(text, tmp_path)
    ids = rows_of(name, tokenizer, text.lines)
    benchmark.extra_info["MB"] = text.num_bytes / 1e6
    benchmark.extra_info["lines that differ"] = differing_lines(ids, text, add_special_tokens=False)
    encode = tokenizer.encode_batch_flat if name == "tokie" else lambda lines: tokenizer.encode_all(lines, True)
    benchmark.pedantic(encode, args=(text.lines,), rounds=3)


@pytest.mark.parametrize("language", ["en", "pt"])
def test_python_twin(benchmark, language):
    text = corpus(language, 1.0)
    tokenizer, native = text.tokenizer("reference"), text.tokenizer()
    assert np.array_equal(tokenizer.encode_batch(text.lines).input_ids, native.encode_batch(text.lines).input_ids)
    benchmark.extra_info["MB"] = text.num_bytes / 1e6
    benchmark.pedantic(lambda: text.tokenizer("reference").encode_batch(text.lines), rounds=2)


# ---- one interleaved run ----


def differing_lines(ids: list[Any], text: Corpus, add_special_tokens: bool = True) -> int:
    expected = text.tokenizer().encode_batch(text.lines, add_special_tokens=add_special_tokens)
    return sum(list(map(int, row)) != expected[i].tolist() for i, row in enumerate(ids))


def rows_of(name: str, tokenizer: Any, lines: list[str]) -> list[Any]:
    """Ids of every line by tokie or kitoken, without special tokens."""
    if name == "kitoken":
        return tokenizer.encode_all(lines, False)
    ids, lengths = tokenizer.encode_batch_flat(lines, False)
    return np.split(ids, np.cumsum(lengths.astype(np.int64))[:-1])


def differences(name: str, tokenizer: Any, text: Corpus) -> str:
    odd = odd_lines()
    expected = [encoding.ids for encoding in hugging_face(text).encode_batch_fast(odd, add_special_tokens=False)]
    ours = text.tokenizer().encode_batch(odd, add_special_tokens=False)
    assert [ours[i].tolist() for i in range(len(odd))] == expected
    wrong = sum(list(map(int, row)) != ids for row, ids in zip(rows_of(name, tokenizer, odd), expected, strict=True))
    lines = differing_lines(rows_of(name, tokenizer, text.lines), text, add_special_tokens=False)
    return f"{lines} of {len(text.lines)} lines differ, {wrong} of {len(odd)} odd ones"


def rust_peers(text: Corpus, folder: Path) -> dict[str, tuple[Callable[[], float], float, str]]:
    """tokie on the whole text, new for every first pass; kitoken on the beginning."""
    result: dict[str, tuple[Callable[[], float], float, str]] = {}
    small, size = text.head(PEER_MB), text.num_bytes / 1e6
    path = folder / "lines.txt"
    path.write_text("\n".join(text.lines), encoding="utf-8")
    try:
        warm = tokie(text, folder)
        remark = differences("tokie", warm, small)

        def first(source: str) -> float:
            new = tokie(text, folder)
            if source == "list":
                return seconds(lambda: new.encode_batch_flat(text.lines))
            return seconds(lambda: new.encode_files([str(path)], separator=b"\n", add_special_tokens=True))

        result["tokie list[str], first pass"] = (lambda: first("list"), size, remark)
        result["tokie list[str], again"] = (lambda: seconds(lambda: warm.encode_batch_flat(text.lines)), size, "")
        result["tokie file, first pass"] = (lambda: first("file"), size, "")
    except pytest.skip.Exception as skipped:
        print(f"  tokie: {skipped}")
    try:
        other = kitoken(text, folder)
        remark = differences("kitoken", other, small)
        beginning = small.num_bytes / 1e6
        result["kitoken"] = (lambda: seconds(lambda: other.encode_all(small.lines, True)), beginning, remark)
    except pytest.skip.Exception as skipped:
        print(f"  kitoken: {skipped}")
    return result


def peers(text: Corpus, folder: Path) -> dict[str, tuple[Callable[[], float], float, str]]:
    """name -> (seconds of a pass, MB, remark); a peer that is not installed is left out."""
    small = text.head(PEER_MB)
    reference, size = hugging_face(small), small.num_bytes / 1e6
    result = {
        "tokenizers encode_batch_fast": (lambda: seconds(lambda: reference.encode_batch_fast(small.lines)), size, "")
    }
    try:
        tokenizer = flash(small, folder)
        pad = small.vocab.index("[PAD]")
        ids = [[i for i in row if i != pad] for row in tokenizer(small.lines, **FLASH).input_ids]
        remark = f"{differing_lines(ids, small)} of {len(small.lines)} lines differ"
        result["flash-tokenizer"] = (lambda: seconds(lambda: tokenizer(small.lines, **FLASH)), size, remark)
    except pytest.skip.Exception as skipped:
        print(f"  flash-tokenizer: {skipped}")
    try:
        tensorflow = TensorflowText(small, folder)
        remark = f"{differing_lines(tensorflow.rows, small, False)} of {len(small.lines)} lines differ"
        print(f"  {tensorflow.versions}")
        for source in ("list", "tensor"):
            result[f"tensorflow-text, {source}"] = (lambda s=source: tensorflow.ask(s)["cpu_s"], size, remark)
    except pytest.skip.Exception as skipped:
        print(f"  tensorflow-text: {skipped}")
    return result


def compare(language: str, megabytes: float, folder: Path) -> None:
    text = corpus(language, megabytes)
    size = text.num_bytes / 1e6
    check(text)
    path = folder / f"{language}.txt"
    path.write_text("\n".join(text.lines), encoding="utf-8")
    print(f"{language}: {size:.1f} MB, {len(text.lines):,} lines, every line's ids equal Hugging Face's")
    state = {"tokenizer": text.tokenizer()}

    from_list = lambda: seconds(lambda: state["tokenizer"].encode_batch(text.lines, threads=1))  # noqa: E731
    from_file = lambda: seconds(lambda: state["tokenizer"].encode_file(path, threads=1))  # noqa: E731
    one: dict[str, tuple[Callable[[], float], float, str]] = {
        "fastbert list[str], first pass": (from_list, size, ""),
        "fastbert list[str], again": (from_list, size, ""),
        "fastbert file, first pass": (from_file, size, ""),
        "fastbert file, again": (from_file, size, ""),
        **peers(text, folder),
        **rust_peers(text, folder),
    }

    def rate(name: str) -> float:
        run, megabyte, _remark = one[name]
        if "first pass" in name:
            state["tokenizer"] = text.tokenizer()
        return megabyte / run()

    cpu = take_turns(one, ROUNDS, rate)
    base = statistics.median(cpu["tokenizers encode_batch_fast"])
    for name, (_run, _megabyte, remark) in one.items():
        median = statistics.median(cpu[name])
        print(f"  {name:32} {median:8.1f} MB per CPU second  {median / base:6.1f}x  {remark}")


def compare_threads(language: str, megabytes: float, folder: Path) -> None:
    """Wall-clock speed of two threads against one, in turns, beside what the machine gives two runs at once."""
    text = corpus(language, megabytes)
    lines = text.lines * max(1, round(megabytes * 1e6 / text.num_bytes))
    path = folder / f"{language}.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    size = path.stat().st_size / 1e6
    tokenizer, other = text.tokenizer(), text.tokenizer()
    one, two = (tokenizer.encode_file(path, threads=n) for n in (1, 2))
    assert np.array_equal(one.input_ids, two.input_ids) and np.array_equal(one.offsets, two.offsets)
    other.encode_file(path, threads=1)

    def at_once() -> None:
        threads = [
            threading.Thread(target=t.encode_file, args=(path,), kwargs={"threads": 1}) for t in (tokenizer, other)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def measure(turn: tuple[str, int]) -> float:
        nonlocal tokenizer
        name, threads = turn
        if not threads:
            return seconds(at_once, time.perf_counter)
        if "first pass" in name:
            tokenizer = text.tokenizer()
        encode, source = (tokenizer.encode_file, path) if "file" in name else (tokenizer.encode_batch, lines)
        return seconds(lambda: encode(source, threads=threads), time.perf_counter)

    names = ("file, first pass", "file, again", "list[str], first pass", "list[str], again")
    turns = [(name, threads) for name in names for threads in (1, 2)]
    times = take_turns([*turns, ("both", 0)], 2 * ROUNDS, measure)
    print(f"{language}: {size:.1f} MB, {len(lines):,} lines, wall clock, median and best of {2 * ROUNDS}")
    alone, both = times["file, again", 1], times["both", 0]
    ceiling = 2 * statistics.median(alone) / statistics.median(both), 2 * min(alone) / min(both)
    print(f"  two separate runs at once, beside one alone: {ceiling[0]:.2f} (best {ceiling[1]:.2f})")
    for name in names:
        a, b = times[name, 1], times[name, 2]
        print(
            f"  {name:24} one {size / statistics.median(a):6.1f} MB/s, two {size / statistics.median(b):6.1f} MB/s: "
            f"{statistics.median(a) / statistics.median(b):.2f} (best {min(a) / min(b):.2f})"
        )


def main() -> None:
    import tempfile

    threads = "--threads" in sys.argv
    sizes = [float(argument) for argument in sys.argv[1:] if argument != "--threads"]
    with tempfile.TemporaryDirectory() as folder:
        for language in VOCABULARIES:
            if threads:
                compare_threads(language, sizes[0] if sizes else 60.0, Path(folder))
            else:
                compare(language, sizes[0] if sizes else 12.0, Path(folder))


if __name__ == "__main__":
    main()
