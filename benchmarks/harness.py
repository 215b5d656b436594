"""What the benchmarks share: what they need, their text, and rates in pytest-benchmark's tables.

Test files find it through conftest.py; a program in a folder below puts this folder on sys.path.
"""

import lzma
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastbert import native
from fastbert.text import Tokenizer, TokenizerOptions
from fastbert.text.tokenizer_files import read_vocab

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("FASTBERT_SHARED", ROOT.parent / "shared")) / "data"
VOCABULARIES = {"en": "bert-base-uncased", "pt": "bert-base-portuguese-cased"}


def need_core() -> None:
    """Skip where the C++ core is not built."""
    built, why = native.status()
    if not built:
        pytest.skip(f"no C++ core ({why}): install a C++17 compiler and run `pip install -e .` again")


def need_peer(module: str, package: str) -> Any:
    """The module, or a skip that says what to install."""
    return pytest.importorskip(module, reason=f"{module} is not installed: pip install {package}")


def bundled(language: str) -> str:
    return lzma.decompress((ROOT / "fastbert" / "data" / "bundled" / f"{language}.txt.xz").read_bytes()).decode()


def texts(language: str) -> Iterator[str]:
    """FASTBERT_SHARED/data/text (or ../shared beside the checkout), file by file, else the bundled corpus."""
    files = sorted((SHARED / "text" / language).glob("*.txt"))
    yield from (path.read_text(encoding="utf-8") for path in files) if files else [bundled(language)]


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

    def tokenizer(self, impl: str = "cpp") -> Tokenizer:
        """A new one: its caches are empty."""
        if impl == "cpp":
            need_core()
        return Tokenizer(self.vocab, TokenizerOptions(lowercase=self.lowercase), impl=impl)


@cache
def corpus(language: str, megabytes: float) -> Corpus:
    """The first lines of the text; the vocabulary beside it, else one trained on them."""
    lines: list[str] = []
    size = 0
    for text in texts(language):
        new = [line for line in text.split("\n") if line.strip()]
        lines += new
        size += sum(len(line.encode()) for line in new)
        if size > megabytes * 1e6:
            break
    path = SHARED / "vocab" / f"{VOCABULARIES[language]}.txt"
    vocab = read_vocab(path) if path.is_file() else Tokenizer.train(lines, 30_000, lowercase=language == "en").vocab
    return Corpus(language, lines, vocab).head(megabytes)


def note_rate(benchmark, name: str, amount: float) -> None:
    """``amount`` a second, by the median; nothing where only the checks run (--benchmark-disable)."""
    if benchmark.stats is not None:
        benchmark.extra_info[name] = amount / benchmark.stats.stats.median
