"""Several stores as one: what the parts of ``python -m fastbert.tokenize --shard i/n`` become in the end."""

import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastbert.data.store.token_store import DOCUMENTS, MANIFEST, SENTENCES, Manifest, StoredFile, TokenStore, shard_name
from fastbert.data.store.writer import write_file, writing
from fastbert.system.atomic_write import written_whole
from fastbert.system.errors import InputError

_CHUNK = 1 << 20
# `python -m fastbert.tokenize` puts them beside the tokens
_TOKENIZER_FILES = ("vocab.txt", "tokenizer.json", "tokenizer_config.json")


def merge_stores(directories: Sequence[str | Path], output: str | Path) -> TokenStore:
    """Make one store of several, in the order given.

    The files of tokens are hard-linked where the file system can do that, else copied; the stores stay as they are.

    Args:
        directories: of complete stores made with one tokenizer.
        output: a new directory.

    Raises:
        InputError: a bad store, stores of different tokenizers, an output that holds a store or cannot be written.
    """
    output = Path(output)
    if not directories:
        raise InputError("merge: no store: name at least one")
    stores = [TokenStore.open(directory) for directory in directories]
    first = stores[0]
    for store in stores:
        if (store.fingerprint, store.vocab_size) != (first.fingerprint, first.vocab_size):
            raise InputError(
                f"{store.directory}: was made with another tokenizer than {first.directory}: make both with the same"
            )
    if (output / MANIFEST).exists():
        raise InputError(f"{output}: holds a store already: give another directory or delete it")
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
        )
        for name in _TOKENIZER_FILES:
            if (first.directory / name).is_file():
                shutil.copyfile(first.directory / name, output / name)
        write_file(output / MANIFEST, manifest.to_json())
    return TokenStore(output, manifest)


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    with suppress(OSError):
        os.link(source, target)
        return
    with written_whole(target) as temporary:
        shutil.copyfile(source, temporary)


def _shifted(offsets: Sequence[NDArray[np.int64]]) -> Iterator[NDArray[np.int64]]:
    """The offsets of the stores behind one another, a piece at a time."""
    base = 0
    yield np.zeros(1, "<i8")
    for one in offsets:
        for start in range(1, len(one), _CHUNK):
            yield (one[start : start + _CHUNK] + base).astype("<i8")
        base += int(one[-1])


def _write_offsets(path: Path, offsets: Sequence[NDArray[np.int64]]) -> StoredFile:
    size = checksum = 0
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        for piece in _shifted(offsets):
            file.write(piece.data)
            size += piece.nbytes
            checksum = zlib.crc32(piece.data, checksum)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    return StoredFile(path.name, size, f"{checksum:08x}")
