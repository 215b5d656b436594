"""Backward functions that compute first derivatives only."""

import functools
from collections.abc import Callable
from typing import Any

import torch


def first_order(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse ``create_graph=True``, whose second derivatives would be zero without a word.

    PyTorch's ``once_differentiable`` refuses it only where the incoming gradient itself requires one.
    """

    @functools.wraps(backward)
    def refuse_second_derivatives(ctx: Any, *gradients: Any) -> Any:
        if torch.is_grad_enabled():  # as it is in a backward pass under create_graph
            raise RuntimeError("create_graph=True: the C++ kernels have no second derivatives. Try: impl='reference'")
        return backward(ctx, *gradients)

    return refuse_second_derivatives
