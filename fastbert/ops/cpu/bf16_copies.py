"""bfloat16 copies of float32 parameters: autocast makes them anew in every step, here an optimizer keeps them.

Under ``torch.autocast("cpu", torch.bfloat16)`` a model keeps float32 weights and computes with bfloat16 copies. The
steps of :mod:`fastbert.ops.cpu.adamw` and ``muon`` write weights and copies together and publish each copy, which is
then valid until the weight changes again or the optimizer is gone. PyTorch counts most changes in ``_version``; for
those it does not count (``.data``, numpy, its own fused optimizers) some elements are compared. Without an optimizer of
ours every use makes a new copy, as autocast does.
"""

import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple, overload

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_SAMPLES = 64  # elements compared of each parameter


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype a kernel computes in: bfloat16 under such an autocast, else that of x."""
    if x.dtype == torch.float32 and torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu")
    return x.dtype


class _Copy(NamedTuple):
    tensor: Tensor
    owner: Any = None  # weak reference to the optimizer that wrote it last; None: not valid, a place to write to
    state: tuple[int, int] = (-1, -1)
    sample: Tensor | None = None


_copies = WeakTensorKeyDictionary()  # parameter → _Copy


def _state(parameter: Tensor) -> tuple[int, int]:
    return parameter._version, parameter.data_ptr()


def _sample(parameter: Tensor) -> Tensor:
    flat = parameter.detach().view(-1)
    return flat[:: max(flat.numel() // _SAMPLES, 1)]


def bf16_copy(parameter: Tensor) -> Tensor:
    """The bfloat16 copy of a float32 tensor, detached: the cached one where it is valid, else a new one."""
    found = _copies.get(parameter)
    if (
        found is not None
        and found.owner is not None
        and found.owner() is not None
        and found.state == _state(parameter)
        and torch.equal(found.sample, _sample(parameter))
    ):
        return found.tensor
    copy = parameter.detach().to(torch.bfloat16)
    if parameter.is_leaf and parameter.requires_grad and not copy.is_inference():  # training may not keep those
        # not valid by itself: a place for the optimizer to write to
        _copies[parameter] = _Copy(copy)
    return copy


def publish(parameter: Tensor, copy: Tensor, owner: object) -> None:
    """Declare ``copy`` valid for the parameter as it is now, for as long as ``owner`` lives."""
    _copies[parameter] = _Copy(copy, weakref.ref(owner), _state(parameter), _sample(parameter).clone())


def cached_copy(parameter: Tensor) -> Tensor | None:
    """The cached copy, possibly stale; None if none was requested."""
    found = _copies.get(parameter)
    return None if found is None or found.tensor.shape != parameter.shape else found.tensor


def mark_updated(parameters: Sequence[Tensor], owner: object) -> None:
    """Declare that weights and copies were written together by a step that PyTorch did not see."""
    copies = [cached_copy(p) for p in parameters]
    # a backward that saved one of them before the step must not run on the new numbers
    torch.autograd.graph.increment_version([*parameters, *(copy for copy in copies if copy is not None)])
    for parameter, copy in zip(parameters, copies, strict=True):
        if copy is not None:
            publish(parameter, copy, owner)


@overload
def as_dtype(parameter: Tensor, dtype: torch.dtype) -> Tensor: ...
@overload
def as_dtype(parameter: None, dtype: torch.dtype) -> None: ...
def as_dtype(parameter: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A parameter in the dtype to compute with, detached."""
    if parameter is None or parameter.dtype == dtype:
        return None if parameter is None else parameter.detach()
    return bf16_copy(parameter) if dtype == torch.bfloat16 else parameter.detach().to(dtype)
