"""torch.optim.AdamW with a fused CPU step that includes gradient clipping.

The state is PyTorch's (``step``, ``exp_avg``, ``exp_avg_sq``), so checkpoints do not depend on the implementation.

Reference: Loshchilov & Hutter, Decoupled Weight Decay Regularization, 2019.
"""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from fastbert import ops


class AdamW(torch.optim.AdamW):
    """AdamW in one pass over memory where the C++ core supports the parameters, else PyTorch's.

    Attributes:
        gradient_factor: multiplies every gradient in the next step only; see :func:`clip`. (Not called ``grad_scale``,
            which torch's fused step reads.)
    """

    gradient_factor = 1.0

    @torch.no_grad()
    def step(self, closure=None):
        """One update of every parameter that has a gradient; returns the loss of ``closure``, None without one.

        PyTorch's own step serves what the fused one does not: ``maximize``, ``amsgrad``, ``capturable``,
        ``differentiable``, a GradScaler that leaves the unscaling to the step, gradients that are no dense CPU tensors.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        updated = [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        scale, self.gradient_factor = self.gradient_factor, 1.0
        fused = ops.fused_adamw([p for p, _ in updated]) if self._is_plain(updated) else None
        if fused is None:
            if scale != 1.0:
                torch._foreach_mul_([p.grad for p, _ in updated], scale)
            with self._decayed():
                super().step()
            # PyTorch's fused step does not increment versions, and kernels cache copies of weights by version
            torch.autograd.graph.increment_version([p for p, _ in updated])
            return loss
        by_count: dict[tuple, list[tuple[Tensor, dict, dict]]] = {}
        for p, group in updated:
            state = self.state[p]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
            state["step"] += 1
            key = (int(state["step"]), float(group["lr"]), *map(float, group["betas"]), group["eps"])
            by_count.setdefault(key, []).append((p, state, group))
        for (count, lr, beta1, beta2, eps), same in by_count.items():
            fused(
                [p for p, _, _ in same], [p.grad for p, _, _ in same], [state["exp_avg"] for _, state, _ in same],
                [state["exp_avg_sq"] for _, state, _ in same], [group["weight_decay"] for _, _, group in same],
                lr=lr, betas=(beta1, beta2), eps=eps, count=count, grad_scale=scale, owner=self,
            )  # fmt: skip
        return loss

    @contextlib.contextmanager
    def _decayed(self) -> Iterator[None]:
        """Weight decay that is a tensor, which PyTorch's step does not take, is done before it."""
        on_device = [group for group in self.param_groups if isinstance(group["weight_decay"], Tensor)]
        decays = [group["weight_decay"] for group in on_device]
        found_inf = getattr(self, "found_inf", None)
        for group, decay in zip(on_device, decays, strict=True):
            lost = group["lr"] * decay
            factor = 1.0 - (lost if found_inf is None else lost * (1.0 - found_inf))
            torch._foreach_mul_([p for p in group["params"] if p.grad is not None], factor)
            group["weight_decay"] = 0.0
        try:
            yield
        finally:
            for group, decay in zip(on_device, decays, strict=True):
                group["weight_decay"] = decay

    def _is_plain(self, updated: Sequence[tuple[Tensor, dict]]) -> bool:
        """Whether this step is the one that the fused kernel takes."""
        if getattr(self, "grad_scale", None) is not None or getattr(self, "found_inf", None) is not None:
            return False
        others = ("maximize", "amsgrad", "capturable", "differentiable")
        if any(group[name] for group in self.param_groups for name in others):
            return False
        for p, _ in updated:
            moments = [x for name, x in self.state.get(p, {}).items() if name != "step"]
            grad = p.grad
            assert grad is not None
            dense = (x.layout is torch.strided and x.device == p.device for x in (grad, *moments))
            if not all(dense) or grad.dtype not in (torch.float32, torch.bfloat16):
                return False
            if not all(x.is_contiguous() and x.dtype == torch.float32 for x in moments):
                return False
        return True


def clip(optimizer: AdamW, parameters: Sequence[Tensor], max_norm: float) -> Tensor:
    """Clip the gradient norm of ``parameters``, all of ``optimizer``; returns the norm before.

    Where the core supports them, the gradients stay unchanged and the optimizer's next step scales them.
    """
    updated = [p for p in parameters if p.grad is not None]
    gradients = [p.grad for p in updated if p.grad is not None]
    if ops.fused_adamw(updated) is None:
        norm = nn.utils.get_total_norm(gradients)
        nn.utils.clip_grads_with_norm_(updated, max_norm or float("inf"), norm)
        return norm
    norm = ops.gradient_norm(gradients)
    if max_norm:
        optimizer.gradient_factor = min(1.0, max_norm / (norm.item() + 1e-6))
    return norm
