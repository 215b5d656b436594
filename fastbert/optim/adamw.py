"""torch.optim.AdamW with a fused CPU step that includes gradient clipping.

The state is PyTorch's (``step``, ``exp_avg``, ``exp_avg_sq``), so checkpoints do not depend on the implementation.

Reference: Loshchilov & Hutter, Decoupled Weight Decay Regularization, 2019.
"""

from collections.abc import Sequence

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
        """One update of every parameter that has a gradient."""
        updated = [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        fused = ops.fused_adamw([p for p, _ in updated])
        scale, self.gradient_factor = self.gradient_factor, 1.0
        assert closure is None, "AdamW takes no closure"
        if fused is None:
            if scale != 1.0:
                torch._foreach_mul_([p.grad for p, _ in updated], scale)
            super().step()
            # PyTorch's fused step does not increment versions, and kernels cache copies of weights by version
            torch.autograd.graph.increment_version([p for p, _ in updated])
            return None
        by_count: dict[tuple, list[tuple[Tensor, dict, dict]]] = {}
        for p, group in updated:
            state = self.state[p]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
            state["step"] += 1
            key = (int(state["step"]), group["lr"], *group["betas"], group["eps"])
            by_count.setdefault(key, []).append((p, state, group))
        for (count, lr, beta1, beta2, eps), same in by_count.items():
            fused(
                [p for p, _, _ in same], [p.grad for p, _, _ in same], [state["exp_avg"] for _, state, _ in same],
                [state["exp_avg_sq"] for _, state, _ in same], [group["weight_decay"] for _, _, group in same],
                lr=lr, betas=(beta1, beta2), eps=eps, count=count, grad_scale=scale, owner=self,
            )  # fmt: skip
        return None


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
