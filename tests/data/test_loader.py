"""The loader: what a batch is, that an epoch is whole, and that a place in the stream is the whole state."""

import gc
import json
import os
import threading
import time
from dataclasses import fields
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from memory_store import MemoryStore

import fastbert
from fastbert.data import BatchLoader, Corpus, write_store
from fastbert.system.errors import InputError
from support import need_core

VOCAB = 300


class Tokens(SimpleNamespace):
    """What the loader needs of a tokenizer; ids in another order than the usual one."""

    def __init__(self):
        super().__init__(pad_id=9, unk_id=8, cls_id=7, sep_id=6, mask_id=5)
        self.is_continuation = (np.arange(VOCAB) % 4 == 0).astype(np.uint8)

    def __len__(self):
        return VOCAB


TOKENS = Tokens()
SPECIALS = {9, 8, 7, 6, 5}


def make_store(seed=0, num_documents=60):
    rng = np.random.default_rng(seed)
    return MemoryStore(
        [
            [rng.integers(10, VOCAB, rng.integers(1, 30)).tolist() for _ in range(rng.integers(1, 25))]
            for _ in range(num_documents)
        ]
    )


STORE = make_store()


def make_loader(store=STORE, **options):
    options = {"batch_tokens": 1024, "max_length": 64, "seed": 3, "prefetch": 0, **options}
    return BatchLoader(store, options.pop("spans", store.spans), TOKENS, **options)


def one_epoch(loader, rate=0.15):
    batches, start = [], int(loader.epoch)
    while loader.epoch < start + 1:
        batches.append(loader.next_batch(rate))
    return batches


def same(a, b):
    values = ((getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in values)


def unmasked(batch):
    ids = batch.input_ids.clone()
    ids[batch.masked_index] = batch.labels
    return ids


@pytest.mark.parametrize("objective", ["mlm", "mlm+nsp"])
@pytest.mark.parametrize("mask_unit", ["token", "word", "span"])
def test_a_batch_is_what_the_model_expects(objective, mask_unit):
    with make_loader(objective=objective, mask_unit=mask_unit) as loader:
        batches = one_epoch(loader, 0.3)
    masked = total = 0
    for batch in batches:
        for name in ("input_ids", "position_ids", "token_type_ids", "masked_index", "labels"):
            assert getattr(batch, name).dtype == torch.int64, name
        assert batch.cu_seqlens.dtype == torch.int32 and batch.cu_seqlens[0] == 0
        assert batch.cu_seqlens[-1] == batch.num_tokens <= 1024
        lengths = batch.cu_seqlens.diff()
        assert batch.max_seqlen == lengths.max() <= 64 and lengths.min() >= 3
        assert (batch.next_sentence_label is None) == (objective == "mlm")
        for b, (begin, end) in enumerate(
            zip(batch.cu_seqlens[:-1].tolist(), batch.cu_seqlens[1:].tolist(), strict=True)
        ):
            ids = unmasked(batch)[begin:end].tolist()
            assert batch.position_ids[begin:end].tolist() == list(range(end - begin))
            pair = objective == "mlm+nsp" and batch.next_sentence_label[b] >= 0
            assert ids[0] == TOKENS.cls_id and ids[-1] == TOKENS.sep_id
            assert ids.count(TOKENS.sep_id) == 1 + pair and ids.count(TOKENS.cls_id) == 1
            first_length = ids.index(TOKENS.sep_id) + 1
            types = [0] * first_length + [1] * (len(ids) - first_length)
            assert batch.token_type_ids[begin:end].tolist() == types
        assert not SPECIALS & set(batch.labels.tolist())
        masked += len(batch.labels)
        total += int((unmasked(batch) >= 10).sum())
    assert abs(masked / total - 0.3) < 0.03


def test_an_epoch_holds_every_token_once(impl):
    with make_loader(impl=impl) as loader:
        for epoch in range(3):
            batches = one_epoch(loader)
            tokens = torch.cat([unmasked(batch) for batch in batches]).numpy()
            tokens = tokens[~np.isin(tokens, list(SPECIALS))]
            assert np.array_equal(np.sort(tokens), np.sort(STORE.tokens))
            assert loader.epoch == epoch + 1
            assert all(len(batch.labels) > 0 for batch in batches)


@pytest.mark.parametrize("objective", ["mlm", "mlm+nsp", "diffusion"])
def test_implementations_agree(objective):
    need_core()
    unit = "word" if objective == "diffusion" else "span"
    loaders = [make_loader(objective=objective, impl=i, mask_unit=unit) for i in ("cpp", "reference")]
    for _ in range(40):
        assert same(*(loader.next_batch(0.2) for loader in loaders))


@pytest.mark.parametrize("mask_unit", ["token", "word"])
def test_diffusion_batches(mask_unit):
    """A rate for every sequence, [MASK] in every chosen place, weights that sum to the maskable tokens."""
    store = make_store(num_documents=200)
    with make_loader(store, objective="diffusion", mask_unit=mask_unit) as loader:
        batches = one_epoch(loader, 0.01)  # the rate is ignored
    weights = maskable = 0.0
    shares = []
    for batch in batches:
        assert (batch.input_ids[batch.masked_index] == TOKENS.mask_id).all()
        assert batch.label_weights.dtype == torch.float32 and batch.label_weights.shape == batch.labels.shape
        assert batch.label_weights.min() >= 1 and batch.label_weights.max() <= 10
        sequence = torch.repeat_interleave(batch.cu_seqlens.diff())
        ordinary = torch.bincount(sequence[unmasked(batch) >= 10], minlength=batch.num_sequences)
        masked = torch.bincount(sequence[batch.masked_index], minlength=batch.num_sequences)
        shares += (masked / ordinary)[ordinary >= 40].tolist()
        for b in sequence[batch.masked_index].unique():
            assert len(batch.label_weights[sequence[batch.masked_index] == b].unique()) == 1
        weights += float(batch.label_weights.sum())
        maskable += float((unmasked(batch) >= 10).sum())
    # even from 0 to 1: a tenth of the sequences in each tenth, five sigma; the clip at 10 costs a twentieth
    counts, _ = np.histogram(shares, 5, (0, 1))
    assert (abs(counts / len(shares) - 0.2) < 5 * np.sqrt(0.16 / len(shares))).all()
    assert abs(weights / maskable - 0.95) < 0.05


def test_order_is_shuffled_and_differs_between_epochs_and_seeds():
    loader, other = make_loader(), make_loader(seed=4)
    first, second, elsewhere = one_epoch(loader), one_epoch(loader), one_epoch(other)
    assert not same(first[0], second[0]) and not same(first[0], elsewhere[0])
    # the first batch does not hold the first windows of the text
    ids = unmasked(first[0])[:10].tolist()
    assert ids[1:] != STORE.tokens[:9].tolist()


@pytest.mark.parametrize("prefetch", [0, 1, 3])
@pytest.mark.parametrize("objective", ["mlm", "mlm+nsp", "diffusion"])
def test_resume_is_bit_exact(prefetch, objective):
    options = {"prefetch": prefetch, "objective": objective, "mask_unit": "word"}
    with make_loader(**options) as whole:
        batches, states, epochs = [], [], []
        for step in range(60):
            states.append(json.loads(json.dumps(whole.state_dict())))
            epochs.append(whole.epoch)
            batches.append(whole.next_batch(0.15 + step / 1000))
    assert whole.epoch > 1.2  # over the end of an epoch
    for stop in (0, 1, 7, 29, 30, 31, 55):
        with make_loader(**options) as resumed:
            resumed.load_state_dict(states[stop])
            assert resumed.epoch == epochs[stop]
            for step in range(stop, min(stop + 8, 60)):
                assert same(resumed.next_batch(0.15 + step / 1000), batches[step])


def test_resume_in_place():
    with make_loader(prefetch=2) as loader:
        for _ in range(5):
            loader.next_batch(0.15)
        state = loader.state_dict()
        ahead = [loader.next_batch(0.15) for _ in range(5)]
        loader.load_state_dict(state)
        assert all(same(loader.next_batch(0.15), batch) for batch in ahead)


def test_a_rate_may_change_at_any_step_without_touching_the_rest():
    low, high = make_loader(prefetch=2), make_loader(prefetch=2)
    for _ in range(5):
        a, b = low.next_batch(0.1), high.next_batch(0.4)
        assert torch.equal(unmasked(a), unmasked(b))
        assert set(a.masked_index.tolist()) < set(b.masked_index.tolist())
    low.close(), high.close()


def test_chunks_do_not_show(monkeypatch):
    """Many small chunks: every sequence still once an epoch, and places in the middle resume."""
    monkeypatch.setattr("fastbert.data.batches.batch_plan.SMALLEST_CHUNK", 16)
    monkeypatch.setattr("fastbert.data.batches.batch_plan.BATCHES_IN_CHUNK", 2)
    loader = make_loader()
    assert loader.plan.num_chunks(0) == 5
    batches = one_epoch(loader)
    tokens = torch.cat([unmasked(batch) for batch in batches]).numpy()
    assert np.array_equal(np.sort(tokens[tokens >= 10]), np.sort(STORE.tokens))
    resumed = make_loader()
    resumed.load_state_dict({**loader.state_dict(), "epoch": 0, "chunk": 3, "batch": 1})
    assert 0 < resumed.epoch < 1
    first = resumed.next_batch(0.15)
    place = next(i for i, batch in enumerate(batches) if same(batch, first))
    assert all(same(resumed.next_batch(0.15), batch) for batch in batches[place + 1 :][:10])


def test_slots_are_filled():
    with make_loader(make_store(1, 4000), batch_tokens=4096, max_length=128, objective="mlm+nsp") as loader:
        batches = one_epoch(loader)
    assert sum(batch.num_tokens for batch in batches) / (4096 * len(batches)) >= 0.98


def test_tiny_text():
    """Ten short lines: one batch an epoch, at least one masked token in each."""
    store = MemoryStore([[[10 + i, 20 + i, 30 + i] for i in range(10)]])
    for objective in ("mlm", "mlm+nsp"):
        loader = make_loader(store, objective=objective, batch_tokens=4096)
        for epoch in range(20):
            assert loader.epoch == epoch and len(loader.next_batch(0.01).labels) >= 1


def test_a_store_on_disk_gives_the_same_batches(tmp_path):
    """Text through the tokenizer and the shards, against the same tokens in memory."""
    words = np.random.default_rng(0).choice(["casa", "azul", "mar", "vento", "livro", "noite"], (12, 9, 5))
    text = "\n\n".join("\n".join(" ".join(line) for line in document) for document in words)
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    tokenizer = fastbert.Tokenizer.train([text], vocab_size=60, min_frequency=1)
    on_disk = write_store(tmp_path / "store", Corpus([str(tmp_path / "text.txt")]), tokenizer)
    ids = [[tokenizer.encode(" ".join(line), add_special_tokens=False).ids for line in document] for document in words]
    in_memory = MemoryStore(ids)
    assert on_disk.num_tokens == in_memory.num_tokens
    for objective in ("mlm", "mlm+nsp"):
        options = {"batch_tokens": 128, "max_length": 32, "objective": objective, "mask_unit": "word", "seed": 5}
        disk, memory = (BatchLoader(store, in_memory.spans, tokenizer, **options) for store in (on_disk, in_memory))
        with disk, memory:
            assert all(same(disk.next_batch(0.2), memory.next_batch(0.2)) for _ in range(30))


# ---- evaluation ----


@pytest.mark.parametrize("objective", ["mlm", "mlm+nsp", "diffusion"])
def test_evaluation_is_one_fixed_pass(objective):
    loader = make_loader(objective=objective)
    loader.next_batch(0.15)
    first = list(loader.evaluation_batches(0.15, seed=7))
    again = list(make_loader(objective=objective).evaluation_batches(0.15, seed=7))
    assert len(first) == len(again) and all(map(same, first, again))
    others = list(loader.evaluation_batches(0.15, seed=8))
    assert all(torch.equal(unmasked(a), unmasked(b)) for a, b in zip(first, others, strict=True))
    assert not same(first[0], others[0])
    if objective == "mlm":
        tokens = torch.cat([unmasked(batch) for batch in first]).numpy()
        assert np.array_equal(np.sort(tokens[tokens >= 10]), np.sort(STORE.tokens))
    # the stream is where it was
    untouched = make_loader(objective=objective)
    untouched.next_batch(0.15)
    assert same(loader.next_batch(0.15), untouched.next_batch(0.15))


def test_evaluation_of_a_part_is_even_over_the_documents():
    store = MemoryStore([[[10 + document % 290] * 60] * 20 for document in range(50)])
    whole = sum(batch.num_tokens for batch in make_loader(store).evaluation_batches(0.15))
    for cap in (whole // 4, whole // 11, whole, 10 * whole):
        batches = list(make_loader(store).evaluation_batches(0.15, max_tokens=cap))
        tokens = torch.cat([unmasked(batch) for batch in batches])
        assert len(tokens) <= cap and len(tokens) >= 0.9 * min(cap, whole)
        counts = np.bincount(tokens[tokens >= 10].numpy(), minlength=60)[10:60]
        assert counts.min() > 0 and counts.max() - counts.min() <= 3 * 64
    assert len(list(make_loader(store).evaluation_batches(0.15, max_tokens=1))) == 1


def test_a_sequence_has_the_same_mask_in_a_part_as_in_the_whole():
    def sequences(**options):
        for batch in make_loader().evaluation_batches(0.3, **options):
            bounds = batch.cu_seqlens.tolist()
            for begin, end in pairwise(bounds):
                yield tuple(unmasked(batch)[begin:end].tolist()), tuple(batch.input_ids[begin:end].tolist())

    whole = dict(sequences())
    part = dict(sequences(max_tokens=4000))
    assert 0 < len(part) < len(whole) and all(whole[key] == value for key, value in part.items())


def test_without_shuffle_every_epoch_is_the_evaluation():
    loader = make_loader(shuffle=False)
    first, second = one_epoch(loader), one_epoch(loader)
    expected = list(make_loader().evaluation_batches(0.15))
    assert all(map(same, first, second)) and all(map(same, first, expected)) and len(first) == len(expected)


# ---- thread ----


def loader_threads():
    return [t for t in threading.enumerate() if t.name == "fastbert-loader" and t.is_alive()]


def test_batches_are_made_ahead_and_the_thread_ends():
    before = len(loader_threads())
    loader = make_loader(prefetch=2)
    loader.next_batch(0.15)
    assert len(loader_threads()) == before + 1
    deadline = time.monotonic() + 10
    while loader._ahead._queue.qsize() < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert loader._ahead._queue.qsize() == 2
    loader.close()
    loader.close()
    assert len(loader_threads()) == before
    loader.next_batch(0.15)
    del loader  # without close()
    gc.collect()
    while len(loader_threads()) > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(loader_threads()) == before


def test_an_error_of_the_thread_reaches_the_caller_every_time():
    class Broken(MemoryStore):
        def gather(self, starts, lengths):
            raise OSError("disk gone")

    with make_loader(Broken([[[10, 11]]]), prefetch=2) as loader:
        for _ in range(3):
            with pytest.raises(OSError, match="disk gone"):
                loader.next_batch(0.15)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_goes_on():
    with make_loader(prefetch=2) as loader:
        loader.next_batch(0.15)
        child = os.fork()
        if child == 0:
            os._exit(0 if loader.next_batch(0.15).num_tokens else 1)
        expected_end = time.monotonic() + 30
        done = (0, 0)
        while done == (0, 0) and time.monotonic() < expected_end:
            done = os.waitpid(child, os.WNOHANG)
            time.sleep(0.01)
        if done == (0, 0):
            os.kill(child, 9)
        assert done == (child, 0)
        loader.next_batch(0.15)


# ---- errors ----


@pytest.mark.parametrize(
    "options, message",
    [
        ({"max_length": 7}, "max_length=7: expected at least 8"),
        ({"batch_tokens": 63}, "batch_tokens=63 is less than max_length=64"),
        ({"spans": np.zeros((0, 2), np.int64)}, "no tokens"),
        ({"objective": "clm"}, "mlm, mlm\\+nsp"),
        ({"mask_unit": "letter"}, "token, word, span"),
        ({"objective": "diffusion", "mask_unit": "span"}, "diffusion"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=rf"^[^\n]*{message}[^\n]*$"):
        make_loader(**options)


def test_bad_rates():
    with pytest.raises(InputError, match="mask rate 2"):
        make_loader().next_batch(2)


@pytest.mark.parametrize(
    "options", [{"seed": 4}, {"max_length": 32}, {"batch_tokens": 2048}, {"spans": STORE.spans[:5]}]
)
def test_a_state_of_other_data_is_refused(options):
    with pytest.raises(InputError, match="another text, split, seed"):
        make_loader(**options).load_state_dict(make_loader().state_dict())
