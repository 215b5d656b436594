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

    found_inf: Tensor | None = None  # as torch.optim.AdamW's: 1.0 on the device, and a step changes nothing

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
        """The same in PyTorch: matrices of one shape are stacked, so that a GPU gets few launches."""
        lr, momentum = group["lr"], group["momentum"]
        keep = None if self.found_inf is None else 1.0 - self.found_inf
        decay = 1 - lr * group["weight_decay"] * (1.0 if keep is None else keep)
        torch._foreach_mul_([parameter for parameter, _ in updated], decay)
        # shape -> (gradient, momentum, weight) of every part
        by_shape: dict[tuple[int, ...], list[tuple[Tensor, Tensor, Tensor]]] = {}
        for (parameter, count), buffer in zip(updated, momenta, strict=True):
            assert parameter.grad is not None
            parts = (x.chunk(count) for x in (parameter.grad, buffer, parameter))
            for gradient, average, target in zip(*parts, strict=True):
                by_shape.setdefault(tuple(gradient.shape), []).append((gradient, average, target))
        for (rows, columns), same in by_shape.items():
            gradients, averages, targets = (list(x) for x in zip(*same, strict=True))
            gradient, average = torch.stack(gradients), torch.stack(averages)
            if self.found_inf is not None and keep is not None:
                gradient = torch.where(self.found_inf > 0, 0.0, gradient)
            average.lerp_(gradient, 1 - momentum if keep is None else (1 - momentum) * keep)
            torch._foreach_copy_(averages, list(average.unbind()))
            direction = gradient.lerp_(average, momentum)  # Nesterov
            turned = rows > columns
            update = orthogonalise(direction.mT if turned else direction, group["steps"], self.dtype)
            update = (update.mT if turned else update).to(torch.float32, memory_format=torch.contiguous_format)
            factor = -lr * max(1.0, rows / columns) ** 0.5
            update *= factor if keep is None else keep * factor
            torch._foreach_add_(targets, list(update.unbind()))
