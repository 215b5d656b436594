"""A step of several batches is the step of their union; the ramp reads, grows and refuses as it says."""

from itertools import pairwise

import pytest
import torch

from fastbert.batch import PackedBatch, pack_rows
from fastbert.config import BertConfig
from fastbert.model import BertForPreTraining
from fastbert.optim.schedules import BatchRamp
from fastbert.system.errors import InputError
from fastbert.training.loss_shares import share_of_loss
from support import assert_same_curve, command, process, records, write_corpus


def test_it_grows_evenly_to_the_whole_batch():
    ramp = BatchRamp.parse("512:0.5", 2048, 128)
    assert ramp == BatchRamp(512, 4, 0.5)
    steps = [ramp.batches(step / 1000) for step in range(1000)]
    assert steps[0] == 1 and steps == sorted(steps)
    assert set(steps) == {1, 2, 3, 4} and all(count == 4 for count in steps[500:])
    assert sum(steps) / 1000 == pytest.approx(ramp.mean, rel=0.01)


def test_without_a_ramp_a_step_is_one_batch():
    ramp = BatchRamp.parse(None, 2048, 128)
    assert {ramp.batches(step / 10) for step in range(11)} == {1} and ramp.mean == 1


@pytest.mark.parametrize("text", ["", "x", "512:", "0", "-512", "512:0", "512:2", "512:x", "500", "64", "512:0.5:1"])
def test_what_makes_no_sense_is_refused(text):
    with pytest.raises(InputError, match="--batch-ramp"):
        BatchRamp.parse(text, 2048, 128)


def test_the_remedy_is_one():
    with pytest.raises(InputError) as refused:
        BatchRamp.parse("600", 2000, 128)
    BatchRamp.parse(str(refused.value).rsplit(" ", 1)[1], 2000, 128)


def questions(lengths: list[int], masked: list[int], next_sentence: bool) -> PackedBatch:
    torch.manual_seed(sum(lengths))
    batch = pack_rows([torch.randint(5, 90, (n,)).numpy() for n in lengths], masked_index=masked)
    batch.__dict__["labels"] = torch.randint(5, 90, (len(masked),))
    if next_sentence:
        batch.__dict__["next_sentence_label"] = torch.arange(len(lengths)) % 2
    return batch


def union(a: PackedBatch, b: PackedBatch) -> PackedBatch:
    both = pack_rows([*rows(a), *rows(b)], masked_index=[*a.masked_index.tolist(), *(b.masked_index + a.num_tokens)])
    both.__dict__["labels"] = torch.cat([a.labels, b.labels])
    if a.next_sentence_label is not None:
        both.__dict__["next_sentence_label"] = torch.cat([a.next_sentence_label, b.next_sentence_label])
    return both


def rows(batch: PackedBatch) -> list:
    bounds = batch.cu_seqlens.tolist()
    return [batch.input_ids[i:j].numpy() for i, j in pairwise(bounds)]


@pytest.mark.parametrize("arch", ["classic", "modern"])
def test_several_batches_have_the_gradient_of_their_union(arch):
    torch.manual_seed(0)
    config = BertConfig.preset("tiny", arch, vocab_size=96, hidden_size=32, num_attention_heads=2)
    model = BertForPreTraining(config, impl="reference")
    nsp = arch == "classic"
    # unequal on purpose: a mean of means would be another number
    batches = [questions([9, 4, 7], [1, 5, 8, 12], nsp), questions([12, 3], [4], nsp)]

    model.zero_grad()
    sum(share_of_loss(model(batch), batch, batches) for batch in batches).backward()
    apart = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model(union(*batches)).loss.backward()
    together = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert apart.keys() == together.keys()
    for name in apart:
        torch.testing.assert_close(apart[name], together[name], rtol=1e-4, atol=1e-6)


def test_steps_grow_and_ranks_draw_the_same_curve(tmp_path):
    write_corpus(tmp_path / "corpus.txt", 60)
    common = (
        "--data", "corpus.txt", "--steps", 40, "--evaluations", 2, "--preset", "tiny", "--batch-tokens", 512,
        "--batch-ramp", "128:0.75", "--max-length", 32, "--threads", 1, "--precision", "fp32",
        "--learning-rate", 0.002, "--muon-learning-rate", 0.02,  # those of so few steps magnify rounding
    )  # fmt: skip
    for name, ranks in (("one", 0), ("two", 2)):
        run = process if ranks else command
        options = {"ranks": ranks} if ranks else {}
        run("fastbert.train", *common, "--output", name, cwd=tmp_path, **options)
    tokens = {r["step"]: r["tokens"] for r in records(tmp_path / "one", "train")}
    assert tokens[10] < 0.4 * (tokens[40] - tokens[30])  # 128 to 256 a step, then 512
    assert_same_curve(tmp_path / "one", tmp_path / "two")
