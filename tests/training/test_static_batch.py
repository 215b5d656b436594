"""The fixed shape of a CUDA graph's batches has room for nearly all of a run, and little more."""

from types import SimpleNamespace

import numpy as np
import pytest
from memory_store import MemoryStore

from fastbert.data import BatchLoader
from fastbert.data.batches.mixed_loader import MixedLoader
from fastbert.distributed.world import take
from fastbert.optim.schedules import BatchRamp, RateSchedule
from fastbert.training.static_batch import StaticShape


class Ids(SimpleNamespace):
    def __len__(self) -> int:
        return 90


TOKENS = Ids(
    pad_id=0, unk_id=1, cls_id=2, sep_id=3, mask_id=4, is_continuation=(np.arange(90) % 3 == 0).astype(np.uint8)
)


def store_of(documents: int, longest: int) -> MemoryStore:
    """Documents of 1 to ``longest`` sentences of 1 to 11 tokens."""
    draw = np.random.default_rng(documents)
    return MemoryStore(
        [
            [draw.integers(5, 90, draw.integers(1, 12)).tolist() for _ in range(draw.integers(1, longest + 1))]
            for _ in range(documents)
        ]
    )


TEXTS = {"long": (60, 200), "short": (3000, 3), "one": (1, 30)}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    ("objective", "unit", "micro_batches"), [("mlm", "token", 1), ("mlm", "span", 3), ("diffusion", "token", 1)]
)
def test_there_is_room_for_the_batches_of_a_run(text, objective, unit, micro_batches):
    store = store_of(*TEXTS[text])
    options = {"max_length": 64, "objective": objective, "mask_unit": unit, "prefetch": 0}
    loader = BatchLoader(store, store.spans, TOKENS, batch_tokens=4096, **options)
    plan = SimpleNamespace(
        batch_ramp=BatchRamp(4096), max_length=64, micro_batches=micro_batches, mask_rate=RateSchedule(0.3),
        objective=objective,
    )  # fmt: skip
    shape = StaticShape.of(plan, loader)
    batches = [loader.next_batch(0.3) for _ in range(60)]
    parts = [take(batch, micro_batches, i) for batch in batches for i in range(micro_batches)]
    held = [part for part in parts if shape.holds(part)]
    assert len(held) >= 0.98 * len(parts)
    padded = shape.padded(held[0])
    assert (padded.num_tokens, padded.num_sequences, len(padded.labels)) == (
        shape.tokens,
        shape.sequences,
        shape.masked,
    )
    assert padded.cu_seqlens[-1] == shape.tokens and padded.cu_seqlens.diff().max() <= 64
    used = sum(part.num_tokens for part in held) / len(held)
    assert shape.tokens <= 1.1 * used + 64 * (2 if micro_batches > 1 else 1)


def test_there_is_room_for_two_texts():
    loaders = [
        BatchLoader(store, store.spans, TOKENS, batch_tokens=tokens, max_length=64, prefetch=0)
        for store, tokens in ((store_of(60, 200), 3072), (store_of(3000, 3), 1024))
    ]
    loader = MixedLoader(*loaders)
    plan = SimpleNamespace(
        batch_ramp=BatchRamp(4096), max_length=64, micro_batches=1, mask_rate=RateSchedule(0.15, 0.4), objective="mlm"
    )
    shape = StaticShape.of(plan, loader)
    assert all(shape.holds(loader.next_batch(0.4)) for _ in range(60))


@pytest.mark.parametrize("change", [{"tokens": 63}, {"sequences": 2}, {"masked": 0}, {"longest": 59}])
def test_what_has_no_room_is_told(change):
    store = MemoryStore([[[7] * 58], [[8] * 2]])
    batch = BatchLoader(
        store, store.spans, TOKENS, batch_tokens=64, max_length=60, prefetch=0, shuffle=False
    ).next_batch(0.5)
    assert (batch.num_tokens, batch.num_sequences, batch.max_seqlen) == (64, 2, 60)
    enough = {"tokens": 128, "sequences": 4, "masked": 64, "longest": 64}
    assert StaticShape(**enough).holds(batch) and not StaticShape(**enough | change).holds(batch)
