"""Encoding prose to ids: `fastbert.Tokenizer` against Hugging Face tokenizers, flash-tokenizer and tensorflow-text.

    pytest benchmarks/test_tokenizer.py          pytest-benchmark's tables
    python benchmarks/test_tokenizer.py [MB]     one interleaved run; MB per second and ratios of medians

The text is that of FASTBERT_SHARED/data/text (or ../shared beside the checkout), else the bundled corpora, one text a
line, empty lines left out. English is encoded uncased with bert-base-uncased, Portuguese cased with
bert-base-portuguese-cased where these vocabularies are beside the text, else with vocabularies trained on the text.
MB are 10^6 bytes of UTF-8. A time is CPU seconds of the process on one thread (wall-clock seconds on several), which
neighbours on the machine disturb less.

"first pass" makes a new tokenizer before every pass: its caches are empty. "again" repeats the pass. The peers run the
same `list[str]`; Hugging Face is not asked for its `.ids`, which would cost it about 6 % more.

Before anything is timed, every line's ids are compared with Hugging Face's; flash-tokenizer and tensorflow-text may
differ, and the number of lines on which they do is shown (tensorflow-text: of tokens).
"""

import lzma
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pytest

from fastbert.text import Tokenizer
from fastbert.text.tokenizer_files import read_vocab

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("FASTBERT_SHARED", ROOT.parent / "shared")) / "data"
VOCABULARIES = {"en": "bert-base-uncased", "pt": "bert-base-portuguese-cased"}
ROUNDS = 5
# one thread, nothing cut
FLASH = {"padding": "longest", "max_length": 100_000, "do_multiprocess": False}
PEER_MB = 2.0  # the slower peers get the beginning of the text only


@dataclass(frozen=True)
class Corpus:
    """Lines of one language, with the vocabulary that encodes them."""

    language: str
    lines: list[str]
    vocab: list[str]

    @property
    def num_bytes(self) -> int:
        return sum(len(line.encode()) for line in self.lines)

    @property
    def lowercase(self) -> bool:
        return self.language == "en"

    def head(self, megabytes: float) -> "Corpus":
        """The first lines, about so many MB."""
        sizes = np.cumsum([len(line.encode()) for line in self.lines])
        return Corpus(self.language, self.lines[: int(np.searchsorted(sizes, megabytes * 1e6)) + 1], self.vocab)


@cache
def corpus(language: str, megabytes: float) -> Corpus:
    folder = SHARED / "text" / language
    if folder.is_dir():
        texts = (path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.txt")))
    else:
        bundled = ROOT / "fastbert" / "data" / "bundled" / f"{language}.txt.xz"
        texts = (t for t in [lzma.decompress(bundled.read_bytes()).decode()])
    lines: list[str] = []
    size = 0
    for text in texts:
        new = [line for line in text.split("\n") if line.strip()]
        lines += new
        size += sum(len(line.encode()) for line in new)
        if size > megabytes * 1e6:
            break
    path = SHARED / "vocab" / f"{VOCABULARIES[language]}.txt"
    vocab = read_vocab(path) if path.is_file() else Tokenizer.train(lines, 30_000, lowercase=language == "en").vocab
    return Corpus(language, lines, vocab).head(megabytes)


def ours(text: Corpus, impl: str = "cpp") -> Tokenizer:
    from fastbert.text import TokenizerOptions

    return Tokenizer(text.vocab, TokenizerOptions(lowercase=text.lowercase), impl=impl)


def hugging_face(text: Corpus) -> Any:
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    vocab = {entry: i for i, entry in enumerate(text.vocab)}
    return tokenizers.BertWordPieceTokenizer(vocab, lowercase=text.lowercase)._tokenizer


def flash(text: Corpus, folder: Path) -> Any:
    module = pytest.importorskip("flash_tokenizer", reason="flash-tokenizer is not installed")
    path = folder / "vocab.txt"
    path.write_text("\n".join(text.vocab) + "\n", encoding="utf-8")
    return module.BertTokenizerFlash(str(path), do_lower_case=text.lowercase)


def tensorflow_text(text: Corpus) -> Callable[[list[str]], Any]:
    tf_text = pytest.importorskip("tensorflow_text", reason="tensorflow-text is not installed")
    tf = pytest.importorskip("tensorflow")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tokenizer = tf_text.FastBertTokenizer(
        vocab=text.vocab, lower_case_nfd_strip_accents=text.lowercase, token_out_type=tf.int32
    )
    return lambda lines: tokenizer.tokenize(lines).flat_values.numpy()


def check(text: Corpus) -> None:
    """Every line's ids equal Hugging Face's, from a list and from bytes."""
    tokenizer, reference = ours(text), hugging_face(text)
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
        tokenizer = ours(text)
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
def test_python_twin(benchmark, language):
    text = corpus(language, 1.0)
    tokenizer, native = ours(text, "reference"), ours(text)
    assert np.array_equal(tokenizer.encode_batch(text.lines).input_ids, native.encode_batch(text.lines).input_ids)
    benchmark.extra_info["MB"] = text.num_bytes / 1e6
    benchmark.pedantic(lambda: ours(text, "reference").encode_batch(text.lines), rounds=2)


# ---- one interleaved run ----


def clocked(run: Callable[[], Any], clock: Callable[[], float]) -> float:
    begin = clock()
    run()
    return clock() - begin


def differing_lines(ids: list[Any], text: Corpus) -> int:
    expected = ours(text).encode_batch(text.lines)
    return sum(list(map(int, row)) != expected[i].tolist() for i, row in enumerate(ids))


def peers(text: Corpus, folder: Path) -> dict[str, tuple[Callable[[], Any], float, str]]:
    """name -> (pass, MB, remark); a peer that is not installed is left out."""
    small = text.head(PEER_MB)
    reference = hugging_face(small)
    result = {
        "tokenizers encode_batch_fast": (lambda: reference.encode_batch_fast(small.lines), small.num_bytes / 1e6, "")
    }
    try:
        tokenizer = flash(small, folder)
        pad = small.vocab.index("[PAD]")
        ids = [[i for i in row if i != pad] for row in tokenizer(small.lines, **FLASH).input_ids]
        remark = f"{differing_lines(ids, small)} of {len(small.lines)} lines differ"
        run = lambda: tokenizer(small.lines, **FLASH)  # noqa: E731
        result["flash-tokenizer"] = (run, small.num_bytes / 1e6, remark)
    except pytest.skip.Exception as skipped:
        print(f"  flash-tokenizer: {skipped}")
    try:
        encode = tensorflow_text(small)
        wanted = len(ours(small).encode_batch(small.lines, add_special_tokens=False).input_ids)
        remark = f"{len(encode(small.lines)) - wanted:+d} tokens"
        result["tensorflow-text"] = (lambda: encode(small.lines), small.num_bytes / 1e6, remark)
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
    state = {"tokenizer": ours(text)}

    def renew() -> None:
        state["tokenizer"] = ours(text)

    one: dict[str, tuple[Callable[[], Any], float, str]] = {
        "fastbert list[str], first pass": (lambda: state["tokenizer"].encode_batch(text.lines, threads=1), size, ""),
        "fastbert list[str], again": (lambda: state["tokenizer"].encode_batch(text.lines, threads=1), size, ""),
        "fastbert file, first pass": (lambda: state["tokenizer"].encode_file(path, threads=1), size, ""),
        "fastbert file, again": (lambda: state["tokenizer"].encode_file(path, threads=1), size, ""),
        **peers(text, folder),
    }
    cpu: dict[str, list[float]] = {name: [] for name in one}
    wall: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(ROUNDS):
        for name, (run, megabyte, _remark) in one.items():
            if "first pass" in name:
                renew()
            cpu[name].append(megabyte / clocked(run, time.process_time))
        for threads, rates in wall.items():
            many = lambda n=threads: state["tokenizer"].encode_file(path, threads=n)  # noqa: E731
            rates.append(size / clocked(many, time.perf_counter))
    base = statistics.median(cpu["tokenizers encode_batch_fast"])
    for name, (_run, _megabyte, remark) in one.items():
        median = statistics.median(cpu[name])
        print(f"  {name:32} {median:8.1f} MB per CPU second  {median / base:6.1f}x  {remark}")
    ratio = statistics.median(wall[2]) / statistics.median(wall[1])
    print(f"  file, again, two threads / one, wall clock: {ratio:.2f}")


def main() -> None:
    import tempfile

    megabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 12.0
    with tempfile.TemporaryDirectory() as folder:
        for language in VOCABULARIES:
            compare(language, megabytes, Path(folder))


if __name__ == "__main__":
    main()
