"""Weights carried over to another vocabulary: rows go with their pieces, new ones begin as the mean of old ones.

Reference: Hewitt, Initializing New Word Embeddings for Pretrained Language Models, 2021 (the mean); Gee et al., Fast
Vocabulary Transfer for Language Model Compression, 2022 (the mean over the old pieces of a new one).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fastbert.text import Tokenizer
from fastbert.text.detokenize import CONTINUATION
from fastbert.text.normalizer import Normalizer

ROLES = ("pad_id", "unk_id", "cls_id", "sep_id", "mask_id")


@dataclass(frozen=True)
class VocabularyTransfer:
    """Where each row of a vocabulary comes from.

    Attributes:
        sources: for each new id the old ids whose mean it is: one for a piece that was there, none for a text that the
            old vocabulary cannot write, which gets the mean of all.
        num_old: number of old ids.
        kept: number of old pieces that the new vocabulary has.
        new: number of new pieces that the old one lacks.
        unwritable: number of those without a source.
        dropped: number of old pieces that the new vocabulary lacks.
    """

    sources: tuple[tuple[int, ...], ...]
    num_old: int
    kept: int
    new: int
    unwritable: int
    dropped: int

    @classmethod
    def between(cls, old: Tokenizer, new: Tokenizer) -> "VocabularyTransfer":
        """By piece; the special tokens of BERT by their role."""
        by_role = {
            getattr(new, role): getattr(old, role)
            for role in ROLES
            if getattr(new, role) >= 0 and getattr(old, role) >= 0
        }
        spell = _Speller(old)
        sources: list[tuple[int, ...]] = []
        kept, new_pieces = set(), 0
        for i, piece in enumerate(new.vocab):
            there = i < len(old) and old.vocab[i] == piece  # before any duplicate
            same = i if there else by_role.get(i, old.token_to_id(piece))
            sources.append(spell.ids(piece) if same is None else (same,))
            kept.add(same)
            new_pieces += same is None
        kept.discard(None)
        unwritable = sum(not ids for ids in sources)
        return cls(tuple(sources), len(old), len(kept), new_pieces, unwritable, dropped=len(old) - len(kept))

    @property
    def identity(self) -> bool:
        """Whether every row stays where it is."""
        return len(self.sources) == self.num_old and all(ids == (i,) for i, ids in enumerate(self.sources))

    def rows(self, table: Tensor, padded: int) -> Tensor:
        """The rows of the new vocabulary, (``padded``, …), from those of the old one, (at least ``num_old``, …).

        Means are taken in float64; rows beyond the vocabulary are 0.
        """
        out = table.new_zeros((padded, *table.shape[1:]))
        single = [(i, ids[0]) for i, ids in enumerate(self.sources) if len(ids) == 1]
        new_ids, old_ids = torch.tensor(single, dtype=torch.int64).reshape(-1, 2).unbind(1)
        out[new_ids] = table[old_ids]
        everything = tuple(range(self.num_old))
        for i, ids in enumerate(self.sources):
            if len(ids) != 1:
                out[i] = table[torch.tensor(ids or everything)].double().mean(0).to(table.dtype)
        return out

    def state_dict(self, state: Mapping[str, Tensor], names: tuple[str, ...], padded: int) -> dict[str, Tensor]:
        """A model's parameters with the rows of ``names`` carried over."""
        return {name: self.rows(tensor, padded) if name in names else tensor for name, tensor in state.items()}

    def __str__(self) -> str:
        text = f"{self.kept:,} rows kept, {self.new:,} new, {self.dropped:,} dropped"
        if self.new:
            text += "; a new row is the mean of those of its old pieces"
        if self.unwritable:
            text += f", or of all rows where the old vocabulary cannot write it ({self.unwritable:,})"
        return text


class _Speller:
    """Splits the text of a new piece into the pieces of an old vocabulary, as its tokenizer would."""

    def __init__(self, old: Tokenizer):
        self.old = old
        self.normalizer = Normalizer(old.options.normalizer)

    def ids(self, piece: str) -> tuple[int, ...]:
        """The old ids; what the old vocabulary cannot write is left out."""
        inside = piece.startswith(CONTINUATION) and len(piece) > len(CONTINUATION)
        words = self.normalizer.words(piece[len(CONTINUATION) :] if inside else piece)
        return tuple(i for number, word in enumerate(words) for i in self._split(word, inside and number == 0))

    def _split(self, word: str, inside: bool) -> Iterator[int]:
        begin = 0
        while begin < len(word):
            prefixes = (CONTINUATION, "") if inside or begin else ("", CONTINUATION)
            found = (
                (self.old.token_to_id(prefix + word[begin:end]), end)
                for prefix in prefixes  # the second for a character that is there in its other form only
                for end in range(len(word), begin, -1)
            )
            piece_id, begin = next((hit for hit in found if hit[0] is not None), (None, begin + 1))
            if piece_id is not None:
                yield piece_id
