"""Questions to a trained model about text it has not seen, beyond one number: which words does it know, which not?

Three probes, quick enough for the end of every run: masked accuracy by how frequent a piece is and by its part of the
word, and minimal pairs: does the model find a sentence likelier than the same sentence with two words exchanged, or
with all its words in another order? (Pseudo-log-likelihoods of the same tokens; chance is 50 %.)

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

RANK_BANDS = (100, 1_000, 4_000)  # pieces by frequency: the 100 most frequent, to the 1,000th …
PARTS = ("whole", "first", "continuation")
EXCHANGED, SHUFFLED = "two words exchanged", "all words shuffled"
PAIRS = 100  # of each kind, where the time allows
MOST_PAIRS = 500  # of each kind, where a budget of minutes has time left
SECONDS = 3.0  # for the minimal pairs of a run without a budget of minutes
EXIT_S = 0.8  # for what the command still prints, and the end of the process
GROUP = 5  # pairs scored between looks at the clock
SHARE = 1 / 8  # of the last evaluation's tokens, for the masked accuracies


@dataclass(frozen=True)
class Band:
    """Masked tokens of one kind."""

    name: str
    tokens: int
    accuracy: float  # guessed right at once
    loss: float  # nats per token


@dataclass(frozen=True)
class Pairs:
    """Minimal pairs of one kind."""

    name: str
    pairs: int
    preferred: float  # share in which the real sentence is likelier


@dataclass(frozen=True)
class Probes:
    """What the probes found; empty lists where the text gave nothing to ask."""

    by_frequency: list[Band]
    by_part: list[Band]
    pairs: list[Pairs]

    def record(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def scalars(self) -> dict[str, float]:
        """Flat, for metrics.jsonl and TensorBoard."""
        bands = {f"accuracy_{_key(b.name)}": b.accuracy for b in (*self.by_frequency, *self.by_part)}
        return bands | {f"prefers_real_{_key(p.name)}": p.preferred for p in self.pairs}

    def __str__(self) -> str:
        lines = []
        for title, bands in (("by frequency", self.by_frequency), ("by part of word", self.by_part)):
            if bands:
                found = "   ".join(f"{b.name} {b.accuracy:.1%}" for b in bands)
                lines.append(f"masked accuracy {title}:  {found}")
        if self.pairs:
            found = "   ".join(f"{p.name} {p.preferred:.0%} of {p.pairs}" for p in self.pairs)
            lines.append(f"prefers the real sentence to one with:  {found}")
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
    """Ask everything.

    Args:
        bert: the model.
        batches: masked, with labels, of unseen text.
        sentences: of unseen text, as token ids without special tokens.
        counts: (V,) how often each piece is in the corpus: :func:`fastbert.data.store.token_store.token_counts`.
        ends_in_s: seconds until the command should be over, asked when the minimal pairs begin: as many are scored as
            that time allows, so that the command neither ends early nor late; None: :data:`PAIRS` in :data:`SECONDS`.
        autocast: arithmetic for the batches.
    """
    by_frequency, by_part = masked_accuracy(bert, batches, counts, autocast)
    left_s = ends_in_s()
    if left_s is None:
        return Probes(by_frequency, by_part, minimal_pairs(bert, sentences))
    pairs = minimal_pairs(bert, sentences, count=MOST_PAIRS, seconds=left_s - EXIT_S)
    return Probes(by_frequency, by_part, pairs)


@torch.no_grad()
def masked_accuracy(
    bert: Bert,
    batches: Iterable[PackedBatch],
    counts: NDArray[np.int64],
    autocast: AbstractContextManager | None = None,
) -> tuple[list[Band], list[Band]]:
    """Accuracy and loss on masked tokens, by frequency band and by part of word."""
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
    by_part = [_band(name, part == number, right, loss) for number, name in enumerate(PARTS)]
    return [b for b in by_frequency if b.tokens], [b for b in by_part if b.tokens]


def _band(name: str, chosen: NDArray, right: NDArray, loss: NDArray) -> Band:
    count = int(chosen.sum())
    mean = chosen / max(count, 1)
    return Band(name, count, float(mean @ right), float(mean @ loss))


def _parts(batch: PackedBatch, continues: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each masked token 0 a whole word, 1 the first piece of one, 2 a later piece."""
    assert batch.masked_index is not None and batch.labels is not None
    original = batch.input_ids.cpu().numpy().copy()
    index, labels = batch.masked_index.cpu().numpy(), batch.labels.cpu().numpy()
    original[index] = labels
    # a sequence ends with [SEP], which continues nothing, so the next token is never of another sequence's word
    following = np.append(continues[original[1:]], False)
    return np.where(continues[labels], 2, following[index].astype(np.int64))


def minimal_pairs(
    bert: Bert, sentences: Sequence[Sequence[int]], *, count: int = PAIRS, seconds: float = SECONDS, seed: int = 0
) -> list[Pairs]:
    """Share of sentences that the model finds likelier than themselves with words out of place.

    Args:
        bert: the model.
        sentences: token ids without special tokens; those of 6 to 40 tokens are used.
        count: pairs of each kind.
        seconds: no further pairs are scored after this time, within half a group (at least a group of each kind is).
        seed: of the choice of sentences and words.
    """
    began_s, took_s = time.monotonic(), 0.0
    made = make_pairs(bert, sentences, count, seed)
    wins: dict[str, list[bool]] = {name: [] for name in made}
    for start in range(0, count, GROUP):
        group_began_s = time.monotonic()
        # a group is begun where half of it fits: the end is then half a group early or late
        if start and group_began_s - began_s + took_s / 2 > seconds:
            break
        for name, pairs in made.items():
            group = pairs[start : start + GROUP]
            if group:
                scores = bert.score([text for pair in group for text in pair])
                wins[name] += [real > other for real, other in zip(scores[::2], scores[1::2], strict=True)]
        took_s = time.monotonic() - group_began_s
    return [Pairs(name, len(won), sum(won) / len(won)) for name, won in wins.items() if won]


def make_pairs(
    bert: Bert, sentences: Sequence[Sequence[int]], count: int, seed: int = 0
) -> dict[str, list[tuple[str, str]]]:
    """(real sentence, the same tokens out of place), ``count`` of each kind where there are so many sentences."""
    tokenizer = bert.tokenizer
    continues = np.asarray(tokenizer.is_continuation).astype(bool)
    random = np.random.default_rng(seed)
    pairs: dict[str, list[tuple[str, str]]] = {EXCHANGED: [], SHUFFLED: []}
    longest = min(40, bert.model.config.max_position_embeddings - 2)
    for index in random.permutation(len(sentences)):
        ids = list(sentences[index])
        if not 6 <= len(ids) <= longest or tokenizer.unk_id in ids:
            continue
        words = _words(ids, continues)
        movable = [i for i, word in enumerate(words) if (tokenizer.id_to_token(word[0]) or "")[:1].isalpha()]
        if len({tuple(words[i]) for i in movable}) < 4:
            continue
        for name, changed in (
            (EXCHANGED, _exchange(words, movable, random)),
            (SHUFFLED, _shuffle(words, movable, random)),
        ):
            if len(pairs[name]) < count:
                other = [token for word in changed for token in word]
                pairs[name].append((tokenizer.decode(ids), tokenizer.decode(other)))
        if all(len(made) == count for made in pairs.values()):
            break
    return pairs


def _words(ids: Sequence[int], continues: NDArray[np.bool_]) -> list[list[int]]:
    words: list[list[int]] = []
    for token in ids:
        if words and continues[token]:
            words[-1].append(token)
        else:
            words.append([token])
    return words


def _exchange(words: list[list[int]], movable: list[int], random: np.random.Generator) -> list[list[int]]:
    """Two different words change places; punctuation stays where it is."""
    while True:
        first, second = (movable[i] for i in random.choice(len(movable), size=2, replace=False))
        if words[first] != words[second]:
            changed = list(words)
            changed[first], changed[second] = words[second], words[first]
            return changed


def _shuffle(words: list[list[int]], movable: list[int], random: np.random.Generator) -> list[list[int]]:
    """The words in another order; punctuation stays where it is."""
    while True:
        order = random.permutation(movable)
        changed = list(words)
        for place, source in zip(movable, order, strict=True):
            changed[place] = words[source]
        if changed != words:
            return changed


def _key(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name.replace(",", ""))
