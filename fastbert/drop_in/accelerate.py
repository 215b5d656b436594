"""``fastbert.accelerate(model)``: a model somebody else wrote, with this package's ops in its hot modules.

A module keeps its place, its parameters, its hooks and its name; only its class changes, to a subclass that overrides
``forward`` (huggingface.py, torch_encoder.py). So ``state_dict``, ``save_pretrained``, optimizers, LoRA,
``torch.compile`` and gradient checkpointing go on as before.
"""

import collections
import dataclasses
import functools
from typing import Any

from torch import nn

from fastbert.drop_in import huggingface, torch_encoder
from fastbert.drop_in.huggingface import BaseModel, DropIn
from fastbert.drop_in.rules import Settings
from fastbert.system.errors import InputError

_CLASSES = huggingface.CLASSES | torch_encoder.CLASSES
_LEFT = huggingface.LEFT | torch_encoder.LEFT
SUPPORTED = (
    "BERT, RoBERTa, XLM-RoBERTa, CamemBERT, DistilBERT and ModernBERT of transformers, and nn.TransformerEncoder"
)


@dataclasses.dataclass
class Acceleration:
    """What :func:`accelerate` did. ``print(report)`` shows it in a few lines."""

    model: nn.Module = dataclasses.field(repr=False)
    changed: dict[str, str] = dataclasses.field(default_factory=dict)
    """module name → the ops it now calls"""
    left: dict[str, str] = dataclasses.field(default_factory=dict)
    """module name → why it, or the part of it that is named, is as it was"""

    def undo(self) -> nn.Module:
        """Give every module of the model its own class back; returns the model."""
        for module in self.model.modules():
            _restore(module)
        return self.model

    def __str__(self) -> str:
        lines = [f"changed {len(self.changed)} modules"]
        lines += [f"  {count} x {what}" for what, count in collections.Counter(self.changed.values()).items()]
        reasons: dict[str, list[str]] = collections.defaultdict(list)
        for name, why in self.left.items():
            reasons[why].append(name)
        lines += [f"left {len(self.left)}"] if self.left else []
        lines += [
            f"  {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {why}"
            for why, names in reasons.items()
        ]
        return "\n".join(lines)


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


_made: dict[type, Any] = {}


def _accelerated(stock: Any, drop_in: Any) -> Any:
    """The subclass of both, under the stock class's name: transformers and sharding policies go by names."""
    if stock in _made:
        return _made[stock]
    namespace: dict[str, Any] = {
        "__module__": stock.__module__,
        "__qualname__": stock.__qualname__,
        "__doc__": stock.__doc__,
        "__reduce_ex__": _reduce,
        "_fastbert_stock": stock,
    }
    if issubclass(drop_in, BaseModel):  # people and the Trainer read its signature

        @functools.wraps(stock.forward)
        def forward(self, *args, **kwargs):
            return drop_in.forward(self, *args, **kwargs)

        namespace["forward"] = forward
    return _made.setdefault(stock, type(stock.__name__, (drop_in, stock), namespace))


def _reduce(module: Any, protocol: Any) -> Any:
    """Copies and pickles name the stock class: it is the one that can be looked up by its name."""
    reduced: Any = nn.Module.__reduce_ex__(module, protocol)
    return _rebuild, (module._fastbert_stock,), *reduced[2:]


def _rebuild(stock: type[nn.Module]) -> nn.Module:
    accelerated = _accelerated(stock, _CLASSES[_full_name(stock)])
    return accelerated.__new__(accelerated)


def _restore(module: nn.Module) -> None:
    if stock := getattr(type(module), "_fastbert_stock", None):
        module.__class__ = stock
        del module._fastbert


def _reason_to_leave(module: nn.Module) -> str | None:
    """Why a module that looks like one of ours is left; None: it is of no concern, or it is taken."""
    kind = type(module)
    name = _full_name(kind)
    if name in _LEFT:
        return _LEFT[name]
    if name in _CLASSES:
        return _CLASSES[name].unsupported_reason(module)
    for parent in kind.__mro__[1:]:
        if _full_name(parent) in _CLASSES:
            return f"{kind.__name__} is a subclass of {parent.__name__}, and may compute something else"
    return None


def accelerate(model: nn.Module, *, impl: str = "auto", drop_padding: bool = False) -> Acceleration:
    """Put this package's ops into the hot modules of a model, in place.

    Takes BERT, RoBERTa, XLM-RoBERTa, CamemBERT, DistilBERT and ModernBERT of ``transformers`` and
    ``nn.TransformerEncoder``, alone or anywhere inside another model. Outputs, gradients, parameters and
    ``state_dict`` stay what they were, up to rounding; dropout draws from another random stream. A call that asks for
    what the ops do not do (attention weights, a cache, a mask of more than padding, nested tensors) runs the stock
    code, and so does everything for which ``impl="auto"`` would choose the reference. Sequences that are padding
    throughout give zeros.

    Args:
        model: changed in place; hooks, wrappers and parameters stay.
        impl: "auto" (:func:`fastbert.ops.choose`), or "triton", "cpp" or "reference", which then run or raise.
        drop_padding: compute real tokens only where at least one token in twenty is padding. Outputs at padding are
            then zeros, where the stock model gives numbers that mean nothing; outputs and gradients of real tokens
            are the same. Not under ``torch.compile``, whose shapes it would change with every batch.

    Returns:
        :class:`Acceleration`: what was changed and what was left, by module name and with the reason; its ``undo()``
        gives the stock classes back.

    Raises:
        InputError: the model is not an nn.Module, or holds nothing that can be accelerated.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"accelerate: model is a {type(model).__name__}, expected an nn.Module")
    report = Acceleration(model)
    report.undo()
    chosen: list[tuple[str, nn.Module, type[DropIn]]] = []
    inside_layers = {id(m.self_attn) for m in model.modules() if isinstance(m, nn.TransformerEncoderLayer)}
    for name, module in model.named_modules():
        if id(module) in inside_layers:
            continue
        if why := _reason_to_leave(module):
            report.left[name or "the model"] = why
        elif drop_in := _CLASSES.get(_full_name(type(module))):
            chosen.append((name, module, drop_in))
    if not chosen:
        reasons = f" ({next(iter(report.left.values()))})" if report.left else ""
        raise InputError(f"accelerate: {type(model).__name__} holds nothing to accelerate{reasons}; known: {SUPPORTED}")
    for name, module, drop_in in chosen:
        pack = drop_padding and _all_attention_taken(module, drop_in, report, name)
        module.__class__ = _accelerated(type(module), drop_in)
        module._fastbert = Settings(impl, pack)  # type: ignore[assignment]
        report.changed[name or "the model"] = drop_in.what
        if drop_in is torch_encoder.TransformerEncoderLayer and (note := torch_encoder.note_on(module)):
            report.left[f"{name}.activation".removeprefix(".")] = note
    return report


def _all_attention_taken(module: nn.Module, drop_in: type[DropIn], report: Acceleration, name: str) -> bool:
    """Packed tokens need every attention module to know the sequences' bounds."""
    if not issubclass(drop_in, BaseModel):
        return True
    for inner, child in module.named_modules():
        if inner and "Attention" in type(child).__name__ and (why := _reason_to_leave(child)):
            report.left[f"{name}: its padding".removeprefix(": ")] = f"kept, since {inner} was left: {why}"
            return False
    return True
