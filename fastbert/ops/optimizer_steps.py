"""What the optimizers need of the CPU kernels: fused steps, the gradients' norm, bfloat16 copies of weights."""

from collections.abc import Callable, Sequence

from torch import Tensor

from fastbert.ops.choose import choose
from fastbert.system import native


def fused_adamw(parameters: Sequence[Tensor]) -> Callable[..., None] | None:
    """The one-pass AdamW step for these parameters, or None where PyTorch's own must run."""
    return _fused("adamw", parameters)


def fused_muon(parameters: Sequence[Tensor]) -> Callable[..., None] | None:
    """Muon's step for these matrices in one call, or None where PyTorch's operations must run."""
    return _fused("muon", parameters)


def _fused(op: str, parameters: Sequence[Tensor]) -> Callable[..., None] | None:
    if choose(op, "auto", {f"parameters[{i}]": p for i, p in enumerate(parameters)})[0] != "cpp":
        return None
    from fastbert.ops.cpu import adamw, muon

    if not adamw.supports(parameters):
        return None
    return adamw.step if op == "adamw" else muon.step


def gradient_norm(gradients: Sequence[Tensor]) -> Tensor:
    """√ of the sum of all squares of CPU tensors."""
    from fastbert.ops.cpu import adamw

    return adamw.gradient_norm(gradients)


def disable_malloc_trim() -> None:
    """Let the C library keep freed memory for this process: training allocates the same sizes in every step."""
    if native.status()[0]:
        native.compute().keep_freed_memory()
