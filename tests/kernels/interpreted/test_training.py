"""A tiny BERT trained with every kernel (interpreted) and with the reference: one loss curve.

The long form: ``TRITON_INTERPRET=1 pytest -m slow tests/kernels/interpreted/test_training.py`` (200 steps).
"""

import pytest
import torch

from fastbert.batch import PackedBatch
from fastbert.config import BertConfig
from fastbert.model import BertForPreTraining

SMALL = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
    "max_position_embeddings": 32,
}  # fmt: skip
CONFIGS = {
    "classic": BertConfig(**SMALL),
    "modern": BertConfig(
        **SMALL, position="rope", norm="pre", mlp="geglu", type_vocab_size=0, layer_norm_eps=1e-5, window=4,
        global_attention_every=2,
    ),
}  # fmt: skip


def batches(num_steps, classic):
    """Two packed sequences of 3 to 14 tokens in which the next token follows from the last; three in ten are asked."""
    generator = torch.Generator().manual_seed(0)

    def draw(high, shape):
        return torch.randint(0, high, shape, generator=generator)

    for _ in range(num_steps):
        lengths = 3 + draw(12, (2,))
        ids = torch.cat([10 + (draw(8, (1,)) + torch.arange(n)) % 8 for n in lengths])
        asked = torch.rand(len(ids), generator=generator) < 0.3
        asked[0] = True
        rows = asked.nonzero().squeeze(1)
        cu_seqlens = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
        yield PackedBatch(
            input_ids=ids.masked_fill(asked, 4),
            position_ids=torch.cat([torch.arange(n) for n in lengths]),
            token_type_ids=draw(2, ids.shape),
            cu_seqlens=cu_seqlens,
            max_seqlen=int(lengths.max()),
            masked_index=rows,
            labels=ids[rows],
            next_sentence_label=draw(2, (2,)) if classic else None,
        )


def curve(name, impl, num_steps, dtype=torch.float32):
    torch.manual_seed(0)
    model = BertForPreTraining(CONFIGS[name], impl).to(dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for batch in batches(num_steps, name == "classic"):
        loss = model(batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses, dtype=torch.float64)


def check(name, num_steps):
    """The parity rule on the running maximum of the error: training amplifies a rounding, whoever made it."""
    ours, theirs = curve(name, "triton", num_steps), curve(name, "reference", num_steps)
    exact = curve(name, "reference", num_steps, torch.float64)
    error, allowed = ((x - exact).abs().cummax(0).values for x in (ours, theirs))
    slack = 8 * torch.finfo(torch.float32).eps * exact
    worst = (error / (2 * allowed + slack)).max().item()
    print(
        f"{name}, {num_steps} steps: loss {exact[0]:.3f} to {exact[-10:].mean():.3f}; largest error with the kernels "
        f"{error[-1]:.2e}, of PyTorch's float32 {allowed[-1]:.2e}; at most {worst:.2f} of what the rule allows"
    )
    assert worst <= 1
    return exact


@pytest.mark.parametrize("name", CONFIGS)
def test_ten_steps(name):
    check(name, 10)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_two_hundred_steps(name):
    exact = check(name, 200)
    assert exact[-10:].mean() < 0.8 * exact[:10].mean()
