"""torch.optim.AdamW that knows the quickest way to take its step on the CPU, clipping included.

The state is PyTorch's own (``step``, ``exp_avg``, ``exp_avg_sq``): checkpoints do not show which way a step was taken.

Reference: Loshchilov & Hutter, Decoupled Weight Decay Regularization, 2019.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fastbert import ops


class AdamW(torch.optim.AdamW):
    """AdamW with decoupled decay; one pass over memory where the C++ core takes the parameters, else PyTorch's.

    Attributes:
        gradient_factor: multiplies every gradient in the next step, then is 1 again; see :func:`clip`.
            (torch's own name for such a thing, ``grad_scale``, is a tensor that its fused form would look for.)
    """

    gradient_factor = 1.0

    @torch.no_grad()
    def step(self, closure=None):
        """One update of every parameter that has a gradient."""
        turned = [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        fused = ops.fused_adamw([p for p, _ in turned])
        scale, self.gradient_factor = self.gradient_factor, 1.0
        assert closure is None, "AdamW takes no closure"
        if fused is None:
            if scale != 1.0:
                torch._foreach_mul_([p.grad for p, _ in turned], scale)
            super().step()
            # PyTorch's fused form does not count its writes, and kernels may keep images of weights by that count
            torch.autograd.graph.increment_version([p for p, _ in turned])
            return None
        by_count: dict[tuple, list[tuple[Tensor, dict, dict]]] = {}
        for p, group in turned:
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


def clip(
    optimizer: AdamW, parameters: Sequence[Tensor], bound: float, of_all: Callable[[Tensor], Tensor] = lambda norm: norm
) -> Tensor:
    """Bound the norm of the gradients of ``parameters``, all turned by ``optimizer``; returns the norm before.

    Where the core takes them, the gradients stay as they are and the optimizer's next step scales them.

    Args:
        of_all: makes the norm of all gradients of that of these, where ranks share them out.
    """
    turned = [p for p in parameters if p.grad is not None]
    gradients = [p.grad for p in turned if p.grad is not None]
    if ops.fused_adamw(turned) is None:
        norm = of_all(nn.utils.get_total_norm(gradients))
        nn.utils.clip_grads_with_norm_(turned, bound or float("inf"), norm)
        return norm
    norm = of_all(ops.gradient_norm(gradients))
    if bound:
        optimizer.gradient_factor = min(1.0, bound / (norm.item() + 1e-6))
    return norm
