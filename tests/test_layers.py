"""Layers are usable in any model: padded equals packed, and they learn."""

import pytest
import torch
from torch import nn

from fastbert import layers
from fastbert.batch import pack, pack_rows, unpack
from fastbert.config import BertConfig
from fastbert.inference import masked_lm
from fastbert.model import BertForPreTraining
from fastbert.system.errors import InputError

B, L, D = 3, 12, 128
MASK = torch.tensor([[1] * 12, [1] * 7 + [0] * 5, [1] * 1 + [0] * 11])


def config(arch="classic", **changes):
    return BertConfig.preset("tiny", arch, vocab_size=100, **changes)


@pytest.mark.parametrize("arch", ["classic", "modern"])
@pytest.mark.parametrize("window", [None, 2])
def test_encoder_padded_equals_packed(arch, window):
    torch.manual_seed(0)
    encoder = layers.Encoder(config(arch, window=window)).double().eval()
    hidden = torch.randn(B, L, D, dtype=torch.float64)
    padded = encoder(hidden, attention_mask=MASK)
    batch, kept = pack(torch.zeros(B, L, dtype=torch.long), MASK)
    packed = encoder(hidden.flatten(0, 1)[kept], None, batch.cu_seqlens, batch.max_seqlen)
    torch.testing.assert_close(padded.flatten(0, 1)[kept], packed)
    torch.testing.assert_close(unpack(packed, kept, B, L)[MASK.bool()], packed)


@pytest.mark.parametrize(("arch", "window"), [("classic", None), ("roformer", None), ("modern", None), ("modern", 2)])
def test_the_last_layer_can_work_out_chosen_rows_only(arch, window):
    torch.manual_seed(0)
    encoder = layers.Encoder(config(arch, window=window)).double().eval()
    batch, _ = pack(torch.zeros(B, L, dtype=torch.long), MASK)
    hidden, rows = torch.randn(batch.num_tokens, D, dtype=torch.float64), torch.tensor([19, 0, 3, 3])
    whole = encoder(hidden, None, batch.cu_seqlens, batch.max_seqlen)
    torch.testing.assert_close(encoder(hidden, None, batch.cu_seqlens, batch.max_seqlen, rows=rows), whole[rows])


@pytest.mark.parametrize(("arch", "window"), [("classic", None), ("roformer", None), ("modern", None), ("modern", 2)])
@pytest.mark.parametrize("impl", ["auto", "reference"])
def test_copies_of_a_text_share_their_first_projection(arch, window, impl, monkeypatch):
    """Predictions of many copies equal those of each alone, and the copies do share."""
    torch.manual_seed(0)
    model = BertForPreTraining(config(arch, window=window), impl).eval()
    texts = [torch.randint(5, 100, (n,)).tolist() for n in (9, 6)]
    rows = [[4 if i == place else token for i, token in enumerate(ids)] for ids in texts for place in range(len(ids))]
    places = [place for ids in texts for place in range(len(ids))]
    starts = torch.tensor([0, *map(len, rows)]).cumsum(0)[:-1]
    seen = []
    deduplicate = masked_lm._deduplicate_tokens
    monkeypatch.setattr(masked_lm, "_deduplicate_tokens", lambda *a: seen.append(deduplicate(*a)) or seen[-1])
    together = masked_lm.predict(model, pack_rows(rows, starts + torch.tensor(places)))
    alone = [masked_lm.predict(model, pack_rows([row], [p])) for row, p in zip(rows, places, strict=True)]
    alone = torch.cat(alone)
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4)
    assert seen[0] is not None and len(seen[0][0]) == 2 * 15 - sum(a == b for a, b in zip(*texts, strict=False)) - 6
    assert all(found is None for found in seen[1:]), "a single text has no copies"


def test_padding_never_leaks():
    encoder = layers.Encoder(config()).double().eval()
    hidden = torch.randn(B, L, D, dtype=torch.float64)
    other = hidden.clone()
    other[MASK == 0] = 1e4
    real = MASK.bool()
    assert torch.equal(encoder(hidden, attention_mask=MASK)[real], encoder(other, attention_mask=MASK)[real])


def test_attention_layer_equals_torch_multihead_attention():
    torch.manual_seed(0)
    ours = layers.MultiHeadAttention(D, 4)
    peer = nn.MultiheadAttention(D, 4, batch_first=True)
    with torch.no_grad():
        peer.in_proj_weight.copy_(ours.qkv.weight)
        peer.in_proj_bias.copy_(ours.qkv.bias)
        peer.out_proj.weight.copy_(ours.out.weight)
        peer.out_proj.bias.copy_(ours.out.bias)
    x = torch.randn(B, L, D)
    wanted, _ = peer(x, x, x, key_padding_mask=MASK == 0)
    got = ours(x, attention_mask=MASK)
    torch.testing.assert_close(got[MASK.bool()], wanted[MASK.bool()], atol=1e-5, rtol=1e-4)


def test_embeddings_default_positions_and_types():
    embeddings = layers.Embeddings(config()).eval()
    ids = torch.randint(5, 100, (B, L))
    given = embeddings(ids, torch.arange(L).expand(B, L), torch.zeros(B, L, dtype=torch.long))
    torch.testing.assert_close(embeddings(ids), given)


@pytest.mark.parametrize("arch", ["classic", "modern"])
def test_model_learns_and_every_parameter_gets_a_gradient(arch):
    torch.manual_seed(0)
    model = BertForPreTraining(config(arch)).train()
    ids = torch.randint(5, 100, (4, L))
    labels = torch.where(torch.rand(4, L) < 0.3, ids, -100)
    relation = torch.tensor([0, 1, 0, 1]) if arch == "classic" else None
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(30):
        loss = model(ids, labels=labels, next_sentence_label=relation).loss
        loss.backward()
        if not losses:
            silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
            assert silent == []
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_model_refuses_what_it_cannot_do():
    model = BertForPreTraining(config("modern", max_position_embeddings=16))
    with pytest.raises(ValueError, match="20 tokens and the model 16"):
        model(torch.zeros(1, 20, dtype=torch.long))
    with pytest.raises(ValueError, match="no next-sentence head"):
        model(torch.zeros(1, 8, dtype=torch.long), next_sentence_label=torch.tensor([0]))
    with pytest.raises(ValueError, match="attention_mask has shape"):
        model(torch.zeros(1, 8, dtype=torch.long), torch.ones(1, 7))
    with pytest.raises(InputError, match="preset 'huge'"):
        BertConfig.preset("huge")
    with pytest.raises(InputError, match="num_attention_heads"):
        BertConfig(hidden_size=100, num_attention_heads=3)


def test_dropout_acts_in_training_only():
    model = BertForPreTraining(config(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5))
    ids = torch.randint(5, 100, (2, L))
    model.train()
    assert not torch.equal(model(ids).prediction_logits, model(ids).prediction_logits)
    model.eval()
    assert torch.equal(model(ids).prediction_logits, model(ids).prediction_logits)


def test_presets_have_the_field_s_sizes():
    for name, layers_, hidden, heads in (("base", 12, 768, 12), ("large", 24, 1024, 16)):
        made = BertConfig.preset(name)
        assert (made.num_hidden_layers, made.hidden_size, made.num_attention_heads) == (layers_, hidden, heads)
        assert made.intermediate_size == 4 * hidden and made.arch == "classic"
    assert BertConfig(vocab_size=30522).padded_vocab_size == 30528
