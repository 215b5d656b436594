"""Pretrain a BERT on your own text, fast, and use it.

Names are imported when first used (PEP 562), so that ``import fastbert`` costs nothing beyond itself.
"""

import importlib
import time

__version__ = "0.1.0"

# --minutes counts from here: the first moment of the package in a process
IMPORTED_AT_S = time.monotonic()

_HOMES = {
    "BertConfig": "fastbert.config",
    "BertForPreTraining": "fastbert.model",
    "InputError": "fastbert.system.errors",
    "PackedBatch": "fastbert.batch",
    "Tokenizer": "fastbert.text",
    "accelerate": "fastbert.drop_in.accelerate",
    "load": "fastbert.bert",
}
_MODULES = ("layers", "metrics", "ops", "reference")
__all__ = [*_HOMES, *_MODULES, "__version__"]

# as type checkers know it; importing `typing` would take longer than the rest of this file
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fastbert.batch import PackedBatch as PackedBatch
    from fastbert.bert import load as load
    from fastbert.config import BertConfig as BertConfig
    from fastbert.drop_in.accelerate import accelerate as accelerate
    from fastbert.model import BertForPreTraining as BertForPreTraining
    from fastbert.system.errors import InputError as InputError
    from fastbert.text import Tokenizer as Tokenizer


def __getattr__(name: str) -> "Any":
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"fastbert.{name}")
    raise AttributeError(f"module 'fastbert' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
