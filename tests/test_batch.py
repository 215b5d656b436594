"""Packed batches: filled up to round numbers of rows, nothing changes."""

import dataclasses

import pytest
import torch

from fastbert import BertConfig, BertForPreTraining
from fastbert.batch import PackedBatch, by_token_budget, concatenate, pack_rows


def batch_of(lengths: list[int], masked: int, *, weights: bool = False, next_sentence: bool = False) -> PackedBatch:
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(5, 90, (n,), generator=generator).numpy() for n in lengths]
    index = torch.randperm(sum(lengths), generator=generator)[:masked].sort().values
    return dataclasses.replace(
        pack_rows(rows, masked_index=index.numpy()),
        labels=torch.randint(5, 90, (masked,), generator=generator),
        label_weights=torch.rand(masked, generator=generator) if weights else None,
        next_sentence_label=torch.tensor([i % 2 for i in range(len(lengths))]) if next_sentence else None,
    )


def test_both_numbers_of_rows_become_round():
    filled = batch_of([40, 129, 90], 77, weights=True, next_sentence=True).padded_to_multiple(32)
    assert (
        filled.num_tokens == 288 and len(filled.masked_index) == len(filled.labels) == len(filled.label_weights) == 96
    )
    assert (filled.labels[77:] == -100).all() and filled.next_sentence_label.tolist() == [0, 1, 0, -100]
    assert len(filled.masked_index.unique()) == 96, "the gradient of a row that is asked twice would be lost"
    assert filled.cu_seqlens.tolist() == [0, 40, 169, 259, 288] and filled.cu_seqlens.dtype == torch.int32


def test_no_sequence_becomes_longer_than_the_longest():
    filled = batch_of([7] * 37, 30).padded_to_multiple(32)  # 259 tokens: 29 more
    assert filled.cu_seqlens.diff().tolist() == [7] * 41 + [1]
    assert filled.max_seqlen == 7 and filled.position_ids.max() < 7


@pytest.mark.parametrize("lengths, masked", [([128, 128], 64), ([100, 100], 30)])
def test_round_and_small_batches_stay_as_they_are(lengths, masked):
    batch = batch_of(lengths, masked)
    filled = batch.padded_to_multiple(32)
    assert filled.num_tokens == batch.num_tokens and torch.equal(filled.masked_index, batch.masked_index)
    assert torch.equal(filled.cu_seqlens, batch.cu_seqlens)


def test_where_every_row_is_asked_there_is_none_to_add():
    filled = batch_of([128, 135], 263).padded_to_multiple(32)
    assert filled.num_tokens == 288 and len(filled.masked_index) == len(filled.labels) == 263 + 25


@pytest.mark.parametrize("arch", ["classic", "roformer", "modern"])
@pytest.mark.parametrize("extra", [{}, {"weights": True}, {"next_sentence": True}])
def test_the_loss_and_its_gradients_do_not_change(arch, extra, monkeypatch):
    if extra.get("next_sentence") and arch != "classic":
        pytest.skip("has no next-sentence head")
    torch.manual_seed(1)
    config = BertConfig.preset("tiny", arch, vocab_size=90, max_position_embeddings=140)
    model, batch = BertForPreTraining(config).train(), batch_of([40, 129, 90], 77, **extra)
    found = []
    for filling in (True, False):
        if not filling:
            monkeypatch.setattr(PackedBatch, "padded_to_multiple", lambda self, multiple=32: self)
        model.zero_grad()
        output = model(batch)
        output.loss.backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        found.append((output.loss.detach(), gradients, model.eval().encode(batch)))
        model.train()
    (loss, gradients, hidden), (plain_loss, plain_gradients, plain_hidden) = found
    assert hidden.shape == plain_hidden.shape and gradients.keys() == plain_gradients.keys()
    torch.testing.assert_close(loss, plain_loss)
    torch.testing.assert_close(hidden, plain_hidden)
    for name, gradient in plain_gradients.items():
        assert gradient.abs().max() > 0 or "bias" in name, name
        torch.testing.assert_close(gradients[name], gradient, atol=1e-6, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("arch", ["classic", "roformer", "modern"])
@pytest.mark.parametrize("weights", [False, True])
def test_a_batch_of_a_fixed_shape_has_the_same_loss_and_gradients(arch, weights):
    """Tokens, masked rows, sequences (the last of them empty) and length of a CUDA graph; in float32."""
    torch.manual_seed(1)
    config = BertConfig.preset("tiny", arch, vocab_size=90, max_position_embeddings=140)
    model = BertForPreTraining(config, impl="reference").train()
    batch = batch_of([40, 129, 90], 77, weights=weights, next_sentence=arch == "classic")
    fixed = batch.padded_to(448, 128, 9, 140)
    assert (fixed.num_tokens, len(fixed.labels), fixed.num_sequences, fixed.max_seqlen) == (448, 128, 9, 140)
    assert fixed.cu_seqlens.tolist() == [0, 40, 169, 259, 399, 448, 448, 448, 448, 448]
    assert fixed.labels[77:].unique().tolist() == [-100] and len(fixed.masked_index.unique()) == 128
    found = []
    for given in (fixed, batch):
        model.zero_grad()
        loss = model(given).loss
        loss.backward()
        found.append((loss.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    (loss, gradients), (plain_loss, plain_gradients) = found
    torch.testing.assert_close(loss, plain_loss, rtol=1e-6, atol=0)
    assert gradients.keys() == plain_gradients.keys()
    for name, gradient in plain_gradients.items():
        error = (gradients[name] - gradient).norm() / gradient.norm().clamp(min=1e-6)
        assert error <= 1e-6, f"{name}: {error}"


def test_batches_keep_to_their_budgets_and_their_order():
    lengths, masked = [5, 3, 9, 2, 2, 2], [1, 1, 0, 2, 2, 2]
    parts = list(by_token_budget(lengths, 8))
    assert [lengths[part] for part in parts] == [[5, 3], [9], [2, 2, 2]], "one over the budget stands alone"
    parts = list(by_token_budget(lengths, 8, masked, 4))
    assert [lengths[part] for part in parts] == [[5, 3], [9], [2, 2], [2]]
    assert not list(by_token_budget([], 8))


def test_batches_are_concatenated():
    one, two = (
        PackedBatch(
            torch.arange(n), torch.arange(n), torch.zeros(n).long(), torch.tensor([0, 2, n], dtype=torch.int32), n - 2,
            torch.tensor([1, n - 1]), torch.tensor([7, n]), torch.tensor([0, -100]),
        )
        for n in (5, 8)
    )  # fmt: skip
    both = concatenate([one, two])
    assert both.cu_seqlens.tolist() == [0, 2, 5, 7, 13] and both.cu_seqlens.dtype == torch.int32
    assert both.input_ids.tolist() == [*range(5), *range(8)] and both.max_seqlen == 6
    assert both.masked_index.tolist() == [1, 4, 6, 12] and both.labels.tolist() == [7, 5, 7, 8]
    assert both.next_sentence_label.tolist() == [0, -100] * 2 and both.label_weights is None
