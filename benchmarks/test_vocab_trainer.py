"""Training a vocabulary: counting, merging and the whole of it, against Hugging Face's WordPieceTrainer.

    pytest benchmarks/test_vocab_trainer.py              pytest-benchmark's tables
    python benchmarks/test_vocab_trainer.py [MB]         one interleaved run on one core, each training in a process of
                                                         its own; ratios of medians of CPU seconds and of peak memory
    python benchmarks/test_vocab_trainer.py --growth GB  memory while counting ever more generated text

The text is that of FASTBERT_SHARED/data/text (or ../shared beside the checkout), else the bundled corpora, repeated up
to the wanted size. All train the same vocabulary: uncased, 30,522 pieces, min_frequency 2. Before anything is timed
the vocabularies are compared: with its ties broken as ours are, Hugging Face's must be the same, id by id; as it is
timed it breaks them at random, so 99 % of the pieces must be the same.
"""

import argparse
import inspect
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path

import pytest
from harness import need_core, need_peer, note_rate, take_turns
from texts import texts

from fastbert.text.vocab_trainer import learn_vocab
from fastbert.text.word_counts import SPECIAL_TOKENS, WordCounts

VOCAB_SIZE = 30522
LANGUAGES = ["en", "pt"]


def corpus(language: str, num_bytes: int, directory: Path) -> Path:
    """A file of about ``num_bytes`` of text, whole lines."""
    text = "\n".join(texts(language)).encode()[:num_bytes].rpartition(b"\n")[0] + b"\n"
    path = directory / f"{language}.txt"
    with open(path, "wb") as file:
        for _ in range(max(1, num_bytes // len(text))):
            file.write(text)
    return path


# Each contestant imports what it needs and nothing else: its source is what a process of its own runs.


def ours_from_file(path: str, vocab_size: int) -> list[str]:
    from fastbert.text.vocab_trainer import train_vocab

    return train_vocab(path, vocab_size=vocab_size, threads=1, impl="cpp").tokens


def ours_from_lines(path: str, vocab_size: int) -> list[str]:
    from fastbert.text.vocab_trainer import train_vocab

    with open(path, encoding="utf-8") as lines:
        return train_vocab(lines, vocab_size=vocab_size, threads=1, impl="cpp").tokens


def hugging_face(path: str, vocab_size: int, numbered: list[str] | None = None) -> list[str]:
    """``numbered``: the special tokens and characters in the order of their ids; see `check_agreement`."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if numbered:
        too_long = pre_tokenizers.Split(Regex(".{101,}"), "removed")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([tokenizer.pre_tokenizer, too_long])
    special = numbered or ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, min_frequency=2, special_tokens=special, show_progress=False
    )
    tokenizer.train([path], trainer)
    return [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]


CONTESTANTS: dict[str, Callable[[str, int], list[str]]] = {
    "fastbert, file": ours_from_file,
    "fastbert, lines": ours_from_lines,
    "tokenizers, file": hugging_face,
}


def check_agreement(path: str) -> None:
    """All contestants learn the same.

    Two pairs that occur equally often are merged in the order of their ids. Hugging Face numbers the "##" characters in
    the order of a hash table, anew in every run, so its vocabularies differ from run to run, and where the text cannot
    fill the vocabulary their sizes do too: from the bundled English 29,822 to 29,824 pieces, some 20 to 40 of them not
    ours. Told to give the characters the ids they have here, and to leave out words of more than 100 characters, as
    ours does because an encoder makes them [UNK], it must learn the same pieces in the same order.
    """
    expected = ours_from_file(path, VOCAB_SIZE)
    assert ours_from_lines(path, VOCAB_SIZE) == expected
    characters = takewhile(lambda piece: len(piece.removeprefix("##")) == 1, expected[len(SPECIAL_TOKENS) :])
    assert hugging_face(path, VOCAB_SIZE, [*SPECIAL_TOKENS, *characters]) == expected
    common = len(set(hugging_face(path, VOCAB_SIZE)) & set(expected)) / len(expected)
    assert common >= 0.99, f"only {common:.2%} of the pieces are Hugging Face's"


@pytest.fixture(scope="module", params=LANGUAGES)
def text_file(request, tmp_path_factory) -> Path:
    need_core()
    return corpus(request.param, 10_000_000, tmp_path_factory.mktemp("corpus"))


@pytest.mark.parametrize("threads", [1, 2])
def test_counting(benchmark, text_file, threads):
    """MB/s = bytes of the file / 10^6 / time."""

    def count() -> WordCounts:
        counts = WordCounts(threads=threads, impl="cpp")
        counts.add_file(text_file)
        return counts if len(counts) else pytest.fail("nothing was counted")

    benchmark.group = f"counting {text_file.stem}"
    benchmark.pedantic(count, rounds=5, warmup_rounds=1)
    note_rate(benchmark, "mb_per_s", text_file.stat().st_size / 1e6)


def test_merging(benchmark, text_file):
    counts = WordCounts(impl="cpp")
    counts.add_file(text_file)
    twin = learn_vocab(counts, vocab_size=2000, impl="reference")
    assert learn_vocab(counts, vocab_size=2000, impl="cpp") == twin
    benchmark.group = f"merging {text_file.stem}"
    benchmark.pedantic(lambda: learn_vocab(counts, vocab_size=VOCAB_SIZE, impl="cpp"), rounds=5, warmup_rounds=1)


def test_peers(benchmark, text_file):
    need_peer("tokenizers", "tokenizers")
    check_agreement(str(text_file))
    benchmark.group = f"training {text_file.stem}"
    benchmark.pedantic(ours_from_file, args=(str(text_file), VOCAB_SIZE), rounds=5)
    note_rate(benchmark, "mb_per_s", text_file.stat().st_size / 1e6)


# ---- one process for each training: its CPU seconds and its peak memory are its own ----

CHILD = """
import resource, sys
tokens = {function}(sys.argv[1], int(sys.argv[2]))
usage = resource.getrusage(resource.RUSAGE_SELF)
assert len(tokens) > 1000, len(tokens)
# not ru_maxrss, which begins with the peak of the process that started this one
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(usage.ru_utime + usage.ru_stime, int(peak.split()[1]) / 1024)
"""


def train_in_child(name: str, path: Path) -> tuple[float, float]:
    """Return CPU seconds and peak memory in MB of a training, start of the interpreter and imports included."""
    # on one core: ours with threads=1, theirs with its parallelism off
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
    run = CONTESTANTS[name]
    code = inspect.getsource(run) + CHILD.format(function=run.__name__)
    command = [sys.executable, "-c", code, str(path), str(VOCAB_SIZE)]
    printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    cpu_s, peak_mb = map(float, printed.split())
    return cpu_s, peak_mb


def compare(num_mb: int) -> None:
    """Contestants take turns, 5 rounds."""
    with tempfile.TemporaryDirectory() as directory:
        for language in LANGUAGES:
            path = corpus(language, num_mb * 1_000_000, Path(directory))
            check_agreement(str(path))
            results = take_turns(CONTESTANTS, 5, lambda name: train_in_child(name, path))  # noqa: B023
            medians = {
                name: [statistics.median(column) for column in zip(*r, strict=True)] for name, r in results.items()
            }
            best = medians["fastbert, file"]
            print(f"\n{language}, {path.stat().st_size / 1e6:.1f} MB, {VOCAB_SIZE} pieces, one core")
            for name, (cpu_s, peak_mb) in medians.items():
                ratios = f"x {cpu_s / best[0]:6.1f}   {peak_mb:8.0f} MB x {peak_mb / best[1]:5.2f}"
                print(f"  {name:20}{cpu_s:8.2f} CPU s {ratios}")


def growth(num_gb: float) -> None:
    """Count generated text of a fixed set of words: the resident memory must not follow the amount of text."""
    import random

    generator = random.Random(0)
    words = ["".join(generator.choices("abcdefghijklmnoprstuv", k=generator.randint(2, 12))) for _ in range(200_000)]
    counts = WordCounts(impl="cpp")
    block, done, report_at = [], 0, 0.0
    while done < num_gb * 1e9:
        # a skewed draw, as in language
        block = [words[int(len(words) * generator.random() ** 4)] for _ in range(200_000)]
        text = " ".join(block)
        for _ in range(25):  # other orders of the same words cost only time to generate
            counts.add_texts([text])
            done += len(text)
        if done >= report_at:
            with open("/proc/self/statm") as file:
                resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            print(f"{done / 1e9:6.2f} GB counted, {len(counts):8,} distinct words, {resident / 2**20:7.1f} MB resident")
            report_at += 0.25e9


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="vocabulary training against Hugging Face's, one core")
    parser.add_argument("mb", type=int, nargs="?", default=50, help="size of the text in MB (10^6 bytes)")
    parser.add_argument("--growth", type=float, metavar="GB", help="count that much generated text and watch memory")
    arguments = parser.parse_args()
    if arguments.growth:
        growth(arguments.growth)
    else:
        compare(arguments.mb)
