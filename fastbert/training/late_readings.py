"""Loss and gradient norm of a step on a GPU, read when the next step has been queued: the device never runs dry.

The update is queued before anyone has seen the loss. So a flag on the device, 1 from the first loss or norm on that is
not finite, makes the optimizers change nothing (``found_inf`` of torch.optim.AdamW): when the host finds out, a step
later, weights and state are still those before the bad step.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Step:
    """What is known of a step when it is queued."""

    number: int  # of the step, from 1
    tokens_before: int  # seen before it
    num_tokens: int
    loader_before: dict[str, Any]  # state of the loader before it
    factors: Mapping[str, float]  # of the learning rates, by optimizer


class LateReadings:
    """Two numbers a step on their way from the device.

    Args:
        device: a CUDA device.
    """

    def __init__(self, device: torch.device):
        self._bad = torch.zeros((), dtype=torch.float32, device=device)
        self._values = torch.zeros(2, dtype=torch.float32, device=device)  # of the step being queued
        self._sent: tuple[Step, Tensor, torch.cuda.Event] | None = None

    def guard(self, loss: Tensor, norm: Tensor) -> Tensor:
        """Take a step's numbers; returns the flag () float32, 1.0 once any has not been finite."""
        torch.stack((loss.float(), norm.float()), out=self._values)
        # x · 0 is NaN for infinities and NaN, and NaN differs from 0
        self._bad.add_((self._values * 0).sum() != 0).clamp_(max=1.0)
        return self._bad

    @contextlib.contextmanager
    def nothing_changes(self) -> Iterator[None]:
        """Steps inside leave weights and state as they are."""
        self._bad.fill_(1.0)
        try:
            yield
        finally:
            self._bad.zero_()

    def exchange(self, step: Step | None) -> tuple[Step, float, float] | None:
        """Send the numbers of ``step``, if it is one; returns the step sent before it, with its loss and norm."""
        earlier, self._sent = self._sent, None
        if step is not None:
            landing = torch.empty(2, dtype=torch.float32, pin_memory=True)
            landing.copy_(self._values, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
            self._sent = step, landing, arrived
        if earlier is None:
            return None
        before, landing, arrived = earlier
        arrived.synchronize()
        loss, norm = landing.tolist()
        return before, loss, norm
