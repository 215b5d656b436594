"""New models begin with heads that look at the neighbouring tokens."""

import pytest
import torch

from fastbert.batch import pack_rows
from fastbert.config import BertConfig
from fastbert.inference.attention_maps import attention_probabilities
from fastbert.model import BertForPreTraining

ARCHES = ("classic", "roformer", "modern")
LENGTH = 100


def maps(config: BertConfig) -> torch.Tensor:
    """(layers, heads, L, L): what every token of a row looks at."""
    torch.manual_seed(0)
    model = BertForPreTraining(config).eval()
    return attention_probabilities(model, pack_rows([torch.randint(5, 900, (LENGTH,)).tolist()]))


@pytest.mark.parametrize(("preset", "looking"), [("tiny", 1), ("mini", 2), ("small", 2)])
@pytest.mark.parametrize("arch", ARCHES)
def test_half_of_the_heads_look_one_token_back_or_on(arch, preset, looking):
    probabilities = maps(BertConfig.preset(preset, arch, vocab_size=1000))
    for layer, heads in enumerate(probabilities):
        offsets = [(-1, 1)[(layer + head) % 2] for head in range(looking)]
        for head, offset in enumerate(offsets):
            assert heads[head].diagonal(offset, -2, -1).mean() > 0.5
        assert heads[looking:].max() < 10 / LENGTH  # nowhere in particular
    assert len(probabilities) > 1


@pytest.mark.parametrize("arch", ARCHES)
def test_local_layers_have_a_base_frequency_of_their_own(arch):
    config = BertConfig.preset("mini", arch, vocab_size=1000, window=8, local_rope_theta=100.0)
    first_heads = maps(config)[:, 0]
    assert first_heads[::2].diagonal(-1, -2, -1).mean(-1).min() > 0.5
    assert first_heads[1::2].diagonal(1, -2, -1).mean(-1).min() > 0.5


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize(("width", "heads"), [(4, 2), (8, 1), (12, 3), (12, 2)])
def test_narrow_models_begin_too(arch, width, heads):
    if arch != "classic" and width // heads % 2:
        pytest.skip("rotary heads are even")
    config = BertConfig.preset("tiny", arch, vocab_size=1000, hidden_size=width, num_attention_heads=heads)
    assert maps(config).isfinite().all()


def test_places_of_a_new_model_differ_and_leave_most_channels_to_the_words():
    model = BertForPreTraining(BertConfig.preset("mini", vocab_size=1000))
    places, words = model.embeddings.position.weight, model.embeddings.word.weight
    assert len(places.round(decimals=4).unique(dim=0)) == len(places)
    assert not (places.any(0) & words.any(0)).any()
    assert words.any(0).sum() == 192
