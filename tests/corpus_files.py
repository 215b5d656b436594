"""What the tests of reading text share: compressed files, documents as lists of lines, the line about a bad input."""

import bz2
import gzip
import lzma

import pytest

from fastbert.data import Corpus
from fastbert.system.errors import InputError


def zstd(data):
    return pytest.importorskip("zstandard", reason="writes the .zst file of this test").compress(data)


COMPRESS = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress, ".zst": zstd, ".zstd": zstd}


def read(*sources, **rules):
    """The documents' lines, the parts of a document joined."""
    documents = []
    for document in Corpus([str(s) for s in sources], **rules).documents():
        if document.continues:
            documents[-1] += document.lines
        else:
            documents.append(list(document.lines))
    return documents


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def fault(*sources, text_field=None):
    """The one line about a bad input, the same from both ways of reading."""
    lines = []
    for way in ("documents", "text_chunks"):
        with pytest.raises(InputError) as caught:
            for _ in getattr(Corpus([str(s) for s in sources], text_field), way)():
                pass
        lines.append(str(caught.value))
    assert lines[0] == lines[1] and "\n" not in lines[0]
    return lines[0]


def words_of(*sources, **options):
    return [w for document in read(*sources, **options) for line in document for w in line.split()]
