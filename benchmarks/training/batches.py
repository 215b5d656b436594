"""The batches every contestant trains on, and what they are worth in useful floating-point operations.

Line lengths are drawn from a file of measured lengths where one is given, else from a log-normal distribution with the
same median and mean as English reference text (43 and 61 tokens), cut at the batch's length.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

MEASURED = Path(__file__).resolve().parents[3] / "shared" / "peers" / "line_lengths.npy"
PAD, CLS, SEP, MASK, FIRST_WORD = 0, 2, 3, 4, 5
MASK_RATE = 0.15


@dataclass(frozen=True)
class Shape:
    """A model and a batch: layers, width, heads, vocabulary, rows a batch, tokens a row."""

    layers: int
    width: int
    heads: int
    vocab_size: int
    rows: int
    length: int = 128

    @property
    def intermediate(self) -> int:
        return 4 * self.width


SHAPES = {
    "mini-8k": Shape(4, 256, 4, 8192, 32),
    "mini-30k": Shape(4, 256, 4, 30522, 32),
    "small-30k": Shape(4, 512, 8, 30522, 32),
    "base-30k": Shape(12, 768, 12, 30522, 8),
    "base-30k-32-rows": Shape(12, 768, 12, 30522, 32),  # as many as the others; a window is over a minute
}


@dataclass(frozen=True)
class Batch:
    """Padded to its longest row, as a collator does. B rows, L columns."""

    input_ids: np.ndarray  # (B, L) int64
    attention_mask: np.ndarray  # (B, L) int64, 1 = real
    labels: np.ndarray  # (B, L) int64, -100 where nothing is asked
    lengths: np.ndarray  # (B,)

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum())

    @property
    def masked(self) -> int:
        return int((self.labels >= 0).sum())


def line_lengths() -> tuple[np.ndarray, str]:
    """Tokens of each line, and where the numbers come from."""
    if MEASURED.is_file():
        return np.load(MEASURED), f"measured ({MEASURED.name})"
    drawn = np.random.default_rng(7).lognormal(np.log(43.0), np.sqrt(2 * np.log(61.0 / 43.0)), 100_000)
    return np.maximum(drawn.astype(np.int64), 3), "log-normal, median 43, mean 61"


def make_batches(shape: Shape, count: int, full: bool) -> tuple[list[Batch], str]:
    """``count`` batches whose share of padding is close to the distribution's (of 64 drawn), and their description."""
    random = np.random.default_rng(0)
    if full:
        return [_batch(shape, random, np.full(shape.rows, shape.length)) for _ in range(count)], "all of full length"
    lengths, source = line_lengths()
    drawn = [_batch(shape, random, np.clip(random.choice(lengths, shape.rows), 3, shape.length)) for _ in range(64)]

    def slots(batches) -> float:
        return sum(b.input_ids.size for b in batches) / sum(b.tokens for b in batches)

    choices = [sorted(random.choice(64, count, replace=False)) for _ in range(500)]
    best = min(choices, key=lambda picked: abs(slots([drawn[i] for i in picked]) - slots(drawn)))
    chosen = [drawn[i] for i in best]
    return chosen, f"lengths {source}, {slots(chosen):.2f} slots a real token"


def _batch(shape: Shape, random: np.random.Generator, lengths: np.ndarray) -> Batch:
    longest = int(lengths.max())
    real = np.arange(longest)[None] < lengths[:, None]
    ids = np.where(real, random.integers(FIRST_WORD, shape.vocab_size, real.shape), PAD)
    last = np.arange(len(lengths)), lengths - 1
    ids[:, 0], ids[last] = CLS, SEP
    chosen = real & (random.random(real.shape) < MASK_RATE)
    chosen[:, 0], chosen[last] = False, False
    labels = np.where(chosen, ids, -100)
    ids = np.where(chosen & (random.random(real.shape) < 0.8), MASK, ids)
    return Batch(ids, real.astype(np.int64), labels, lengths)


def useful_flops(shape: Shape, batch: Batch) -> float:
    """A training step without waste: real tokens only, the head at masked positions only, backward twice forward.

    A token costs 2·(4D² + 2DF) a layer, attention 4·D·l² a row of length l, a masked position 2·(D² + D·V).
    """
    d, f, v = shape.width, shape.intermediate, shape.vocab_size
    dense = batch.tokens * shape.layers * 2 * (4 * d * d + 2 * d * f)
    attention = shape.layers * 4 * d * float((batch.lengths.astype(np.float64) ** 2).sum())
    head = batch.masked * 2 * (d * d + d * v)
    return 3 * (dense + attention + head)
