"""Optimizers and the learning-rate schedule.

Muon (Jordan et al. 2024) turns the matrices inside the encoder layers, AdamW (Loshchilov & Hutter 2019) everything
else: embeddings, the head, biases and LayerNorms. Schedules are functions of the fraction of the budget that is spent,
so the same recipe fits ten seconds and ten days.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastbert import ops
from fastbert.config import BertConfig
from fastbert.model import BertForPreTraining
from fastbert.optim.adamw import AdamW, clip
from fastbert.optim.muon import Muon
from fastbert.system.errors import InputError

USUAL_WEIGHT_DECAY = 0.01
USUAL_LEARNING_RATE, USUAL_MUON_LEARNING_RATE = 2e-3, 0.02
# Weights forget what they were within 1 / (learning rate × decay) steps, and the best such time is a share of the
# budget (Wang and Aitchison, How to set AdamW's weight decay as you scale model and dataset size, 2024; docs/recipe.md)
FORGETS_OVER = 0.1
MOST_FORGOTTEN = 0.025  # in a step: a budget of fewer than 400 was not measured, and one of ten would erase the weights
# The best rates fall with the cube root of the budget, 400 to 6,400 steps of two sizes say (docs/recipe.md)
USUAL_RATES_SUIT = 2000  # steps
MOST_RAISED = 3.0  # budgets of fewer than 74 steps were not measured


@dataclass(frozen=True)
class Schedule:
    """Warm-up, plateau, linear decay to zero, as fractions of the budget (Hu et al., MiniCPM, 2024: "WSD")."""

    warmup: float = 0.02
    decay: float = 0.6

    def __call__(self, progress: float) -> float:
        """Factor of the peak learning rate at ``progress`` in [0, 1]; never quite zero, so that no step is wasted."""
        rising = progress / self.warmup if self.warmup else 1.0
        falling = (1.0 - progress) / self.decay if self.decay else 1.0
        return max(min(1.0, rising, falling), 1e-3)


@dataclass(frozen=True)
class BatchRamp:
    """Batches of ``unit`` tokens that make a step: ``most`` in the end, reached evenly in ``share`` of the budget.

    Reference: Smith et al., "Don't Decay the Learning Rate, Increase the Batch Size", 2018.
    """

    unit: int  # tokens
    most: int = 1
    share: float = 0.5

    @classmethod
    def parse(cls, text: str | None, batch_tokens: int, least: int) -> "BatchRamp":
        """Read "FROM" or "FROM:SHARE", such as "512:0.3"; None: no ramp.

        Raises:
            InputError: anything else, a FROM that does not divide ``batch_tokens``, or one below ``least`` tokens.
        """
        if text is None:
            return cls(batch_tokens)
        first, colon, rest = text.partition(":")
        try:
            unit, share = int(first), float(rest) if colon else 0.5
        except ValueError:
            unit, share = 0, 0.0
        if unit < 1 or not 0.0 < share <= 1.0:
            raise InputError(f"--batch-ramp {text}: expected FROM or FROM:SHARE, such as 512 or 512:0.3")
        if unit < least or batch_tokens % unit:
            raise InputError(
                f"--batch-ramp {text}: FROM must divide --batch-tokens ({batch_tokens}) and hold a sequence of "
                f"--max-length ({least}): give one that does, such as "
                f"{next(n for n in range(least, batch_tokens + 1) if batch_tokens % n == 0)}"
            )
        return cls(unit, batch_tokens // unit, share)

    @property
    def mean(self) -> float:
        """Batches of a step, on average over the run's steps."""
        return self.most - self.share * (self.most - 1) / 2

    def batches(self, progress: float) -> int:
        """How many batches make the step at ``progress`` through the run, 0 … 1."""
        return min(self.most, 1 + int((self.most - 1) * progress / self.share + 0.5))


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon may turn it: a matrix between hidden states, not an embedding, a head, a bias or a gain."""
    return name.startswith("encoder.layers.") and parameter.ndim == 2


def stacked_parts(name: str, config: BertConfig) -> int:
    """How many separate maps a fused matrix stacks: queries, keys and values, or the gate and value of a GLU."""
    if name.endswith("attention.qkv.weight"):
        return 3
    return 2 if name.endswith("feed_forward.up.weight") and config.mlp == "geglu" else 1


def hidden_and_rest(
    named: Iterable[tuple[str, nn.Parameter]], optimizer: str
) -> tuple[list[tuple[str, nn.Parameter]], list[tuple[str, nn.Parameter]]]:
    """Names and parameters that Muon turns, none if ``optimizer`` is "adamw", and those of AdamW."""
    named = list(named)
    hidden = [(n, p) for n, p in named if optimizer == "muon" and is_hidden_matrix(n, p)]
    taken = {n for n, _ in hidden}
    return hidden, [(n, p) for n, p in named if n not in taken]


class Optimizers:
    """The optimizers of one model behind one ``step``; learning rates are peaks that the schedule scales.

    Args:
        model: names decide the groups (see :func:`is_hidden_matrix`).
        optimizer: "muon" (hidden matrices by Muon, the rest by AdamW) or "adamw" (everything by AdamW).
        learning_rate: AdamW's peak. None: the usual one times the cube root of USUAL_RATES_SUIT over
            the budget's steps.
        muon_learning_rate: Muon's peak, likewise.
        weight_decay: decoupled decay of matrices and embeddings; biases and LayerNorms have none. None: so much
            that the matrices that Muon turns forget what they were over the share FORGETS_OVER of the budget.
        clip_norm: gradient-norm bound of the parameters AdamW turns (Muon's update has a fixed norm already).
        muon_dtype: of Muon's iteration; float32 keeps curves of different numbers of ranks together.
    """

    def __init__(
        self,
        model: BertForPreTraining,
        *,
        optimizer: str = "muon",
        learning_rate: float | None = USUAL_LEARNING_RATE,
        muon_learning_rate: float | None = USUAL_MUON_LEARNING_RATE,
        weight_decay: float | None = USUAL_WEIGHT_DECAY,
        clip_norm: float = 1.0,
        muon_dtype: torch.dtype = torch.bfloat16,
    ):
        ops.keep_freed_memory()
        hidden, rest = hidden_and_rest(model.named_parameters(), optimizer)
        self.forgets_over = FORGETS_OVER if weight_decay is None and hidden and muon_learning_rate != 0 else None
        self.by_length = {
            part for part, rate in (("adamw", learning_rate), ("muon", muon_learning_rate)) if rate is None and hidden
        }
        learning_rate = USUAL_LEARNING_RATE if learning_rate is None else learning_rate
        muon_learning_rate = USUAL_MUON_LEARNING_RATE if muon_learning_rate is None else muon_learning_rate
        weight_decay = USUAL_WEIGHT_DECAY if weight_decay is None else weight_decay
        groups = [
            {"params": [(n, p) for n, p in rest if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [(n, p) for n, p in rest if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.clipped = [p for _, p in rest]
        self._narrow = False
        self._raised = 1.0
        self.clip_norm = clip_norm
        # name -> (optimizer, peak learning rate, for a budget of USUAL_RATES_SUIT steps if it goes by the length)
        self.parts: dict[str, tuple[torch.optim.Optimizer, float]] = {
            "adamw": (
                AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), eps=1e-6, fused=True),
                learning_rate,
            )
        }
        if hidden:
            parts = {name: stacked_parts(name, model.config) for name, _ in hidden}
            muon = Muon(hidden, parts, lr=muon_learning_rate, weight_decay=weight_decay, dtype=muon_dtype)
            self.parts["muon"] = (muon, muon_learning_rate)

    def narrow_gradients(self, narrow: bool) -> None:
        """Whether AdamW's matrices keep the gradients of the coming backward pass as they were computed.

        Under autocast that is bfloat16. To cast them to float32, as PyTorch does, is a pass over memory that adds no
        digit; but sums of several passes need float32. It says nothing where the core does not take AdamW's step.
        """
        if narrow == self._narrow:
            return
        self._narrow = narrow
        if not hasattr(Tensor, "grad_dtype") or ops.fused_adamw(self.clipped) is None:
            return
        for p in self.clipped:
            if p.ndim >= 2:
                p.grad_dtype = None if narrow else p.dtype

    def step(self, factor: float, share: float = 0.0) -> Tensor:
        """Clip and :meth:`update`; returns the norm before clipping."""
        norm = self.clip()
        self.update(factor, share)
        return norm

    def clip(self) -> Tensor:
        """Bound the gradients of the parameters that AdamW turns; returns their norm before that."""
        adamw, _ = self.parts["adamw"]
        if isinstance(adamw, AdamW):
            return clip(adamw, self.clipped, self.clip_norm)
        return nn.utils.clip_grad_norm_(self.clipped, self.clip_norm or float("inf"))

    def update(self, factor: float, share: float = 0.0) -> None:
        """Update at ``factor`` × the peak rates and clear the gradients.

        ``share``: what part of the budget a step is; 0 where that is not known yet.
        """
        forgotten = min(share / self.forgets_over, MOST_FORGOTTEN) if self.forgets_over else 0.0
        self._raised = min((USUAL_RATES_SUIT * share) ** (1 / 3), MOST_RAISED) if share else 1.0
        peaks = self.peaks
        for name, (optimizer, _) in self.parts.items():
            for group in optimizer.param_groups:
                group["lr"] = peaks[name] * factor
                if forgotten and group["weight_decay"]:  # biases and LayerNorms keep their 0
                    group["weight_decay"] = forgotten / peaks["muon"]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    @property
    def peaks(self) -> dict[str, float]:
        """Peak learning rate of every part, as the last update took them."""
        return {
            name: peak * (self._raised if name in self.by_length else 1.0) for name, (_, peak) in self.parts.items()
        }

    def state_tensors(self) -> dict[str, Tensor]:
        """Every state tensor under ``optimizer/parameter/key``, for a checkpoint."""
        return {
            f"{part}/{name}/{key}": value
            for part, (optimizer, _) in self.parts.items()
            for name, parameter in _named(optimizer)
            for key, value in optimizer.state.get(parameter, {}).items()
            if isinstance(value, Tensor)
        }

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Put back what :meth:`state_tensors` gave.

        Raises:
            KeyError: a tensor belongs to no parameter of this model.
        """
        homes = {
            f"{part}/{name}": (optimizer, parameter)
            for part, (optimizer, _) in self.parts.items()
            for name, parameter in _named(optimizer)
        }
        for path, tensor in tensors.items():
            home, _, key = path.rpartition("/")
            optimizer, parameter = homes[home]
            device = tensor.device if key == "step" else parameter.device  # fused AdamW keeps its counter on the CPU
            optimizer.state[parameter][key] = tensor.to(device)


def _named(optimizer: torch.optim.Optimizer) -> Iterable[tuple[str, nn.Parameter]]:
    for group in optimizer.param_groups:
        yield from zip(group["param_names"], group["params"], strict=True)
