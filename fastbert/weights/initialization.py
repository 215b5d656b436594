"""Initialization: some attention heads start as neighbor heads, which attend to the previous or the next token.

From random weights an encoder learns token frequencies and then, for hundreds of steps, little else: its heads average
over the whole sequence before they find that a mask's neighbors predict it best. Trained BERTs have such heads (Clark
et al., What Does BERT Look At?, 2019), and they can be there from the start (Raganato et al., Fixed Encoder
Self-Attention Patterns, 2020; d'Ascoli et al., ConViT, 2021). Nothing is fixed here: only the initial weights are set.

A position p is encoded as the angles p·f, one pair of channels for each frequency f. If query and key hold such angles,
their score is a sum of cos((p + offset - q)·f), largest for the key at position q = p + offset.

* Rotary positions rotate queries and keys by p·f already: a constant query and a constant key suffice. They are the
  biases; without biases all words share one direction that the projections can read.
* Learned positions start as the angles, in channels that the words leave free for the projections to read.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fastbert.config import BertConfig
from fastbert.reference import rotary, rotary_tables

if TYPE_CHECKING:
    from fastbert.layers import Embeddings, Encoder

OFFSETS = (-1, 1)
PEAK = 60.0  # score of the neighbor; far from it the scores are about 0
PEAK_OF_POSITIONS = 200.0  # the same for learned positions, which layers mix with words
COMMON = 2.0  # length of the shared direction, relative to a word
POSITIONS = 1.5  # length of a position, relative to a word
POSITION_THETA = 10.0  # wavelengths of about 6 to 60 tokens: short ones tell neighbors apart


@torch.no_grad()
def init_neighbor_heads(embeddings: "Embeddings", encoder: "Encoder") -> None:
    """Make some heads of every layer neighbor heads.

    Args:
        embeddings: their tables normal, of std ``initializer_range``.
        encoder: its biases 0.
    """
    if embeddings.position is None:
        _hold_constants(embeddings, encoder)
    else:
        _read_positions(embeddings, embeddings.position, encoder)


def _hold_constants(embeddings: "Embeddings", encoder: "Encoder") -> None:
    """For rotary positions: constant queries and keys."""
    config, direction = encoder.config, None
    if not config.bias:
        direction = torch.randn(config.hidden_size)
        direction = direction - direction.mean()  # LayerNorm removes the mean
        direction = direction / direction.norm()
        embeddings.word.weight += COMMON * config.initializer_range * config.hidden_size**0.5 * direction
        direction = direction / (config.hidden_size**0.5 * _share(COMMON))  # times any token's hidden state: 1
    scale = (2 * PEAK / config.head_dim**0.5) ** 0.5  # angles have length √(H / 2)
    for index, qkv in enumerate(_projections(encoder)):
        theta = config.rope_theta if config.is_global_layer(index) else config.local_rope_theta
        for head, offset in _heads(config, index):
            for part, shift in enumerate((offset, 0)):  # the query's and the key's
                rows, constant = (
                    _rows(config, part, head),
                    scale * _angles(torch.tensor(shift), config.head_dim, theta),
                )
                if direction is None:
                    qkv.bias[rows] += constant
                else:
                    qkv.weight[rows] += torch.outer(constant, direction)


def _read_positions(embeddings: "Embeddings", position: nn.Embedding, encoder: "Encoder") -> None:
    """For learned positions: they start as angles that queries and keys read, the queries rotated by the offset."""
    if embeddings.project is not None:
        return  # layers read mixtures of the tables' channels
    config, table = encoder.config, position.weight
    channels = min(config.head_dim, config.hidden_size // 4) // 2 * 2
    if not channels:
        return  # too narrow to leave any free
    word = config.initializer_range * (config.hidden_size - channels) ** 0.5  # length of one
    embeddings.word.weight[:, :channels] = 0.0
    table.zero_()
    angles = _angles(torch.arange(len(table)), channels, POSITION_THETA)  # of length √(channels / 2)
    table[:, :channels] = POSITIONS * word / (channels / 2) ** 0.5 * angles
    scale = (PEAK_OF_POSITIONS * config.head_dim**0.5 / config.hidden_size) ** 0.5 / _share(POSITIONS)
    for index, qkv in enumerate(_projections(encoder)):
        for head, offset in _heads(config, index):
            for part, shift in enumerate((offset, 0)):
                tables = rotary_tables(torch.tensor(shift), channels, POSITION_THETA, table.dtype)
                turned = rotary(torch.eye(channels)[:, None], *tables)[:, 0]  # one row for each rotated direction
                rows = qkv.weight[_rows(config, part, head)]
                rows.zero_()  # what the head reads of words would hide the positions
                rows[:channels, :channels] = scale * turned.T


def _projections(encoder: "Encoder") -> Iterator[nn.Linear]:
    layer: Any
    for layer in encoder.layers:
        yield layer.attention.qkv


def _heads(config: BertConfig, layer: int) -> list[tuple[int, int]]:
    """(head, offset) of the neighbor heads: at most half of the heads, one per offset or alternating by layer."""
    heads = range(min(len(OFFSETS), max(1, config.num_attention_heads // 2)))
    return [(head, OFFSETS[(layer + head) % len(OFFSETS)]) for head in heads]


def _rows(config: BertConfig, part: int, head: int) -> slice:
    """Rows of the fused projection: a head's queries (part 0) or keys (part 1)."""
    first = part * config.hidden_size + head * config.head_dim
    return slice(first, first + config.head_dim)


def _angles(positions: Tensor, channels: int, theta: float) -> Tensor:
    """(…) positions → (…, channels): cosines of their angles, then sines, as in :func:`reference.rotary`."""
    return torch.cat(rotary_tables(positions, channels, theta, torch.float32), -1)


def _share(length: float) -> float:
    """Component of the longer of two orthogonal vectors, lengths 1 and ``length``, in their normalised sum."""
    return length / (1 + length**2) ** 0.5
