"""Loss and accuracy of a model on held-out text."""

import dataclasses
import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbert.batch import PackedBatch
from fastbert.model import BertForPreTraining


@dataclass(frozen=True)
class Evaluation:
    """Metrics of an evaluation text: means over masked tokens and over sentence pairs."""

    loss: float  # nats per masked token
    accuracy: float  # share of masked tokens predicted correctly
    masked_tokens: int
    next_sentence_accuracy: float | None = None
    sentence_pairs: int = 0
    # diffusion only: nats per token, an upper bound on the negative log-likelihood (Sahoo et al. 2024)
    diffusion_bound: float | None = None

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss, 700.0))

    @property
    def perfect(self) -> bool:
        """Whether every prediction is correct."""
        return self.accuracy == 1.0 and self.next_sentence_accuracy in (None, 1.0)

    def record(self) -> dict[str, float | int | None]:
        return dataclasses.asdict(self) | {"perplexity": self.perplexity}

    def __str__(self) -> str:
        perplexity = f"{self.perplexity:,.1f}" if self.perplexity < 1e9 else f"{self.perplexity:.3g}"
        text = f"loss {self.loss:.3f}  perplexity {perplexity}  masked accuracy {self.accuracy:.1%}"
        if self.next_sentence_accuracy is not None:
            text += f"  next-sentence accuracy {self.next_sentence_accuracy:.1%}"
        if self.diffusion_bound is not None:
            text += f"  diffusion bound {self.diffusion_bound:.3f}"
        return text


@torch.no_grad()
def evaluate(
    model: BertForPreTraining,
    batches: Iterable[PackedBatch],
    autocast: AbstractContextManager | None = None,
    device: torch.device | str = "cpu",
    total: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> Evaluation:
    """Score masked batches; the model is left in the mode it was in.

    Args:
        model: to be scored.
        batches: masked; this rank's share of them. Those with label weights count for the diffusion bound only.
        autocast: precision; None: that of the weights.
        device: of the model.
        total: sums a float64 tensor over the ranks.
    """
    was_training = model.training
    model.eval()
    loss, right, count, pairs_right, pairs = 0.0, 0, 0, 0, 0
    bound, weight = 0.0, 0.0
    for batch in batches:
        batch = batch.to(device)
        assert batch.labels is not None
        # without labels the model returns the logits of masked tokens and no loss
        with autocast or nullcontext():
            out = model(dataclasses.replace(batch, labels=None, next_sentence_label=None))
        logits = out.prediction_logits.float()  # (M, V)
        if batch.label_weights is not None:
            each = F.cross_entropy(logits, batch.labels, reduction="none")
            bound += (each * batch.label_weights).sum().item()
            weight += batch.label_weights.sum().item()
            continue
        loss += F.cross_entropy(logits, batch.labels, reduction="sum").item()
        right += int((logits.argmax(-1) == batch.labels).sum())
        count += batch.labels.shape[0]
        if batch.next_sentence_label is not None:
            labelled = batch.next_sentence_label != -100
            predicted = out.seq_relationship_logits.argmax(-1)
            pairs_right += int((predicted == batch.next_sentence_label)[labelled].sum())
            pairs += int(labelled.sum())
    model.train(was_training)
    sums = total(torch.tensor([loss, bound, weight, right, count, pairs_right, pairs], dtype=torch.float64)).tolist()
    (loss, bound, weight), (right, count, pairs_right, pairs) = sums[:3], map(int, sums[3:])
    return Evaluation(
        loss=loss / max(count, 1),
        accuracy=right / max(count, 1),
        masked_tokens=count,
        next_sentence_accuracy=pairs_right / pairs if pairs else None,
        sentence_pairs=pairs,
        diffusion_bound=bound / weight if weight else None,
    )
