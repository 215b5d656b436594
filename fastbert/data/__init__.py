"""From files to packed, masked batches.

Names are imported when first used (PEP 562): reading text and making tokens needs no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "BatchLoader": "fastbert.data.batches.loader",
    "Corpus": "fastbert.data.corpus.documents",
    "Document": "fastbert.data.corpus.documents",
    "Split": "fastbert.data.batches.split",
    "TokenStore": "fastbert.data.store.token_store",
    "merge_stores": "fastbert.data.store.merge",
    "split_documents": "fastbert.data.batches.split",
    "write_store": "fastbert.data.store.writer",
}
__all__ = [*_HOMES]

if TYPE_CHECKING:
    from fastbert.data.batches.loader import BatchLoader as BatchLoader
    from fastbert.data.batches.split import Split as Split
    from fastbert.data.batches.split import split_documents as split_documents
    from fastbert.data.corpus.documents import Corpus as Corpus
    from fastbert.data.corpus.documents import Document as Document
    from fastbert.data.store.merge import merge_stores as merge_stores
    from fastbert.data.store.token_store import TokenStore as TokenStore
    from fastbert.data.store.writer import write_store as write_store


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'fastbert.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
