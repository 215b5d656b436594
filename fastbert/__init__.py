"""Pretrain a BERT on your own text, fast, and use it.

Names are imported when first used (PEP 562), so that ``import fastbert`` costs nothing beyond itself.
"""

import importlib
from typing import TYPE_CHECKING, Any

from fastbert.system.process import __version__ as __version__

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

if TYPE_CHECKING:
    from fastbert.batch import PackedBatch as PackedBatch
    from fastbert.bert import load as load
    from fastbert.config import BertConfig as BertConfig
    from fastbert.drop_in.accelerate import accelerate as accelerate
    from fastbert.model import BertForPreTraining as BertForPreTraining
    from fastbert.system.errors import InputError as InputError
    from fastbert.text import Tokenizer as Tokenizer


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"fastbert.{name}")
    raise AttributeError(f"module 'fastbert' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
