"""Writing a token store (:mod:`.token_store`): sharded, resumable, never incomplete under its final name.

Unfinished files are named ``….tmp``. ``progress.json`` records the position in the text after every full shard; an
interrupted run resumes there if repeated with the same text, tokenizer and options, otherwise it starts over. The bytes
of a store do not depend on the number of threads or on interruptions.
"""

import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fastbert.data.corpus.documents import Corpus
from fastbert.data.store.text_batches import BatchTokenizer, batches
from fastbert.data.store.token_store import (
    DOCUMENTS,
    MANIFEST,
    PROGRESS,
    SENTENCES,
    Manifest,
    StoredFile,
    TokenStore,
    shard_name,
    token_dtype,
)
from fastbert.system.atomic_write import flush_to_disk, write_durably
from fastbert.system.errors import InputError

SHARD_TOKENS = 1 << 27  # 256 MiB of uint16
_OURS = re.compile(rf"(tokens-\d{{5,}}\.bin|{SENTENCES}|{DOCUMENTS}|{PROGRESS}|{MANIFEST})(\.tmp)?")


class CannotWriteError(InputError):
    """The disk is full, or the directory is not writable."""


@dataclass
class Progress:
    """The state of a store under construction, saved after every shard."""

    task: list  # vocabulary size, fingerprint, corpus, shard size
    consumed: int = 0  # batches of the corpus
    num_tokens: int = 0
    num_sentences: int = 0
    num_documents: int = 0  # closed ones
    last_document_end: int = 0
    sentences_crc32: int = 0
    documents_crc32: int = 0
    num_unknown: int = 0
    shards: list[StoredFile] = field(default_factory=list)


class ShardWriter:
    """Appends encoded batches to a store under construction.

    Args:
        directory: created if missing; other files in it are not touched.
        tokenizer_fingerprint, vocab_size: of the tokenizer.
        shard_tokens: maximum tokens per file (a single batch is never divided).
        corpus: a digest of the input.
        unk_id: of [UNK], to count it; negative: there is none.

    Raises:
        InputError: the directory cannot be written.
    """

    def __init__(
        self,
        directory: str | Path,
        tokenizer_fingerprint: str,
        vocab_size: int,
        shard_tokens: int = SHARD_TOKENS,
        corpus: str = "",
        unk_id: int = -1,
    ):
        self.directory = Path(directory)
        self.vocab_size = vocab_size
        self.fingerprint = tokenizer_fingerprint
        self.name = "the text"  # of its files, in errors
        self.shard_tokens = shard_tokens
        self.corpus, self.unk_id = corpus, unk_id
        self.dtype = token_dtype(vocab_size)
        self._made_directory = not self.directory.exists()
        self._shard_size = 0  # tokens in the open shard
        self._shard_crc32 = 0
        with writing(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            task = [vocab_size, tokenizer_fingerprint, corpus, shard_tokens]
            resumed = self._resumable(task)
            try:
                self.progress = resumed or self._fresh(task)
                self._sentences = self._reopen(SENTENCES, self.progress.num_sentences)
                self._documents = self._reopen(DOCUMENTS, self.progress.num_documents)
                self._shard = open(self._temporary(shard_name(len(self.progress.shards))), "wb")  # noqa: SIM115
            except OSError:
                if resumed is None:
                    self._remove()
                raise

    @property
    def consumed(self) -> int:
        """Batches of the corpus that are stored."""
        return self.progress.consumed

    def add(self, input_ids: NDArray[np.integer], offsets: NDArray[np.int64], firsts: NDArray[np.int64]) -> None:
        """Append a batch of sentences.

        Args:
            input_ids: (T,) ids without special tokens.
            offsets: (B + 1,) start of each sentence in ``input_ids``, and the end. Empty sentences are dropped.
            firsts: (n,) sentences that begin a document or follow the end of one, in order.
        """
        if len(input_ids) and not 0 <= int(input_ids.min()) <= int(input_ids.max()) < self.vocab_size:
            raise ValueError(f"input_ids: expected ids from 0 to {self.vocab_size - 1}")
        with writing(self.directory):
            if self._shard_size and self._shard_size + len(input_ids) > self.shard_tokens:
                self._finish_shard()
            base = self.progress.num_tokens
            self._close_documents(base + offsets[firsts])
            ends = offsets[1:][np.diff(offsets) > 0] + base
            self._append_sentences(ends)
            data = np.ascontiguousarray(input_ids, self.dtype)
            self._shard.write(data.data)
            self._shard_crc32 = zlib.crc32(data.data, self._shard_crc32)
            self._shard_size += len(data)
            self.progress.num_tokens += len(data)
            if self.unk_id >= 0:
                self.progress.num_unknown += int(np.count_nonzero(data == self.unk_id))
            self.progress.consumed += 1

    def finish(self) -> TokenStore:
        """Close the files, write the manifest and open the store.

        Raises:
            InputError: there are no tokens (the directory is then cleaned up), or the disk is full.
        """
        if not self.progress.num_tokens:
            self.discard()
            raise InputError(f"{self.name}: gives no tokens. Try: text that the vocabulary can spell")
        with writing(self.directory):
            self._close_documents(np.array([self.progress.num_tokens]))
            self._finish_shard(last=True)
            for file, name in ((self._sentences, SENTENCES), (self._documents, DOCUMENTS)):
                flush_to_disk(file)
                file.close()
                os.replace(self._temporary(name), self.directory / name)
            done = self.progress
            manifest = Manifest(
                vocab_size=self.vocab_size,
                fingerprint=self.fingerprint,
                corpus=self.corpus,
                num_tokens=done.num_tokens,
                num_sentences=done.num_sentences,
                num_documents=done.num_documents,
                shards=tuple(done.shards),
                sentences=StoredFile(SENTENCES, 8 * (done.num_sentences + 1), f"{done.sentences_crc32:08x}"),
                documents=StoredFile(DOCUMENTS, 8 * (done.num_documents + 1), f"{done.documents_crc32:08x}"),
                num_unknown=done.num_unknown,
            )
            write_durably(self.directory / MANIFEST, manifest.to_json())
            (self.directory / PROGRESS).unlink(missing_ok=True)
        return TokenStore(self.directory, manifest)

    def close(self) -> None:
        """Close the files and keep them for a later run."""
        for file in (self._shard, self._sentences, self._documents):
            file.close()

    def discard(self) -> None:
        """Delete everything that was written."""
        self.close()
        self._remove()

    def _remove(self) -> None:
        with suppress(OSError):
            remove_files(self.directory)
            if self._made_directory:
                self.directory.rmdir()

    def _append_sentences(self, ends: NDArray[np.int64]) -> None:
        data = ends.astype("<i8").data
        self._sentences.write(data)
        self.progress.sentences_crc32 = zlib.crc32(data, self.progress.sentences_crc32)
        self.progress.num_sentences += len(ends)

    def _close_documents(self, positions: NDArray[np.int64]) -> None:
        """End a document at each of the positions, unless it has no tokens."""
        before = np.concatenate([[self.progress.last_document_end], positions[:-1]])
        ends = positions[positions > before].astype("<i8")
        if len(ends):
            self._documents.write(ends.data)
            self.progress.documents_crc32 = zlib.crc32(ends.data, self.progress.documents_crc32)
            self.progress.num_documents += len(ends)
            self.progress.last_document_end = int(ends[-1])

    def _finish_shard(self, last: bool = False) -> None:
        name = shard_name(len(self.progress.shards))
        flush_to_disk(self._shard)
        self._shard.close()
        if not self._shard_size:  # a resumed run without further text
            self._temporary(name).unlink()
            return
        os.replace(self._temporary(name), self.directory / name)
        self.progress.shards.append(
            StoredFile(name, self._shard_size * self.dtype.itemsize, f"{self._shard_crc32:08x}")
        )
        self._shard_size = self._shard_crc32 = 0
        if not last:
            flush_to_disk(self._sentences)
            flush_to_disk(self._documents)
            write_durably(self.directory / PROGRESS, json.dumps(asdict(self.progress)))
            self._shard = open(self._temporary(shard_name(len(self.progress.shards))), "wb")  # noqa: SIM115

    def _temporary(self, name: str) -> Path:
        return self.directory / (name + ".tmp")

    def _resumable(self, task: list) -> Progress | None:
        """The progress of an interrupted run of the same task, if all its files are there."""
        try:
            saved = json.loads((self.directory / PROGRESS).read_text())
            progress = Progress(**{**saved, "shards": [StoredFile(**shard) for shard in saved["shards"]]})
            enough = [(self.directory / shard.name).stat().st_size == shard.bytes for shard in progress.shards]
            for name, count in ((SENTENCES, progress.num_sentences), (DOCUMENTS, progress.num_documents)):
                enough.append(self._temporary(name).stat().st_size >= 8 * (count + 1))
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return progress if progress.task == task and all(enough) else None

    def _fresh(self, task: list) -> Progress:
        remove_files(self.directory)
        zero = bytes(8)  # both offset files begin with 0
        for name in (SENTENCES, DOCUMENTS):
            self._temporary(name).write_bytes(zero)
        return Progress(task, sentences_crc32=zlib.crc32(zero), documents_crc32=zlib.crc32(zero))

    def _reopen(self, name: str, count: int) -> IO[bytes]:
        """Open an offset file after the first ``count + 1`` offsets and truncate those of a lost shard."""
        file = open(self._temporary(name), "r+b")  # noqa: SIM115
        file.truncate(8 * (count + 1))
        file.seek(0, os.SEEK_END)
        return file


def write_store(
    directory: str | Path,
    corpus: Corpus,
    tokenizer: BatchTokenizer,
    *,
    threads: int | None = None,
    progress: Callable[[int, int], Any] | None = None,
    shard: tuple[int, int] = (0, 1),
    shard_tokens: int = SHARD_TOKENS,
) -> TokenStore:
    """Tokenize a corpus into a store, or resume an interrupted run.

    A complete store of the same text, tokenizer and options is opened as is.

    Args:
        directory: of the store.
        corpus: the text.
        tokenizer: a :class:`fastbert.Tokenizer`.
        threads: of the tokenizer; None means all CPUs of the process.
        progress: called with the number of tokens and documents so far, a few times per second.
        shard: (i, n) stores the i-th of n shards of the corpus, i from 0 (:meth:`Corpus.documents`).
        shard_tokens: maximum tokens per file.

    Raises:
        InputError: bad text, a directory that is not writable or contains another store.
    """
    directory = Path(directory)
    digest = corpus_digest(corpus, shard)
    if (directory / MANIFEST).exists():
        store = TokenStore.open(directory)
        if (store.fingerprint, store.manifest.corpus) == (tokenizer.fingerprint(), digest):
            return store
        raise InputError(
            f"{directory}: contains a store of another text or tokenizer. Try: another directory, or delete it"
        )
    unk_id = getattr(tokenizer, "unk_id", -1)
    encoder = getattr(tokenizer, "of_corpora", tokenizer)
    writer = ShardWriter(directory, tokenizer.fingerprint(), len(tokenizer), shard_tokens, digest, unk_id)
    writer.name = corpus.name
    try:
        for batch in islice(batches(corpus, shard), writer.consumed, None):
            writer.add(*batch.encode(encoder, threads))
            if progress is not None:
                progress(writer.progress.num_tokens, writer.progress.num_documents)
        if not writer.consumed:
            raise InputError(
                f"{corpus.sources[0].name}: no document for part {shard[0] + 1}/{shard[1]}. Try: fewer parts"
            )
        return writer.finish()
    except InputError as error:
        # bad text fails again, a full disk may not
        if not isinstance(error, CannotWriteError) or not writer.progress.shards:
            writer.discard()
        raise
    finally:
        writer.close()


def corpus_digest(corpus: Corpus, shard: tuple[int, int]) -> str:
    """A digest of the input of a store."""
    facts = json.dumps([corpus.identity(), corpus.rules.text_field, list(shard), *corpus.rules.changes])
    return hashlib.sha256(facts.encode("utf-8", "surrogateescape")).hexdigest()[:32]


@contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Turn operating-system errors into one line for the user."""
    try:
        yield
    except OSError as error:
        path = error.filename or directory
        raise CannotWriteError(
            f"{path}: cannot be written ({error.strerror}). Try: free some space, or a directory that you may write to"
        ) from None


def remove_files(directory: Path) -> None:
    """Delete the files of a store, and nothing else."""
    for path in list(directory.iterdir()) if directory.is_dir() else ():
        if _OURS.fullmatch(path.name):
            path.unlink()
