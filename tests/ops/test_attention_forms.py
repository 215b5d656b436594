"""Cross-attention, grouped queries and causal attention against PyTorch's, padded and packed."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastbert import layers, ops
from fastbert.config import BertConfig

KINDS = {
    "cross": {}, "causal": {"is_causal": True}, "grouped": {"groups": 2}, "one for all": {"groups": 4},
    "causal and grouped": {"groups": 2, "is_causal": True},
}  # fmt: skip


def sdpa(q, k, v, **options):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=True, **options).transpose(1, 2)


def heads(length, count):
    return torch.randn(2, length, count, 32, requires_grad=True)


@pytest.mark.parametrize("keys", [6, 9])
@pytest.mark.parametrize("kind", KINDS)
def test_padded(kind, keys):
    options = dict(KINDS[kind])
    count = 4 // options.pop("groups", 1)
    q, k, v = heads(6, 4), heads(keys, count), heads(keys, count)
    found, right = ops.attention(q, k, v, **options), sdpa(q, k, v, **options)
    torch.testing.assert_close(found, right)
    weight = torch.randn_like(right)
    grads = (torch.autograd.grad((x * weight).sum(), (q, k, v)) for x in (found, right))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    mask = torch.arange(keys) < torch.tensor([[4], [keys]])
    if not options:
        right = sdpa(q, k, v, attn_mask=mask[:, None, None])
        torch.testing.assert_close(ops.attention(q, k, v, attention_mask=mask), right)


@pytest.mark.parametrize("is_causal", [False, True])
def test_packed_sequences_of_other_lengths(is_causal):
    q, k, v = heads(6, 4)[0], heads(9, 2)[0], heads(9, 2)[0]
    ends, ends_k = torch.tensor([0, 2, 2, 6], dtype=torch.int32), torch.tensor([0, 5, 6, 9], dtype=torch.int32)
    found = ops.attention(q, k, v, ends, 4, cu_seqlens_k=ends_k, max_seqlen_k=5, is_causal=is_causal)
    for i in (0, 2):
        one, other = slice(ends[i], ends[i + 1]), slice(ends_k[i], ends_k[i + 1])
        right = sdpa(q[None, one], k[None, other], v[None, other], is_causal=is_causal)[0]
        torch.testing.assert_close(found[one], right)


REFUSED = {
    "heads": lambda q, k: ops.attention(q, k[:, :, :3], k[:, :, :3]),
    "k and v": lambda q, k: ops.attention(q, k, k[:, :5]),
    "sequences": lambda q, k: ops.attention(q, k[:1], k[:1]),
    "packed without cu_seqlens_k": lambda q, k: ops.attention(
        q[0], k[0], k[0], torch.tensor([0, 6], dtype=torch.int32), 6
    ),
    "cu_seqlens_k alone": lambda q, k: ops.attention(
        q[0], q[0], q[0], cu_seqlens_k=torch.tensor([0, 6], dtype=torch.int32), max_seqlen_k=6
    ),
    "bias of the queries' length": lambda q, k: ops.attention(q, k, k, bias=torch.zeros(4, 6, 6)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(name):
    with pytest.raises(ValueError, match=r"expected|goes with"):
        REFUSED[name](torch.randn(2, 6, 4, 32), torch.randn(2, 9, 4, 32))


def test_a_kernel_asked_for_by_name_runs_no_causal_attention():
    q = torch.randn(2, 6, 4, 32)
    with pytest.raises(RuntimeError, match=r"is_causal|cannot be loaded"):
        ops.attention(q, q, q, is_causal=True, impl="cpp")


# ---- what PyTorch's modules also have ----
CONFIG = BertConfig.preset("tiny", "modern", vocab_size=100)
MODULES = {
    "Encoder": lambda **where: layers.Encoder(CONFIG, **where),
    "EncoderLayer": lambda **where: layers.EncoderLayer(CONFIG, 1, **where),
    "Embeddings": lambda **where: layers.Embeddings(CONFIG, **where),
    "FeedForward": lambda **where: layers.FeedForward(64, 128, **where),
    "MultiHeadAttention": lambda **where: layers.MultiHeadAttention(64, 2, **where),
}


@pytest.mark.parametrize("name", MODULES)
def test_device_and_dtype(name):
    parameters = list(MODULES[name](device="meta", dtype=torch.bfloat16).parameters())
    assert parameters and all(p.is_meta and p.dtype == torch.bfloat16 for p in parameters)


@pytest.mark.parametrize("batch_first", [True, False])
def test_batch_first_and_need_weights(batch_first):
    theirs = nn.MultiheadAttention(64, 2, batch_first=batch_first).eval()
    ours = layers.MultiHeadAttention.from_torch(theirs)
    ours.batch_first = batch_first
    x, mask = torch.randn(2, 6, 64), torch.arange(6) < torch.tensor([[4], [6]])
    x = x if batch_first else x.transpose(0, 1)
    right = theirs(x, x, x, key_padding_mask=~mask, average_attn_weights=False)
    for a, b in zip(ours(x, attention_mask=mask, need_weights=True), right, strict=True):
        torch.testing.assert_close(a, b)
    with pytest.raises(ValueError, match="need_weights"):
        ours(x[0], torch.tensor([0, x.shape[1]]), x.shape[1], need_weights=True)
