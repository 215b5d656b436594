"""Changes to a training that are no option of the command, tried before they might become one."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from fastbert.data import BatchLoader, split_documents
from fastbert.optim import muon
from fastbert.training.trainer import Trainer


@contextmanager
def apply(variant: dict[str, Any], trainer: Trainer) -> Iterator[None]:
    """Train and evaluate with ``trainer`` changed as ``variant`` says."""
    with ExitStack() as stack:
        for name, value in variant.items():
            stack.enter_context(KNOWN[name](trainer, value))
        yield


@contextmanager
def newton_schulz(trainer: Trainer, steps: int) -> Iterator[None]:
    """So many iterations of Muon's."""
    trainer.optimizers.parts["muon"].param_groups[0]["steps"] = steps
    yield


def best_quintic(low: float, high: float) -> tuple[float, float, float]:
    """The a x + b x³ + c x⁵ nearest to 1 on [low, high] in the largest distance: Remez, four points of equal error."""
    points = np.linspace(low, high, 4)
    signs = np.array([1.0, -1.0, 1.0, -1.0])
    a = b = c = 0.0
    for _ in range(100):
        system = np.stack([points, points**3, points**5, signs], axis=1)
        a, b, c, _ = np.linalg.solve(system, np.ones(4))
        # extremes inside: roots of a + 3 b x² + 5 c x⁴
        inside = np.sqrt(np.roots([5 * c, 3 * b, a]).real.clip(low**2, high**2))
        moved = np.array([low, *sorted(inside), high])
        if np.allclose(moved, points, rtol=1e-9):
            break
        points = moved
    return a, b, c


def polar_coefficients(steps: int, low: float = 1e-3) -> list[tuple[float, float, float]]:
    """A quintic for each iteration, each the best for what those before it leave (Amsel et al., The Polar Express,
    2025), for singular values from ``low`` to 1; a hundredth of room for the roundings of bf16, but for the last."""
    high, found = 1.0, []
    for step in range(steps):
        a, b, c = best_quintic(low, high)
        x = np.linspace(low, high, 10_001)
        values = a * x + b * x**3 + c * x**5
        low, high = values.min(), values.max()
        room = 1.01 if step < steps - 1 else 1.0
        found.append((a / room, b / room**3, c / room**5))
    return found


@contextmanager
def polar_express(trainer: Trainer, steps: int) -> Iterator[None]:
    """So many iterations, each with coefficients of its own."""
    coefficients = polar_coefficients(steps)

    def orthogonalise(matrices: Tensor, steps: int = 5, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        x = matrices.to(dtype)
        x = x / (1.01 * x.norm(dim=(-2, -1), keepdim=True)).clamp(min=1e-7)
        for a, b, c in coefficients:
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        return x

    # the core's fused step knows one set of coefficients only
    with (
        mock.patch.object(muon.ops, "fused_muon", lambda parameters: None),
        mock.patch.object(muon, "orthogonalise", orthogonalise),
    ):
        yield


@contextmanager
def unigram_bias(trainer: Trainer, on: bool) -> Iterator[None]:
    """Begin with the decoder's bias at the logarithm of how often each piece comes, one added."""
    vocab_size, store = trainer.model.config.vocab_size, trainer.loader.store
    ids = np.asarray(store.gather([0], [store.num_tokens]))
    counts = np.bincount(ids, minlength=vocab_size)[:vocab_size] + 1.0
    with torch.no_grad():
        trainer.model.head.bias[:vocab_size] = torch.from_numpy(np.log(counts / counts.sum())).float()
    yield


@contextmanager
def memory(trainer: Trainer, share: float) -> Iterator[None]:
    """Matrices forget what they were over this share of the budget."""
    trainer.optimizers.rule = replace(trainer.optimizers.rule, decay_timescale=share)
    yield


@contextmanager
def start(trainer: Trainer, how: str) -> Iterator[None]:
    """Begin as before heads began at their neighbours: "random", or "sinusoids" for learned positions."""
    model = trainer.model
    with mock.patch("fastbert.model.init_neighbor_heads"):
        model.reset_parameters()
    if how == "sinusoids":
        table = model.embeddings.position.weight
        frequencies = 10_000.0 ** -(torch.arange(0, table.shape[1], 2) / table.shape[1])
        angles = torch.arange(len(table))[:, None] * frequencies
        scale = 2.5 * 2**0.5 * model.config.initializer_range  # 2.5 times as large as the words
        with torch.no_grad():
            table.copy_(scale * torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, : table.shape[1]])
    yield


@contextmanager
def ema(trainer: Trainer, decay: float) -> Iterator[None]:
    """Evaluate, at the end and on the way, the exponential mean of the weights."""
    parameters = list(trainer.model.parameters())
    means = [p.detach().clone() for p in parameters]
    update, evaluate = trainer.optimizers.update, trainer.evaluate

    @torch.no_grad()
    def update_and_follow(factor: float, step_share: float) -> None:
        update(factor, step_share)
        now = min(decay, (1 + trainer.step) / (10 + trainer.step))  # the first steps must not weigh for ever
        torch._foreach_lerp_(means, [p.detach() for p in parameters], 1 - now)

    @torch.no_grad()
    def exchange() -> None:
        for p, mean in zip(parameters, means, strict=True):
            kept = p.detach().clone()
            p.copy_(mean)
            mean.copy_(kept)

    def evaluate_means(batches: Any) -> Any:
        exchange()
        try:
            return evaluate(batches)
        finally:
            exchange()

    with (
        mock.patch.object(trainer.optimizers, "update", update_and_follow),
        mock.patch.object(trainer, "evaluate", evaluate_means),
    ):
        yield


@contextmanager
def short_first(trainer: Trainer, text: str) -> Iterator[None]:
    """LENGTH:SHARE: sequences of no more than LENGTH tokens in the first SHARE of the budget."""
    length, share = text.split(":")
    long, tokenizer = trainer.loader, trainer.loader.tokenizer
    spans = split_documents(long.store).train  # as the command splits by default
    short = BatchLoader(
        long.store, spans, tokenizer, batch_tokens=long.plan.batch_tokens, max_length=int(length), seed=long.seed
    )
    train_step = trainer.train_step

    def step(progress: float) -> None:
        trainer.loader = short if progress < float(share) else long
        train_step(progress)

    with mock.patch.object(trainer, "train_step", step):
        yield
    short.close()


@contextmanager
def beta2(trainer: Trainer, value: float) -> Iterator[None]:
    """AdamW's mean of squares over another time."""
    for group in trainer.optimizers.parts["adamw"].param_groups:
        group["betas"] = group["betas"][0], value
    yield


@contextmanager
def momentum(trainer: Trainer, value: float) -> Iterator[None]:
    """Another momentum of Muon's."""
    trainer.optimizers.parts["muon"].param_groups[0]["momentum"] = value
    yield


@contextmanager
def split_cooldown(trainer: Trainer, decays: tuple[float, float]) -> Iterator[None]:
    """Muon's and AdamW's learning rates fall over shares of the budget of their own."""
    muon, adamw = (replace(trainer.plan.schedule, decay=decay) for decay in decays)
    with mock.patch.object(trainer, "plan", replace(trainer.plan, schedule=adamw, muon_schedule=muon)):
        yield


KNOWN = {
    "newton_schulz": newton_schulz,
    "polar_express": polar_express,
    "unigram_bias": unigram_bias,
    "memory": memory,
    "start": start,
    "ema": ema,
    "short_first": short_first,
    "beta2": beta2,
    "momentum": momentum,
    "split_cooldown": split_cooldown,
}
