"""bfloat16 images of float32 parameters: what autocast makes anew in every step, made once and kept.

Under ``torch.autocast("cpu", torch.bfloat16)`` a model keeps float32 weights and computes with their bfloat16 images.
The steps of :mod:`fastbert.ops.cpu.adamw` and ``muon`` write weights and images together and so vouch for an image
until the weight changes again, which PyTorch counts in ``_version``, or the optimizer is gone: PyTorch's own fused ones
do not count their writes. Without an optimizer of ours every use makes a new image, as autocast does.
"""

import weakref
from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor


def compute_dtype(x: Tensor) -> torch.dtype:
    """What a kernel computes in: bfloat16 under such an autocast, else what x is."""
    if x.dtype == torch.float32 and torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu")
    return x.dtype


class _Image:
    """A parameter's image, and for which state of the parameter and whose sake it holds. It is not pickled along."""

    __slots__ = ("made", "owner", "state")

    def __init__(self, made: Tensor, state: tuple[int, int] | None = None, owner: object = None):
        self.made, self.state = made, state
        self.owner = (lambda: None) if owner is None else weakref.ref(owner)

    def __reduce__(self) -> tuple:
        return _nothing, ()


def _nothing() -> None:
    return None


def _state(parameter: Tensor) -> tuple[int, int]:
    return parameter._version, parameter.data_ptr()


def image(parameter: Tensor) -> Tensor:
    """The bfloat16 image of a float32 tensor, detached."""
    kept = getattr(parameter, "_fastbert_image", None)
    if kept is not None and kept.state == _state(parameter) and kept.owner() is not None:
        return kept.made
    made = parameter.detach().to(torch.bfloat16)
    if parameter.is_leaf and parameter.requires_grad and not made.is_inference():  # training may not keep those
        # for the optimizer to find: it is nobody's image until keep() says so
        parameter._fastbert_image = _Image(made)  # type: ignore[attr-defined]
    return made


def keep(parameter: Tensor, made: Tensor, owner: object) -> None:
    """Say that ``made`` is the parameter's image as the parameter is now, for as long as ``owner`` lives."""
    parameter._fastbert_image = _Image(made, _state(parameter), owner)  # type: ignore[attr-defined]


def kept_image(parameter: Tensor) -> Tensor | None:
    """The place of the image somebody asked for, whatever is in it; None: nobody has asked."""
    kept = getattr(parameter, "_fastbert_image", None)
    return None if kept is None or kept.made.shape != parameter.shape else kept.made


def written(parameters: Sequence[Tensor], owner: object) -> None:
    """Say that weights and images were written together by a step that PyTorch did not see."""
    current = [kept_image(p) for p in parameters]
    torch.autograd.graph.increment_version(list(parameters))
    for parameter, made in zip(parameters, current, strict=True):
        if made is not None:
            keep(parameter, made, owner)


@overload
def as_dtype(parameter: Tensor, dtype: torch.dtype) -> Tensor: ...
@overload
def as_dtype(parameter: None, dtype: torch.dtype) -> None: ...
def as_dtype(parameter: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A parameter to compute with in ``dtype``, detached."""
    if parameter is None or parameter.dtype == dtype:
        return None if parameter is None else parameter.detach()
    return image(parameter) if dtype == torch.bfloat16 else parameter.detach().to(dtype)
