"""Attention probabilities are the ones the model used, and the ones transformers reports."""

import numpy as np
import pytest
import torch

import support
from fastbert.system.errors import InputError
from support import SPECIAL

VOCAB = [*SPECIAL, *"abcdefghij"]
TEXT = "a b c d e f g [MASK] i"


def make_bert(arch, **changes):
    bert = support.make_bert(VOCAB, arch, **changes)
    if (table := getattr(bert.model.embeddings, "position", None)) is not None:
        with torch.no_grad():  # maps that depend on the place
            table.weight.mul_(10)
    return bert


@pytest.mark.parametrize(
    ("arch", "changes"),
    [("classic", {}), ("roformer", {}), ("modern", {}), ("modern", {"window": 2, "global_attention_every": 2})],
    ids=["classic", "roformer", "modern", "modern-window"],
)
def test_equals_what_transformers_reports(arch, changes, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the peer compared with")
    bert = make_bert(arch, **changes)
    bert.save(tmp_path)
    name = {"classic": "BertModel", "roformer": "RoFormerModel", "modern": "ModernBertModel"}[arch]
    peer = getattr(transformers, name).from_pretrained(tmp_path, attn_implementation="eager").eval()
    tokens, weights = bert.attention(TEXT)
    with torch.no_grad():
        wanted = peer(torch.tensor([bert.tokenizer.encode(TEXT).ids]), output_attentions=True).attentions
    assert tokens == ["[CLS]", *TEXT.split(), "[SEP]"] and weights.shape == (2, 2, 11, 11)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, torch.cat(wanted).numpy(), atol=1e-5)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    assert weights.std() > 0.03, "flat maps would equal any others"


def test_one_layer_and_one_head():
    bert = make_bert("classic")
    whole = bert.attention(TEXT).weights
    np.testing.assert_array_equal(bert.attention(TEXT, layer=1).weights, whole[1])
    np.testing.assert_array_equal(bert.attention(TEXT, layer=-1, head=0).weights, whole[1, 0])
    np.testing.assert_array_equal(bert.attention(TEXT, head=1).weights, whole[:, 1])
    with pytest.raises(InputError, match="layer=2: the model has 2, counted from 0"):
        bert.attention(TEXT, layer=2)
    with pytest.raises(InputError, match="head=-3: the model has 2"):
        bert.attention(TEXT, head=-3)
