"""The token store: a corpus as token ids on disk, read through memory maps.

A directory of little-endian binary files and a manifest:

    tokens-00000.bin …   ids without special tokens, uint16 for a vocabulary of at most 65,536 pieces, else uint32; one
                         sequence of tokens over all files, in text order
    sentences.bin        (S + 1,) int64: the start of each sentence (line), and the end; no sentence is empty
    documents.bin        (Dn + 1,) int64: the start of each document, and the end; a subset of sentences.bin
    manifest.json        format, version, dtype, vocabulary size, tokenizer fingerprint, counts, and the size and CRC-32
                         of every file; written last, so a directory with a manifest is complete

Positions are global: they count tokens from the start of the first file.
"""

import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbert.data.store.mapped_file import MappedFile, crc32_of
from fastbert.data.types import Ints, TokenSource
from fastbert.system.errors import InputError
from fastbert.system.json_files import Fields, read_object

FORMAT = "fastbert token store"
VERSION = 1
MANIFEST = "manifest.json"
PROGRESS = "progress.json"
SENTENCES = "sentences.bin"
DOCUMENTS = "documents.bin"
_COMPARED = 1 << 17  # offsets at a time
MAX_COUNTED_TOKENS = 5_000_000  # of a corpus, to rank its pieces by frequency
_COUNTED_AT_ONCE = 1 << 17
_AGAIN = "delete the directory and create the store again with `python -m fastbert.tokenize`"


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest of uint16 and uint32 that holds every id."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def shard_name(number: int) -> str:
    return f"tokens-{number:05d}.bin"


@dataclass(frozen=True)
class StoredFile:
    """A file of the store: name, size in bytes, CRC-32 in hexadecimal."""

    name: str
    bytes: int
    crc32: str

    @classmethod
    def read(cls, fields: Fields) -> "StoredFile":
        name = fields.text("name")
        if not name or Path(name).name != name or not name.isprintable():
            raise fields.refuse("name", "a file name in the directory of the store")
        return cls(name, fields.integer("bytes", high=2**60), fields.text("crc32"))


@dataclass(frozen=True)
class Manifest:
    """The content of manifest.json; ``corpus`` is a digest of the names, sizes and times of the input."""

    vocab_size: int
    fingerprint: str
    corpus: str
    num_tokens: int
    num_sentences: int
    num_documents: int
    shards: tuple[StoredFile, ...]
    sentences: StoredFile
    documents: StoredFile
    num_unknown: int = 0  # tokens that are [UNK]; 0 in stores of older versions

    def to_json(self) -> str:
        content: dict[str, Any] = {"format": FORMAT, "version": VERSION, "dtype": token_dtype(self.vocab_size).name}
        content |= asdict(self)
        return json.dumps(content | {"crc32": _crc_of(content)}, indent=1) + "\n"

    @classmethod
    def read(cls, directory: Path) -> "Manifest":
        """Read it; raises InputError if it is missing, damaged, foreign or of another version."""
        path = directory / MANIFEST
        if not path.exists():
            raise InputError(_no_manifest(directory))
        content = read_object(path, _AGAIN)
        if content.get("format") != FORMAT:
            raise InputError(f"{path}: is not the manifest of a {FORMAT}. Try: the directory of a store")
        if content.get("version") != VERSION:
            raise InputError(
                f"{path}: has version {content.get('version')!r:.40}, but this fastbert reads {VERSION}. Try: update "
                "fastbert, or create the store again"
            )
        checksum = content.pop("crc32", None)
        if checksum != _crc_of(content):
            raise InputError(f"{path}: is damaged or was edited (wrong checksum). Try: {_AGAIN}")
        fields = Fields(content, str(path), _AGAIN)
        vocab_size = fields.integer("vocab_size", low=1)
        if fields.text("dtype") != token_dtype(vocab_size).name:
            raise fields.refuse("dtype", f"{token_dtype(vocab_size).name} for {vocab_size} pieces")
        counts = {name: fields.integer(name, high=2**60) for name in ("num_tokens", "num_sentences", "num_documents")}
        shards = [Fields(shard, f"{path}: shards[{i}]", _AGAIN) for i, shard in enumerate(fields.items("shards"))]
        return cls(
            vocab_size=vocab_size,
            fingerprint=fields.text("fingerprint"),
            corpus=fields.text("corpus"),
            **counts,
            shards=tuple(StoredFile.read(shard) for shard in shards),
            sentences=StoredFile.read(fields.inner("sentences")),
            documents=StoredFile.read(fields.inner("documents")),
            num_unknown=fields.integer("num_unknown", 0, high=2**60),
        )

    @property
    def files(self) -> tuple[StoredFile, ...]:
        return (*self.shards, self.sentences, self.documents)


def _crc_of(content: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"


def _no_manifest(directory: Path) -> str:
    if not directory.is_dir():
        return f"{directory}: no such directory. Try: create a token store with `python -m fastbert.tokenize`"
    if (directory / PROGRESS).exists() or (directory / (SENTENCES + ".tmp")).exists():
        return f"{directory}: is an unfinished token store. Try: repeat the command that was creating it, which resumes"
    return f"{directory}: is not a token store (no {MANIFEST}). Try: create one with `python -m fastbert.tokenize`"


class TokenStore:
    """A complete token store, created by :func:`fastbert.data.write_store` and opened by :meth:`open`.

    Attributes:
        directory: of the store.
        num_tokens, num_sentences, num_documents, num_unknown ([UNK]), vocab_size: counts.
        fingerprint: of its tokenizer.
        dtype: uint16 or uint32, little-endian.

    What reads tokens or offsets raises InputError if their file was changed since it was opened.
    """

    def __init__(self, directory: Path, manifest: Manifest):
        self.directory = directory
        self.manifest = manifest
        self.num_tokens = manifest.num_tokens
        self.num_sentences = manifest.num_sentences
        self.num_documents = manifest.num_documents
        self.num_unknown = manifest.num_unknown
        self.vocab_size = manifest.vocab_size
        self.fingerprint = manifest.fingerprint
        self.dtype = token_dtype(manifest.vocab_size)
        self._check_sizes()
        self._shards = [self._map(file, self.dtype) for file in manifest.shards]
        self._ends: Ints = np.cumsum([len(shard) for shard in self._shards], dtype=np.int64)
        self._sentences = self._map(manifest.sentences, np.dtype("<i8"))
        self._documents = self._map(manifest.documents, np.dtype("<i8"))
        for file, offsets in ((manifest.sentences, self.sentence_offsets), (manifest.documents, self.document_offsets)):
            if offsets[0] != 0 or offsets[-1] != self.num_tokens:
                raise InputError(f"{directory / file.name}: is damaged (wrong first or last number). Try: {_AGAIN}")

    @classmethod
    def open(cls, directory: str | Path, verify: bool = False) -> "TokenStore":
        """Map a store into memory.

        Args:
            directory: written by ``write_store`` or ``python -m fastbert.tokenize``.
            verify: read everything and compare checksums; by default only the file sizes are checked.

        Raises:
            InputError: no store, an unfinished one, or a missing, damaged, truncated or foreign file.
        """
        store = cls(Path(directory), Manifest.read(Path(directory)))
        if verify:
            store.verify()
        return store

    def __reduce__(self) -> tuple:
        return TokenStore.open, (self.directory,)

    def __repr__(self) -> str:
        return f"TokenStore({str(self.directory)!r}: {self.num_tokens:,} tokens, {self.num_documents:,} documents)"

    @property
    def sentence_offsets(self) -> Ints:
        """(num_sentences + 1,) int64 token positions."""
        return self._sentences.array

    @property
    def document_offsets(self) -> Ints:
        """(num_documents + 1,) int64 token positions; each is also a sentence offset."""
        return self._documents.array

    def gather(self, starts: ArrayLike, lengths: ArrayLike) -> NDArray[np.int32]:
        """Return the concatenated tokens of many runs.

        Args:
            starts: (n,) position of the first token of each run.
            lengths: (n,) tokens per run.

        Returns:
            (sum(lengths),) int32.

        Raises:
            ValueError: a run outside the store.
        """
        starts, lengths = np.asarray(starts, np.int64), np.asarray(lengths, np.int64)
        if starts.size and not (
            starts.min() >= 0 and lengths.min() >= 0 and (starts + lengths).max() <= self.num_tokens
        ):
            raise ValueError(f"gather: a run is outside the {self.num_tokens} tokens of the store")
        if len(self._shards) == 1:
            return self._shards[0].array[_ranges(starts, lengths)].astype(np.int32)
        positions = _ranges(starts, lengths)
        shard_of = np.searchsorted(self._ends, positions, side="right")
        tokens = np.empty(len(positions), np.int32)
        for number in np.unique(shard_of):
            here = np.flatnonzero(shard_of == number)
            shard = self._shards[number]
            tokens[here] = shard.array[positions[here] - (self._ends[number] - len(shard))]
        return tokens

    def verify(self) -> None:
        """Read everything and compare checksums and offsets.

        Raises:
            InputError: names the damaged file.
        """
        for file in self.manifest.files:
            path = self.directory / file.name
            if (found := crc32_of(path)) != file.crc32:
                raise InputError(f"{path}: is damaged (CRC-32 {found}, expected {file.crc32}). Try: {_AGAIN}")
        # written wrongly, since the CRCs match
        for offsets in (self.sentence_offsets, self.document_offsets):
            for start in range(0, len(offsets), _COMPARED):  # in chunks: the offsets of a large corpus are gigabytes
                if (np.diff(offsets[start : start + _COMPARED + 1]) <= 0).any():
                    raise InputError(f"{self.directory}: offsets do not increase. Try: {_AGAIN}")

    def _check_sizes(self) -> None:
        manifest = self.manifest
        expected = [
            sum(file.bytes for file in manifest.shards) == manifest.num_tokens * self.dtype.itemsize,
            manifest.sentences.bytes == 8 * (manifest.num_sentences + 1),
            manifest.documents.bytes == 8 * (manifest.num_documents + 1),
        ]
        if not all(expected):
            raise InputError(f"{self.directory / MANIFEST}: counts and sizes contradict each other. Try: {_AGAIN}")
        for file in manifest.files:
            path = self.directory / file.name
            try:
                size = path.stat().st_size
            except OSError as error:
                raise InputError(
                    f"{path}: cannot be read ({error.strerror}), but the manifest lists it. Try: {_AGAIN}"
                ) from None
            if size != file.bytes:
                raise InputError(f"{path}: has {size} bytes, but the manifest lists {file.bytes}. Try: {_AGAIN}")

    def _map(self, file: StoredFile, dtype: np.dtype) -> MappedFile:
        return MappedFile(self.directory / file.name, dtype, file.crc32, _AGAIN)


def _ranges(starts: Ints, lengths: Ints) -> Ints:
    """Return starts[k] … starts[k] + lengths[k] - 1 for every k, (sum(lengths),)."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total, dtype=np.int64) + np.repeat(starts - (ends - lengths), lengths)


def token_counts(store: TokenSource, vocab_size: int) -> Ints:
    """Return (V,) occurrences of each piece in the first :data:`MAX_COUNTED_TOKENS` tokens."""
    counts = np.zeros(vocab_size, np.int64)
    counted = min(store.num_tokens, MAX_COUNTED_TOKENS)
    for start in range(0, counted, _COUNTED_AT_ONCE):
        tokens = store.gather(np.array([start]), np.array([min(_COUNTED_AT_ONCE, counted - start)]))
        counts += np.bincount(tokens, minlength=vocab_size)[:vocab_size]
    return counts
