"""From files to packed, masked batches.

Names are imported when first used (PEP 562): reading text and making tokens needs no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "BatchLoader": "fastbert.data.loader",
    "Corpus": "fastbert.data.documents",
    "Document": "fastbert.data.documents",
    "Split": "fastbert.data.split",
    "TokenStore": "fastbert.data.store",
    "merge_stores": "fastbert.data.merge",
    "read_documents": "fastbert.data.documents",
    "split_documents": "fastbert.data.split",
    "write_store": "fastbert.data.writer",
}
__all__ = [*_HOMES]

if TYPE_CHECKING:
    from fastbert.data.documents import Corpus as Corpus
    from fastbert.data.documents import Document as Document
    from fastbert.data.documents import read_documents as read_documents
    from fastbert.data.loader import BatchLoader as BatchLoader
    from fastbert.data.merge import merge_stores as merge_stores
    from fastbert.data.split import Split as Split
    from fastbert.data.split import split_documents as split_documents
    from fastbert.data.store import TokenStore as TokenStore
    from fastbert.data.writer import write_store as write_store


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'fastbert.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
