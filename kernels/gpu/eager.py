"""The way to a kernel in eager mode: an autograd function that calls the launchers, past PyTorch's dispatcher.

A ``torch.library.custom_op`` costs the host some 730 µs forward and backward, of which Triton's launcher is 16: a GPU
would wait for Python. torch.compile and torch.export need the op and get it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def direct(op: Callable, forward: Callable, setup_context: Callable, gradients: Callable) -> Callable[..., Any]:
    """``op``, called as the autograd function it stands for wherever nothing is compiled.

    Args:
        op: the custom op.
        forward: its body.
        setup_context, gradients: as ``register_autograd`` takes them; ``gradients`` calls other ops by :func:`call`.
    """

    class Direct(torch.autograd.Function):
        # one function that takes ctx: with a setup_context of its own PyTorch binds the arguments by inspect.signature
        @staticmethod
        def forward(ctx, *arguments):
            output = forward(*arguments)
            setup_context(ctx, arguments, output)
            ctx.direct = True
            return output

        @staticmethod
        @once_differentiable
        def backward(ctx, *grads):
            return gradients(ctx, *grads)

    def run(*arguments):
        if torch.compiler.is_compiling():
            return op(*arguments)
        if torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in arguments):
            return Direct.apply(*arguments)
        return forward(*arguments)

    return run


def call(ctx: Any, op: Callable, body: Callable, *arguments):
    """The body of ``op`` in the backward of :func:`direct`, and the op in its own, which may be traced."""
    return body(*arguments) if getattr(ctx, "direct", False) else op(*arguments)


def without_autocast(body: Callable) -> Callable[..., Any]:
    """``body`` with its products in the dtype of their inputs, as inside a custom op."""

    def run(*arguments):
        with torch.autocast(arguments[0].device.type, enabled=False):
            return body(*arguments)

    return run
