"""Muon: momentum with an orthogonalised update, for the matrices between hidden states.

Reference: Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024. The update of one matrix is
torch.optim.Muon's, with two differences: the projections fused in one matrix (Q, K and V, or the two halves of a GLU)
are orthogonalised separately; and on the CPU the whole step is one call of the C++ core if that supports it; otherwise
matrices of one shape are batched.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fastbert import ops

# the quintic of the Newton–Schulz iteration: x (a + b x² + c x⁴), steep at 0 and flat around 1
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrices: Tensor, steps: int = 5, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Approximate the nearest (semi-)orthogonal matrices: singular values end between 0.7 and 1.2.

    Args:
        matrices: (K, R, C) with R <= C, any floating dtype.
        steps: Newton–Schulz iterations.
        dtype: of the iteration, which was designed for bf16; its result then depends on the last bits of the gradients.

    Returns:
        (K, R, C) of ``dtype``.
    """
    a, b, c = COEFFICIENTS
    x = matrices.to(dtype)
    x = x / (x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7))
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised, with decoupled weight decay.

    Args:
        params: ``(name, parameter)`` pairs of matrices (R, C).
        parts: number of projections fused along the rows of a parameter, by name; 1 if not listed.
        lr: learning rate; the update of each part is scaled by sqrt(max(1, R / C)).
        momentum: of the Nesterov momentum.
        weight_decay: decoupled.
        steps: Newton–Schulz iterations.
        dtype: of the iteration.

    Raises:
        ValueError: a parameter is not a matrix, or its rows cannot be divided into its parts; a second group.
    """

    def __init__(
        self,
        params: Iterable[tuple[str, nn.Parameter]],
        parts: dict[str, int] | None = None,
        *,
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        steps: int = 5,
        dtype: torch.dtype = torch.bfloat16,
    ):
        named, self.dtype = list(params), dtype
        self.parts = [(parts or {}).get(name, 1) for name, _ in named]
        for (name, parameter), count in zip(named, self.parts, strict=True):
            if not isinstance(parameter, Tensor):
                raise ValueError(f"{name} is a {type(parameter).__name__}: Muon takes one group of (name, parameter)")
            if parameter.ndim != 2 or parameter.shape[0] % count:
                raise ValueError(
                    f"{name} has shape {tuple(parameter.shape)}: Muon needs a matrix of {count} equal parts"
                )
        super().__init__(named, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "steps": steps})

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "parts": self.parts, "dtype": self.dtype}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refuse every group but the constructor's: other settings need a Muon of their own."""
        if self.param_groups:
            raise ValueError("Muon has one group of parameters. Try: a second Muon")
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure=None):
        """One update of every parameter that has a gradient; returns the loss of ``closure``, None without one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._update()
        return loss

    def _update(self) -> None:
        (group,) = self.param_groups
        updated = [(p, n) for p, n in zip(group["params"], self.parts, strict=True) if p.grad is not None]
        for p, _ in updated:
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        momenta = [self.state[p]["momentum_buffer"] for p, _ in updated]
        fused = ops.fused_muon([p for p, _ in updated]) if self.dtype in (torch.bfloat16, torch.float32) else None
        if fused is None:
            self._step(group, updated, momenta)
            return
        fused(
            [p for p, _ in updated], [p.grad for p, _ in updated], momenta, [n for _, n in updated],
            lr=group["lr"], momentum=group["momentum"], weight_decay=group["weight_decay"], coefficients=COEFFICIENTS,
            iterations=group["steps"], narrow=self.dtype == torch.bfloat16, owner=self,
        )  # fmt: skip

    def _step(self, group: dict[str, Any], updated: list[tuple[Tensor, int]], momenta: list[Tensor]) -> None:
        """The same in PyTorch, with matrices of one shape batched."""
        lr, momentum = group["lr"], group["momentum"]
        # shape -> (direction, target, scale) of every part, transposed if needed (rows <= columns)
        by_shape: dict[tuple[int, int], list[tuple[Tensor, Tensor, float]]] = {}
        for (parameter, count), buffer in zip(updated, momenta, strict=True):
            assert parameter.grad is not None
            buffer.lerp_(parameter.grad, 1 - momentum)
            direction = parameter.grad.lerp(buffer, momentum)  # Nesterov
            parameter.mul_(1 - lr * group["weight_decay"])
            for part, target in zip(direction.chunk(count), parameter.chunk(count), strict=True):
                rows, columns = part.shape
                scale = max(1.0, rows / columns) ** 0.5
                if rows > columns:
                    part, target = part.mT, target.mT
                by_shape.setdefault((part.shape[0], part.shape[1]), []).append((part, target, scale))
        for same in by_shape.values():
            updates = orthogonalise(torch.stack([part for part, _, _ in same]), group["steps"], self.dtype)
            for update, (_, target, scale) in zip(updates, same, strict=True):
                target.add_(update, alpha=-lr * scale)
