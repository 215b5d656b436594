"""Probes of a trained model on unseen text: which words does it predict, and which sentences does it prefer?

Three probes, fast enough for the end of every run: masked accuracy by token frequency, masked accuracy by position in
the word, and minimal pairs: is a sentence more probable than the same sentence with two words swapped, or with all
words shuffled? (Pseudo-log-likelihoods of the same tokens; chance is 50 %.)

References: Salazar et al., Masked Language Model Scoring, 2020; Kauf & Ivanova 2023; Warstadt et al., BLiMP, 2020.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from fastbert.batch import PackedBatch
from fastbert.bert import Bert
from fastbert.text.detokenize import group_words

RANK_BANDS = (100, 1_000, 4_000)  # tokens by frequency: the 100 most frequent, up to the 1,000th …
WORD_PARTS = ("whole", "first", "continuation")
SWAPPED, SHUFFLED = "two words exchanged", "all words shuffled"  # as in metrics.jsonl and run.json
NUM_PAIRS = 100  # of each kind, if time allows
MAX_PAIRS = 500  # of each kind, if a budget of minutes has time left
PAIRS_S = 3.0  # time for the minimal pairs of a run without a budget of minutes
EXIT_S = 0.8  # reserved for the command's last output and the end of the process
PAIRS_PER_GROUP = 5  # scored between looks at the clock
MAX_PROBE_TOKENS_SHARE = 1 / 8  # of the last evaluation's tokens, for the masked accuracies


@dataclass(frozen=True)
class Band:
    """Masked tokens of one kind."""

    name: str
    tokens: int
    accuracy: float
    loss: float  # nats per token


@dataclass(frozen=True)
class Pairs:
    """Minimal pairs of one kind."""

    name: str
    pairs: int
    preferred: float  # share of pairs in which the original is more probable

    @property
    def shown(self) -> str:
        return "two words swapped" if self.name == SWAPPED else self.name


@dataclass(frozen=True)
class Probes:
    """Results of the probes; empty lists where the text has nothing to probe."""

    by_frequency: list[Band]
    by_part: list[Band]
    pairs: list[Pairs]

    def record(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def scalars(self) -> dict[str, float]:
        """Flat numbers for metrics.jsonl and TensorBoard."""
        bands = {f"accuracy_{_key(b.name)}": b.accuracy for b in (*self.by_frequency, *self.by_part)}
        return bands | {f"prefers_real_{_key(p.name)}": p.preferred for p in self.pairs}

    def __str__(self) -> str:
        lines = []
        for title, bands in (("by frequency", self.by_frequency), ("by part of word", self.by_part)):
            if bands:
                found = "   ".join(f"{b.name} {b.accuracy:.1%}" for b in bands)
                lines.append(f"masked accuracy {title}:  {found}")
        if self.pairs:
            found = "   ".join(f"{p.shown} {p.preferred:.0%} (n = {p.pairs})" for p in self.pairs)
            lines.append(f"prefers the original over:  {found}")
        return "\n".join(lines)


def probe(
    bert: Bert,
    batches: Iterable[PackedBatch],
    sentences: Sequence[Sequence[int]],
    counts: NDArray[np.int64],
    *,
    ends_in_s: Callable[[], float | None] = lambda: None,
    autocast: AbstractContextManager | None = None,
) -> Probes:
    """Run all probes.

    Args:
        bert: the model.
        batches: masked, with labels, of unseen text.
        sentences: of unseen text, as token ids without special tokens.
        counts: (V,) occurrences of each token in the corpus: :func:`fastbert.data.store.token_store.token_counts`.
        ends_in_s: seconds until the command should end, called before the minimal pairs: as many are scored as that
            time allows, so that the command ends on time; None: :data:`NUM_PAIRS` in :data:`PAIRS_S`.
        autocast: arithmetic for the batches.
    """
    by_frequency, by_part = masked_accuracy(bert, batches, counts, autocast)
    left_s = ends_in_s()
    if left_s is None:
        return Probes(by_frequency, by_part, minimal_pairs(bert, sentences))
    pairs = minimal_pairs(bert, sentences, count=MAX_PAIRS, seconds=left_s - EXIT_S)
    return Probes(by_frequency, by_part, pairs)


@torch.no_grad()
def masked_accuracy(
    bert: Bert,
    batches: Iterable[PackedBatch],
    counts: NDArray[np.int64],
    autocast: AbstractContextManager | None = None,
) -> tuple[list[Band], list[Band]]:
    """Accuracy and loss on masked tokens, by frequency band and by part of the word."""
    device = bert.model.device
    continues = np.asarray(bert.tokenizer.is_continuation).astype(bool)
    rank = np.empty(len(counts), np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    rows: list[tuple[NDArray, ...]] = []  # rank, part, right, loss of each masked token
    was_training = bert.model.training
    bert.model.eval()
    for batch in batches:
        assert batch.labels is not None
        moved = batch.to(device)
        assert moved.labels is not None
        with autocast or nullcontext():
            logits = bert.model(
                dataclasses.replace(moved, labels=None, next_sentence_label=None)
            ).prediction_logits.float()  # (M, V)
        loss = F.cross_entropy(logits, moved.labels, reduction="none").cpu().numpy()
        right = (logits.argmax(-1) == moved.labels).cpu().numpy()
        labels = batch.labels.cpu().numpy()
        rows.append((rank[labels], _parts(batch, continues), right, loss))
    bert.model.train(was_training)
    if not rows or not sum(len(row[0]) for row in rows):
        return [], []
    ranks, part, right, loss = (np.concatenate(columns) for columns in zip(*rows, strict=True))
    edges = [0, *(edge for edge in RANK_BANDS if edge < len(counts)), len(counts)]
    by_frequency = [
        _band(f"{low + 1:,}–{high:,}", (ranks >= low) & (ranks < high), right, loss) for low, high in pairwise(edges)
    ]
    by_part = [_band(name, part == number, right, loss) for number, name in enumerate(WORD_PARTS)]
    return [b for b in by_frequency if b.tokens], [b for b in by_part if b.tokens]


def _band(name: str, chosen: NDArray, right: NDArray, loss: NDArray) -> Band:
    count = int(chosen.sum())
    mean = chosen / max(count, 1)
    return Band(name, count, float(mean @ right), float(mean @ loss))


def _parts(batch: PackedBatch, continues: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each masked token: 0 a whole word, 1 the first token of a word, 2 a later one."""
    assert batch.masked_index is not None and batch.labels is not None
    original = batch.input_ids.cpu().numpy().copy()
    index, labels = batch.masked_index.cpu().numpy(), batch.labels.cpu().numpy()
    original[index] = labels
    # a sequence ends with [SEP], which continues nothing, so the next token is never of another sequence's word
    following = np.append(continues[original[1:]], False)
    return np.where(continues[labels], 2, following[index].astype(np.int64))


def minimal_pairs(
    bert: Bert, sentences: Sequence[Sequence[int]], *, count: int = NUM_PAIRS, seconds: float = PAIRS_S, seed: int = 0
) -> list[Pairs]:
    """Share of sentences that the model finds more probable than the same words out of order.

    Args:
        bert: the model.
        sentences: token ids without special tokens; those of 6 to 40 tokens are used.
        count: pairs of each kind.
        seconds: time limit, to within half a group; at least one group of each kind is scored.
        seed: of the choice of sentences and words.
    """
    began_s, took_s = time.monotonic(), 0.0
    made = make_pairs(bert, sentences, count, seed)
    wins: dict[str, list[bool]] = {name: [] for name in made}
    for start in range(0, count, PAIRS_PER_GROUP):
        group_began_s = time.monotonic()
        # a group is started if half of it fits, so the end is at most half a group early or late
        if start and group_began_s - began_s + took_s / 2 > seconds:
            break
        for name, pairs in made.items():
            group = pairs[start : start + PAIRS_PER_GROUP]
            if group:
                scores = bert.score([text for pair in group for text in pair])
                wins[name] += [real > other for real, other in zip(scores[::2], scores[1::2], strict=True)]
        took_s = time.monotonic() - group_began_s
    return [Pairs(name, len(won), sum(won) / len(won)) for name, won in wins.items() if won]


def make_pairs(
    bert: Bert, sentences: Sequence[Sequence[int]], count: int, seed: int = 0
) -> dict[str, list[tuple[str, str]]]:
    """(original, the same tokens out of order), ``count`` of each kind if there are enough sentences."""
    tokenizer, random = bert.tokenizer, np.random.default_rng(seed)
    pairs: dict[str, list[tuple[str, str]]] = {SWAPPED: [], SHUFFLED: []}
    longest = min(40, bert.model.config.max_position_embeddings - 2)
    for index in random.permutation(len(sentences)):
        ids = list(sentences[index])
        if not 6 <= len(ids) <= longest or tokenizer.unk_id in ids:
            continue
        words = group_words(ids, tokenizer.is_continuation)
        movable = [i for i, word in enumerate(words) if (tokenizer.id_to_token(word[0]) or "")[:1].isalpha()]
        if len({tuple(words[i]) for i in movable}) < 4:
            continue
        for name, changed in (
            (SWAPPED, _swap(words, movable, random)),
            (SHUFFLED, _shuffle(words, movable, random)),
        ):
            if len(pairs[name]) < count:
                other = [token for word in changed for token in word]
                pairs[name].append((tokenizer.decode(ids), tokenizer.decode(other)))
        if all(len(made) == count for made in pairs.values()):
            break
    return pairs


def _swap(words: list[list[int]], movable: list[int], random: np.random.Generator) -> list[list[int]]:
    """Swap two different words; punctuation stays in place."""
    while True:
        first, second = (movable[i] for i in random.choice(len(movable), size=2, replace=False))
        if words[first] != words[second]:
            changed = list(words)
            changed[first], changed[second] = words[second], words[first]
            return changed


def _shuffle(words: list[list[int]], movable: list[int], random: np.random.Generator) -> list[list[int]]:
    """Shuffle the words; punctuation stays in place."""
    while True:
        order = random.permutation(movable)
        changed = list(words)
        for position, source in zip(movable, order, strict=True):
            changed[position] = words[source]
        if changed != words:
            return changed


def _key(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name.replace(",", ""))
