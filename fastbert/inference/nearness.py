"""How near an int8 encoder comes to the same one in float32, on the bundled texts."""

import lzma
from importlib.resources import files
from typing import TYPE_CHECKING

import torch

from fastbert.inference.embedding import EmbeddingSettings, embed_texts
from fastbert.inference.frozen_model import FrozenModel

if TYPE_CHECKING:
    from fastbert.bert import Bert

LINES = 16  # of each language
CHARACTERS = 300


def nearness(bert: "Bert") -> str:
    """The mean and the least cosine between vectors by ``bert`` and in float32, in words."""
    texts = [line[:CHARACTERS] for language in ("en", "pt") for line in _lines(language)]
    settings = bert.embedding or EmbeddingSettings()
    ours, spec = (
        torch.from_numpy(embed_texts(bert.model, bert.tokenizer, texts, settings, frozen=frozen))
        for frozen in (bert._frozen, FrozenModel(bert.model, torch.float32))
    )
    cosines = torch.nn.functional.cosine_similarity(ours, spec)
    return f"cosine to fp32 {cosines.mean():.5f}, least {cosines.min():.5f}, of {len(texts)} bundled lines"


def _lines(language: str) -> list[str]:
    packed = files("fastbert").joinpath(f"data/bundled/{language}.txt.xz").read_bytes()
    return [line for line in lzma.decompress(packed).decode().splitlines() if line.strip()][:LINES]
