"""Merging of token stores, such as the parts written by ``python -m fastbert.tokenize --shard i/n``."""

import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastbert.data.store.token_store import DOCUMENTS, MANIFEST, SENTENCES, Manifest, StoredFile, TokenStore, shard_name
from fastbert.data.store.writer import writing
from fastbert.system.atomic_write import flush_to_disk, write_durably, written_whole
from fastbert.system.errors import InputError

_CHUNK = 1 << 20
# written next to the tokens by `python -m fastbert.tokenize`
_TOKENIZER_FILES = ("vocab.txt", "tokenizer.json", "tokenizer_config.json")


def merge_stores(directories: Sequence[str | Path], output: str | Path) -> TokenStore:
    """Merge stores in the given order.

    Token files are hard-linked if the file system supports it, otherwise copied; the input stores are not changed.

    Args:
        directories: complete stores made with the same tokenizer.
        output: a new directory.

    Raises:
        InputError: a bad store, stores of different tokenizers, an output that holds a store or cannot be written.
    """
    output = Path(output)
    if not directories:
        raise InputError("merge: no store given. Try: at least one directory")
    stores = [TokenStore.open(directory) for directory in directories]
    first = stores[0]
    for store in stores:
        if (store.fingerprint, store.vocab_size) != (first.fingerprint, first.vocab_size):
            raise InputError(
                f"{store.directory}: made with another tokenizer than {first.directory}. Try: make both with the same"
            )
    if (output / MANIFEST).exists():
        raise InputError(f"{output}: already contains a store. Try: another directory, or delete it")
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        shards: list[StoredFile] = []
        for store in stores:
            for file in store.manifest.shards:
                name = shard_name(len(shards))
                _link(store.directory / file.name, output / name)
                shards.append(StoredFile(name, file.bytes, file.crc32))
        manifest = Manifest(
            vocab_size=first.vocab_size,
            fingerprint=first.fingerprint,
            corpus=f"{zlib.crc32(' '.join(store.manifest.corpus for store in stores).encode()):08x}",
            num_tokens=sum(store.num_tokens for store in stores),
            num_sentences=sum(store.num_sentences for store in stores),
            num_documents=sum(store.num_documents for store in stores),
            shards=tuple(shards),
            sentences=_write_offsets(output / SENTENCES, [store.sentence_offsets for store in stores]),
            documents=_write_offsets(output / DOCUMENTS, [store.document_offsets for store in stores]),
            num_unknown=sum(store.num_unknown for store in stores),
        )
        for name in _TOKENIZER_FILES:
            if (first.directory / name).is_file():
                shutil.copyfile(first.directory / name, output / name)
        write_durably(output / MANIFEST, manifest.to_json())
    return TokenStore(output, manifest)


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    with suppress(OSError):
        os.link(source, target)
        return
    with written_whole(target) as temporary:
        shutil.copyfile(source, temporary)


def _shifted(offsets: Sequence[NDArray[np.int64]]) -> Iterator[NDArray[np.int64]]:
    """The concatenated offsets of the stores, in chunks."""
    base = 0
    yield np.zeros(1, "<i8")
    for one in offsets:
        for start in range(1, len(one), _CHUNK):
            yield (one[start : start + _CHUNK] + base).astype("<i8")
        base += int(one[-1])


def _write_offsets(path: Path, offsets: Sequence[NDArray[np.int64]]) -> StoredFile:
    size = checksum = 0
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        for chunk in _shifted(offsets):
            file.write(chunk.data)
            size += chunk.nbytes
            checksum = zlib.crc32(chunk.data, checksum)
        flush_to_disk(file)
    return StoredFile(path.name, size, f"{checksum:08x}")
