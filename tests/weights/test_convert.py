"""Conversion from and to PyTorch's attention and encoder layer: equal outputs and gradients, both ways."""

import pytest
import torch
from torch import nn

from fastbert.config import BertConfig
from fastbert.layers import EncoderLayer, MultiHeadAttention
from fastbert.system.errors import InputError

REAL = torch.arange(7) < torch.tensor([7, 4])[:, None]


def randomised(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def both(ours, theirs, pairs, our_call, their_call):
    x = torch.randn(2, 7, 32)
    results = []
    for call in (our_call, their_call):
        leaf = x.clone().requires_grad_()
        out = call(leaf) * REAL[..., None]
        (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
        results.append((out.detach(), leaf.grad))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    grads = (dict(m.named_parameters()) for m in (ours, theirs))
    our_grads, their_grads = ({n: p.grad for n, p in named.items()} for named in grads)
    assert len(our_grads) == len(their_grads)
    for mine, other in pairs.items():
        for kind in ("weight", "bias"):
            name = f"{other}_{kind}" if other.endswith("in_proj") else f"{other}.{kind}"
            if name in their_grads:
                torch.testing.assert_close(our_grads[f"{mine}.{kind}"], their_grads[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("way", ["from", "to"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_attention(batch_first, bias, way):
    theirs = randomised(nn.MultiheadAttention(32, 4, bias=bias, batch_first=batch_first))
    ours = MultiHeadAttention.from_torch(theirs)
    if way == "to":
        theirs = ours.to_torch(batch_first=batch_first)
        assert theirs.batch_first == batch_first

    def their_call(x):
        x = x if batch_first else x.transpose(0, 1)
        out = theirs(x, x, x, key_padding_mask=~REAL, need_weights=False)[0]
        return out if batch_first else out.transpose(0, 1)

    both(ours, theirs, {"qkv": "in_proj", "out": "out_proj"}, lambda x: ours(x, attention_mask=REAL), their_call)


LAYER = {
    "attention.qkv": "self_attn.in_proj", "attention.out": "self_attn.out_proj", "attention_norm": "norm1",
    "feed_forward.up": "linear1", "feed_forward.down": "linear2", "feed_forward_norm": "norm2",
}  # fmt: skip


@pytest.mark.parametrize("way", ["from", "to"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"norm_first": True}, {"bias": False}, {"norm_first": True, "bias": False},
                {"activation": nn.GELU("tanh")}, {"layer_norm_eps": 0.1}], ids=str,
)  # fmt: skip
def test_encoder_layer(options, training, way):
    options = {"activation": "gelu", "dropout": 0.0, "batch_first": True, **options}
    theirs = randomised(nn.TransformerEncoderLayer(32, 4, 48, **options)).train(training)
    ours = EncoderLayer.from_torch(theirs)
    assert ours.training == training
    if way == "to":
        theirs = ours.to_torch()
        assert theirs.norm_first == bool(options.get("norm_first"))
    both(ours, theirs, LAYER, lambda x: ours(x, attention_mask=REAL), lambda x: theirs(x, src_key_padding_mask=~REAL))


def test_dtype_and_dropout_come_along():
    theirs = nn.TransformerEncoderLayer(32, 4, 48, dropout=0.3, activation="gelu").to(torch.bfloat16)
    ours = EncoderLayer.from_torch(theirs)
    assert {p.dtype for p in ours.parameters()} == {torch.bfloat16}
    assert (ours.dropout_p, ours.attention.dropout_p) == (0.3, 0.3)
    back = ours.to_torch()
    assert (back.dropout1.p, back.self_attn.dropout, back.dropout.p) == (0.3, 0.3, 0.0)
    assert back.self_attn.in_proj_weight.data_ptr() != ours.attention.qkv.weight.data_ptr()


def test_what_cannot_be_converted_says_why():
    with pytest.raises(InputError, match=r"from_torch: activation relu: .* Try"):
        EncoderLayer.from_torch(nn.TransformerEncoderLayer(32, 4, 48))
    for option, words in (
        ({"add_zero_attn": True}, "add_zero_attn"),
        ({"kdim": 8}, "kdim"),
        ({"add_bias_kv": True}, "add_bias_kv"),
    ):
        with pytest.raises(InputError, match=words):
            MultiHeadAttention.from_torch(nn.MultiheadAttention(32, 4, **option))
    layer = nn.TransformerEncoderLayer(32, 4, 48, activation="gelu")
    layer.norm1.eps = 0.5
    with pytest.raises(InputError, match=r"norm1\.eps, norm2\.eps are 0\.5, 1e-05"):
        EncoderLayer.from_torch(layer)
    with pytest.raises(InputError, match="window=3"):
        MultiHeadAttention(32, 4, window=3).to_torch()
    with pytest.raises(InputError, match="geglu"):
        EncoderLayer(BertConfig(hidden_size=32, mlp="geglu"), 1).to_torch()
    with pytest.raises(InputError, match="layer 0"):
        EncoderLayer(BertConfig(hidden_size=32, norm="pre"), 0).to_torch()
