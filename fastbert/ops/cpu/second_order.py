"""Kernels compute first derivatives only, of one gradient: for second ones, or a batch of them, there is the reference.

PyTorch's ``once_differentiable`` refuses ``create_graph=True`` only where the incoming gradient itself requires one;
elsewhere second derivatives would be zero without a word.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Gradients = tuple[Tensor | None, ...]


def under_create_graph(again: Callable[..., Any]) -> Callable[..., Any]:
    """Make a backward function call ``again``, of the same arguments, where its result will be differentiated.

    So too for ``is_grads_batched=True``, which maps the backward over many gradients at once.
    """

    def decorate(backward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(backward)
        def either(ctx: Any, *gradients: Any) -> Any:
            # gradients are enabled in a backward pass under create_graph only
            if not torch.is_grad_enabled() and not any(map(_is_batched, gradients)):
                return backward(ctx, *gradients)
            with torch.enable_grad():
                return again(ctx, *gradients)

        return either

    return decorate


def _is_batched(gradient: Any) -> bool:
    return isinstance(gradient, Tensor) and torch._C._functorch.is_legacy_batchedtensor(gradient)


def refuse_dropout(dropout_p: float) -> None:
    """What a kernel has dropped the reference cannot drop again."""
    if dropout_p:
        raise RuntimeError(
            f"create_graph=True: kernels have no second derivatives with dropout_p={dropout_p}. "
            "Try: impl='reference', or no dropout"
        )


def gradients_of(function: Callable[..., Any], inputs: list[Tensor | None], gradients: Gradients) -> Gradients:
    """The gradients of ``function(*inputs)`` for the inputs that require one, themselves differentiable."""
    # of views: one input may be computed from another, whose gradient is not the whole derivative
    views = [None if x is None else x.view_as(x) for x in inputs]
    outputs = function(*views)
    outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
    pairs = [(out, grad.to(out.dtype)) for out, grad in zip(outputs, gradients, strict=True) if grad is not None]
    wanted = [x for x in views if x is not None and x.requires_grad]
    outs, grads = [out for out, _ in pairs], [grad for _, grad in pairs]
    found = iter(torch.autograd.grad(outs, wanted, grads, create_graph=True, allow_unused=True) if wanted else ())
    return tuple(next(found) if x is not None and x.requires_grad else None for x in views)
