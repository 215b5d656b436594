"""The prose that several benchmarks read, and the vocabularies for it."""

import lzma
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from harness import need_core

from fastbert.text import Tokenizer, TokenizerOptions
from fastbert.text.tokenizer_files import read_vocab

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("FASTBERT_SHARED", ROOT.parent / "shared")) / "data"
VOCABULARIES = {"en": "bert-base-uncased", "pt": "bert-base-portuguese-cased"}


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
