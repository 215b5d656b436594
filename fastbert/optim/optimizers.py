"""The optimizers of one model: Muon for matrices inside the encoder layers, AdamW for everything else.

References: Jordan et al., Muon, 2024; Loshchilov & Hutter, Decoupled Weight Decay Regularization, 2019.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastbert import ops
from fastbert.config import BertConfig
from fastbert.optim.adamw import AdamW, clip
from fastbert.optim.groups import fused_projections, split_param_groups
from fastbert.optim.muon import Muon
from fastbert.optim.schedules import (
    DECAY_TIMESCALE,
    DEFAULT_BETA1,
    DEFAULT_BETA2,
    DEFAULT_LEARNING_RATE,
    DEFAULT_MUON_LEARNING_RATE,
    DEFAULT_WEIGHT_DECAY,
    HyperparameterRule,
)


class Optimizers:
    """The optimizers of one model behind one ``step``.

    Args:
        model: has a ``config``; parameter names decide the groups (see :func:`fastbert.optim.groups.uses_muon`).
        optimizer: "muon" (hidden matrices by Muon, the rest by AdamW) or "adamw" (everything by AdamW).
        learning_rate: peak of AdamW; None: depends on the length of the run (see :class:`HyperparameterRule`).
        muon_learning_rate: peak of Muon, likewise.
        weight_decay: decoupled decay of matrices and embeddings, likewise; biases and LayerNorms have none.
        beta1: share of the earlier gradients in AdamW's mean.
        vector_scale: of the biases' and gains' rate, times that of AdamW's matrices.
        decay_timescale: with ``weight_decay`` None, of :class:`HyperparameterRule`.
        clip_norm: bound on the gradient norm of AdamW's parameters (Muon's update has a fixed norm already).
        muon_dtype: of Muon's iteration; with float32, runs on different numbers of ranks stay together.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        optimizer: str = "muon",
        learning_rate: float | None = DEFAULT_LEARNING_RATE,
        muon_learning_rate: float | None = DEFAULT_MUON_LEARNING_RATE,
        weight_decay: float | None = DEFAULT_WEIGHT_DECAY,
        beta1: float = DEFAULT_BETA1,
        vector_scale: float = 1.0,
        decay_timescale: float = DECAY_TIMESCALE,
        clip_norm: float = 1.0,
        muon_dtype: torch.dtype = torch.bfloat16,
    ):
        ops.disable_malloc_trim()
        named = list(model.named_parameters())
        hidden, rest = split_param_groups(named, optimizer)
        self.rule = HyperparameterRule.of(
            learning_rate, muon_learning_rate, weight_decay, muon=bool(hidden), decay_timescale=decay_timescale
        )
        self.peaks, decay = self.rule.at(0.0)  # as of the last update
        self.clipped = [p for _, p in rest]
        self.clip_norm, self.betas = clip_norm, (beta1, DEFAULT_BETA2)
        self._keeps_bf16 = False
        self.found_inf: Tensor | None = None  # () float32 on the device: where it is 1, an update changes nothing
        self._rates: Tensor | None = None  # see keep_rates_on_device
        config: BertConfig = model.config  # type: ignore[assignment]
        vectors = {name for name, p in named if p.ndim < 2}
        self.parts = build_optimizers(
            named, config, optimizer, self.peaks, decay, betas=self.betas, muon_dtype=muon_dtype,
            rate_scale=lambda name: vector_scale if name in vectors else 1.0,
        )  # fmt: skip

    def keep_bf16_gradients(self, keep: bool) -> None:
        """Whether the gradients of AdamW's matrices stay in the dtype they are computed in: bfloat16 under autocast.

        PyTorch would cast them to float32: a pass over memory that adds no precision. Gradients accumulated over
        several passes need float32. No effect where the C++ core does not do AdamW's step.
        """
        if keep == self._keeps_bf16:
            return
        self._keeps_bf16 = keep
        if not hasattr(Tensor, "grad_dtype") or ops.fused_adamw(self.clipped) is None:
            return
        for p in self.clipped:
            if p.ndim >= 2:
                p.grad_dtype = None if keep else p.dtype

    def step(self, factor: float | Mapping[str, float], step_share: float = 0.0) -> Tensor:
        """Clip and :meth:`update`; returns the norm before clipping."""
        norm = self.clip()
        self.update(factor, step_share)
        return norm

    def clip(self) -> Tensor:
        """Clip the gradients of AdamW's parameters; returns their norm before."""
        adamw = self.parts["adamw"]
        if isinstance(adamw, AdamW):
            return clip(adamw, self.clipped, self.clip_norm)
        return nn.utils.clip_grad_norm_(self.clipped, self.clip_norm or float("inf"))

    def update(self, factor: float | Mapping[str, float], step_share: float = 0.0) -> None:
        """Update at ``factor`` × the peak learning rates and clear the gradients.

        Args:
            factor: of the schedule, or of each optimizer's ("adamw", "muon").
            step_share: share of the budget that a step takes; 0: not known yet.
        """
        self.set_rates(factor, step_share)
        self.apply()

    def set_rates(self, factor: float | Mapping[str, float], step_share: float = 0.0) -> None:
        """Set learning rates and weight decay; arguments as of :meth:`update`."""
        self.peaks, decay = self.rule.at(step_share)
        factors = factor if isinstance(factor, Mapping) else dict.fromkeys(self.parts, factor)
        groups = self._groups()
        rates = {(name, scale): self.peaks[name] * factors[name] * scale for name, scale in groups}
        if self._rates is not None:
            block = torch.empty(len(self._rates), dtype=torch.float32, pin_memory=True)
            block.copy_(torch.tensor([*rates.values(), decay]))
            self._rates.copy_(block, non_blocking=True)
            return
        self._put(groups, rates, decay)

    def _groups(self) -> dict[tuple[str, float], list[dict[str, Any]]]:
        """Optimizer and scale of its rate -> the groups of parameters that have it."""
        found: dict[tuple[str, float], list[dict[str, Any]]] = {}
        for name, optimizer in self.parts.items():
            for group in optimizer.param_groups:
                found.setdefault((name, group.get("scale", 1.0)), []).append(group)
        return found

    @staticmethod
    def _put(
        groups: Mapping[tuple[str, float], list[dict[str, Any]]],
        rates: Mapping[tuple[str, float], float | Tensor],
        decay: float | Tensor,
    ) -> None:
        for key, same in groups.items():
            for group in same:
                group["lr"] = rates[key]
                if group["weight_decay"]:  # biases and LayerNorms keep their 0
                    group["weight_decay"] = decay

    def apply(self) -> None:
        """Update at the rates that are set and clear the gradients."""
        for optimizer in self.parts.values():
            if self.found_inf is not None:
                optimizer.found_inf = self.found_inf  # type: ignore[attr-defined]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def keep_rates_on_device(self, device: torch.device) -> None:
        """From now on the rates are tensors on ``device``: a CUDA graph of :meth:`apply` reads them at each replay."""
        groups = self._groups()
        self._rates = torch.zeros(len(groups) + 1, dtype=torch.float32, device=device)
        *rates, decay = self._rates.unbind()
        self._put(groups, dict(zip(groups, rates, strict=True)), decay)
        for optimizer in self.parts.values():
            if isinstance(optimizer, AdamW):
                for group in optimizer.param_groups:
                    group["capturable"] = True
            optimizer._warned_capturable_if_run_uncaptured = True  # type: ignore[attr-defined]  # steps outside are meant

    def state_tensors(self) -> dict[str, Tensor]:
        """As :func:`state_tensors`, for a checkpoint."""
        return state_tensors(self.parts)

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """As :func:`load_state_tensors`."""
        load_state_tensors(self.parts, tensors)


def state_tensors(parts: Mapping[str, torch.optim.Optimizer]) -> dict[str, Tensor]:
    """All state tensors of optimizers by their names, named ``optimizer/parameter/key``."""
    return {
        f"{part}/{name}/{key}": value
        for part, optimizer in parts.items()
        for name, parameter in _named(optimizer)
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def load_state_tensors(parts: Mapping[str, torch.optim.Optimizer], tensors: Mapping[str, Tensor]) -> None:
    """Load what :func:`state_tensors` returned.

    Raises:
        KeyError: a tensor belongs to no parameter of this model.
    """
    homes = {
        f"{part}/{name}": (optimizer, parameter)
        for part, optimizer in parts.items()
        for name, parameter in _named(optimizer)
    }
    for path, tensor in tensors.items():
        home, _, key = path.rpartition("/")
        optimizer, parameter = homes[home]
        state = optimizer.state[parameter]
        if key in state:  # CUDA graphs have its address
            state[key].copy_(tensor)
        else:  # fused AdamW's counter too is on the device, and CUDA's step takes no other
            state[key] = tensor.to(parameter.device)


def build_optimizers(
    named: Sequence[tuple[str, nn.Parameter]],
    config: BertConfig,
    optimizer: str,
    peaks: Mapping[str, float],
    weight_decay: float,
    *,
    betas: tuple[float, float] = (DEFAULT_BETA1, DEFAULT_BETA2),
    eps: float = 1e-6,
    muon_dtype: torch.dtype = torch.bfloat16,
    rate_scale: Callable[[str], float] = lambda name: 1.0,
) -> dict[str, torch.optim.Optimizer]:
    """AdamW, and Muon for the matrices of the encoder layers if ``optimizer`` is "muon"; biases and gains do not decay.

    Args:
        named: parameters, by their names in the encoder.
        peaks: learning rate of "adamw" and of "muon".
        weight_decay: of matrices and embeddings.
        betas, eps: of AdamW.
        muon_dtype: of Muon's iteration.
        rate_scale: factor of a parameter's learning rate, by its name; Muon has an optimizer for each.
    """
    hidden, rest = split_param_groups(named, optimizer)

    def by_scale(parameters: list[tuple[str, nn.Parameter]]) -> dict[float, list[tuple[str, nn.Parameter]]]:
        groups: dict[float, list[tuple[str, nn.Parameter]]] = {}
        for name, parameter in parameters:
            groups.setdefault(rate_scale(name), []).append((name, parameter))
        return groups

    groups = [
        {"params": parameters, "weight_decay": decay, "lr": peaks["adamw"] * scale, "scale": scale}
        for decay, is_matrix in ((weight_decay, True), (0.0, False))
        for scale, parameters in by_scale([(n, p) for n, p in rest if (p.ndim >= 2) == is_matrix]).items()
    ]
    built: dict[str, torch.optim.Optimizer] = {
        "adamw": AdamW(groups, lr=peaks["adamw"], betas=betas, eps=eps, fused=True)
    }
    parts = {name: fused_projections(name, config) for name, _ in hidden}
    for scale, parameters in by_scale(hidden).items():
        built["muon" if scale == 1.0 else f"muon × {scale:g}"] = Muon(
            parameters, parts, lr=peaks["muon"] * scale, weight_decay=weight_decay, dtype=muon_dtype
        )
    return built


def _named(optimizer: torch.optim.Optimizer) -> Iterable[tuple[str, nn.Parameter]]:
    for group in optimizer.param_groups:
        yield from zip(group["param_names"], group["params"], strict=True)
