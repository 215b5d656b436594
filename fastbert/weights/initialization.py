"""How the attention of a new model begins: some heads look at the neighbouring tokens, the others everywhere.

From random weights an encoder learns how often each token comes and then for hundreds of steps little else: its heads
average over the whole row, and it has yet to find that what stands beside a gap tells most about it. Trained BERTs have
such heads (Clark et al., What Does BERT Look At?, 2019), and they can be there from the start (Raganato et al., Fixed
Encoder Self-Attention Patterns, 2020; d'Ascoli et al., ConViT, 2021). Here nothing is fixed: the weights only begin so.

A place p is written as the angles p·f of one pair of channels for each frequency f. Where query and key hold such
angles, their score is a sum of cos((p + offset - q)·f), greatest for the key at place q = p + offset.

* Rotary positions turn every query and key by p·f themselves: it takes a constant query and a constant key. Those are
  the biases; without biases all words get one direction in common, which the projections can read.
* Learned positions begin as the angles, in channels that the words leave to them, for the projections to read.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fastbert.config import BertConfig
from fastbert.layers import Embeddings, Encoder, EncoderLayer
from fastbert.reference import rotary, rotary_tables

OFFSETS = (-1, 1)
PEAK = 60.0  # score of the place looked at; far from it the scores are about 0
PEAK_OF_POSITIONS = 200.0  # the same where matrices make it from positions: layers mix those with words
COMMON = 2.0  # length of the words' common direction, in lengths of a word
POSITIONS = 1.5  # length of a position, in lengths of a word
POSITION_THETA = 10.0  # wavelengths from 6 to some 60 tokens: the shorter, the better neighbours are told apart


@torch.no_grad()
def look_at_neighbours(embeddings: Embeddings, encoder: Encoder) -> None:
    """Let some heads of every layer begin one token back or on.

    Args:
        embeddings: their tables normal, of std ``initializer_range``.
        encoder: its biases 0.
    """
    if embeddings.position is None:
        _hold_constants(embeddings, encoder)
    else:
        _read_positions(embeddings, embeddings.position, encoder)


def _hold_constants(embeddings: Embeddings, encoder: Encoder) -> None:
    """For rotary positions: queries and keys that are the same for every token."""
    config, direction = encoder.config, None
    if not config.bias:
        direction = torch.randn(config.hidden_size)
        direction = direction - direction.mean()  # LayerNorm takes the mean away
        direction = direction / direction.norm()
        embeddings.word.weight += COMMON * config.initializer_range * config.hidden_size**0.5 * direction
        direction = direction / (config.hidden_size**0.5 * _share(COMMON))  # times any token's hidden state: 1
    scale = (2 * PEAK / config.head_dim**0.5) ** 0.5  # angles have length √(H / 2)
    for index, qkv in enumerate(_projections(encoder)):
        theta = config.rope_theta if config.is_global_layer(index) else config.local_rope_theta
        for head, offset in _heads(config, index):
            for part, place in enumerate((offset, 0)):  # the query's and the key's
                rows, constant = _rows(config, part, head), scale * _angles(torch.tensor(place), config.head_dim, theta)
                if direction is None:
                    qkv.bias[rows] += constant
                else:
                    qkv.weight[rows] += torch.outer(constant, direction)


def _read_positions(embeddings: Embeddings, position: nn.Embedding, encoder: Encoder) -> None:
    """For learned positions: they begin as angles, and queries and keys read them, queries turned by the offset."""
    config, table = encoder.config, position.weight
    channels = min(config.head_dim, config.hidden_size // 4) // 2 * 2
    if not channels:
        return  # too narrow to leave any
    word = config.initializer_range * (config.hidden_size - channels) ** 0.5  # length of one
    embeddings.word.weight[:, :channels] = 0.0
    table.zero_()
    angles = _angles(torch.arange(len(table)), channels, POSITION_THETA)  # of length √(channels / 2)
    table[:, :channels] = POSITIONS * word / (channels / 2) ** 0.5 * angles
    scale = (PEAK_OF_POSITIONS * config.head_dim**0.5 / config.hidden_size) ** 0.5 / _share(POSITIONS)
    for index, qkv in enumerate(_projections(encoder)):
        for head, offset in _heads(config, index):
            for part, place in enumerate((offset, 0)):
                tables = rotary_tables(torch.tensor(place), channels, POSITION_THETA, table.dtype)
                turned = rotary(torch.eye(channels)[:, None], *tables)[:, 0]  # a row for each direction that is turned
                rows = qkv.weight[_rows(config, part, head)]
                rows.zero_()  # what the head reads of words would drown its places
                rows[:channels, :channels] = scale * turned.T


def _projections(encoder: Encoder) -> Iterator[nn.Linear]:
    for layer in encoder.layers:
        assert isinstance(layer, EncoderLayer)
        yield layer.attention.qkv


def _heads(config: BertConfig, layer: int) -> list[tuple[int, int]]:
    """Which heads look where, number and offset: no more than half of them, one for each offset or the two by turns."""
    heads = range(min(len(OFFSETS), max(1, config.num_attention_heads // 2)))
    return [(head, OFFSETS[(layer + head) % len(OFFSETS)]) for head in heads]


def _rows(config: BertConfig, part: int, head: int) -> slice:
    """Of the fused projection: a head's queries (part 0) or keys (part 1)."""
    first = part * config.hidden_size + head * config.head_dim
    return slice(first, first + config.head_dim)


def _angles(places: Tensor, channels: int, theta: float) -> Tensor:
    """(…) places → (…, channels): the cosines of their angles, then the sines, as :func:`reference.rotary` has them."""
    return torch.cat(rotary_tables(places, channels, theta, torch.float32), -1)


def _share(length: float) -> float:
    """Of a sum of two vectors at right angles, one of length 1, the other's part after the sum is normalised."""
    return length / (1 + length**2) ** 0.5
