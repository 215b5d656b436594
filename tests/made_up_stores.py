"""Small token stores for tests: a tokenizer of checksums, corpora of numbered words, batches of a few lines."""

import itertools
import zlib

import numpy as np

from fastbert.data import Corpus


class Words:
    """A tokenizer of the same interface: a word's id is a checksum of it; "zero" words give no token."""

    class Encoded:
        def __init__(self, texts, vocab_size):
            ids = [[zlib.crc32(w.encode()) % vocab_size for w in text.split() if w != "zero"] for text in texts]
            self.input_ids = np.array(list(itertools.chain.from_iterable(ids)), np.int32)
            self.offsets = np.concatenate([[0], np.cumsum([len(i) for i in ids])]).astype(np.int64)

    def __init__(self, vocab_size=1000, stop_after=None):
        self.vocab_size = vocab_size
        self.stop_after = stop_after
        self.calls = 0

    def __len__(self):
        return self.vocab_size

    def fingerprint(self):
        return f"words-{self.vocab_size}"

    def encode_batch(self, texts, *, add_special_tokens, split_special_tokens, threads, dtype):
        assert not add_special_tokens and split_special_tokens
        assert dtype == ("uint16" if self.vocab_size <= 65_536 else "int32")
        self.calls += 1
        if self.stop_after is not None and self.calls > self.stop_after:
            raise KeyboardInterrupt
        return self.Encoded(texts, self.vocab_size)

    def encode_file(self, data, **options):
        assert data.endswith(b"\n")
        return self.encode_batch(data.decode().split("\n")[:-1], **options)


def ids(text, vocab_size=1000):
    return Words.Encoded([text], vocab_size).input_ids.tolist()


def a_corpus(tmp_path, text, name="a.txt"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return Corpus([str(path)])


def numbers(count, blank=7):
    """``count`` lines of one to five words, a document every ``blank`` lines."""
    lines = [" ".join(f"w{i}.{j}" for j in range(1 + i % 5)) for i in range(count)]
    return "\n".join(line if i % blank else f"\n{line}" for i, line in enumerate(lines))


def contents(directory):
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def documents_of(store):
    return [store.gather([a], [b - a]).tolist() for a, b in itertools.pairwise(store.document_offsets.tolist())]
