"""Masking, and the way from a token store to masked batches, against transformers' collator and numpy.

    pytest benchmarks/test_masking.py                pytest-benchmark's tables
    python benchmarks/test_masking.py                one interleaved run, ratios of medians

Every contestant masks the same text: B sequences of L tokens, 15 %, 80/10/10. transformers starts from a list of
examples and pads them (all are of one length here), ours and numpy from the token array, as each is used; for the
collator alone, "tensors only" calls its masking on a ready (B, L) tensor with a ready special-tokens mask.
"""

import random
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from harness import need_core, need_peer, note_rate, seconds
from memory_store import MemoryStore

from fastbert.data import BatchLoader
from fastbert.data.batches.masking import Masker, MaskUnit

PAD, UNK, CLS, SEP, MASK = SPECIALS = range(5)
VOCAB = 30522
RATE = 0.15
SHAPES = [(32, 128), (256, 128), (64, 512)]
IS_CONTINUATION = (np.arange(VOCAB) % 10 < 3).astype(np.uint8)
IS_CONTINUATION[: len(SPECIALS)] = 0


def make_rows(num_sequences: int, length: int) -> np.ndarray:
    """(B, L) [CLS] words [SEP]; three tokens in ten continue a word, about as in prose."""
    rows = np.random.default_rng(0).integers(len(SPECIALS), VOCAB, (num_sequences, length))
    rows[:, 0], rows[:, -1] = CLS, SEP
    return rows


def check(before: np.ndarray, after: np.ndarray, chosen: np.ndarray, mask_prob: float = 0.8) -> None:
    """All contestants: the wished part, 80/10/10, special tokens and all other tokens untouched."""
    maskable = before >= len(SPECIALS)
    assert not chosen[~maskable].any() and np.array_equal(before[~chosen], after[~chosen])
    n = chosen.sum()
    assert abs(n / maskable.sum() - RATE) < 6 * np.sqrt(8 * RATE * (1 - RATE) / maskable.sum())
    assert abs((after[chosen] == MASK).mean() - mask_prob) < 6 * np.sqrt(8 * 0.16 / n)
    assert abs((after[chosen] == before[chosen]).mean() - (1 - mask_prob) / 2) < 6 * np.sqrt(8 * 0.09 / n)


def ours(rows: np.ndarray, unit: MaskUnit, impl: str) -> Callable[[], Any]:
    if impl == "cpp":
        need_core()
    options = {"mask_id": MASK, "vocab_size": VOCAB, "special_ids": SPECIALS, "unit": unit}
    masker = Masker(**options, is_continuation=IS_CONTINUATION, impl=impl)  # type: ignore[arg-type]
    num_sequences, length = rows.shape
    flat, ids = rows.ravel().copy(), np.arange(num_sequences)
    input_ids = flat.copy()  # written again for every call: masking is in place
    cu_seqlens = np.arange(num_sequences + 1, dtype=np.int32) * length
    epoch = 0

    def run(impl_masker: Masker = masker):
        nonlocal epoch
        epoch += 1  # other decisions every time: no branch is learnt by heart
        np.copyto(input_ids, flat)
        return input_ids, *impl_masker.mask(input_ids, cu_seqlens, ids, seed=1, epoch=epoch, rate=RATE)

    native = [array.copy() for array in run()]
    chosen = np.zeros(flat.shape, bool)
    chosen[native[1]] = True
    check(flat, native[0], chosen)
    epoch -= 1
    twin = run(Masker(**options, is_continuation=IS_CONTINUATION, impl="reference"))  # type: ignore[arg-type]
    assert all(map(np.array_equal, twin, native))
    return run


def vectorised_numpy(rows: np.ndarray) -> Callable[[], Any]:
    """What one would write: whole-array draws, no loop."""
    generator = np.random.default_rng(0)
    input_ids = rows.copy()

    def run():
        np.copyto(input_ids, rows)
        chosen = (generator.random(rows.shape, np.float32) < RATE) & (input_ids >= len(SPECIALS))
        labels = np.where(chosen, input_ids, -100)
        action = generator.random(rows.shape, np.float32)
        input_ids[chosen & (action < 0.8)] = MASK
        at_random = chosen & (action >= 0.8) & (action < 0.9)
        input_ids[at_random] = generator.integers(len(SPECIALS), VOCAB, int(at_random.sum()))
        return input_ids, labels

    input_ids, labels = run()
    check(rows, input_ids, labels != -100)
    return run


def collator(rows: np.ndarray, kind: str) -> Callable[[], Any]:
    transformers, tokenizers = need_peer("transformers", "transformers"), need_peer("tokenizers", "tokenizers")
    import torch

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocab = {name: i for i, name in enumerate(names)}
    vocab |= {f"{'##' if IS_CONTINUATION[i] else ''}t{i}": i for i in range(len(names), VOCAB)}
    special = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), names, strict=True))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(tokenizers.models.WordPiece(vocab, unk_token="[UNK]")), **special
    )
    if kind == "word":
        warnings.filterwarnings("ignore", message="Random token replacement is not supported")
    collate = transformers.DataCollatorForLanguageModeling(
        tokenizer, mlm_probability=RATE, whole_word_mask=kind == "word", seed=0
    )
    examples: list[dict] = [{"input_ids": row} for row in rows.tolist()]
    if kind == "word":
        # pieces of a word touch, words are a space apart; (0, 0) for special tokens, as the tokenizer gives them
        for example, row in zip(examples, rows, strict=True):
            end = np.cumsum(np.where(IS_CONTINUATION[row], 3, 4))
            offsets = np.stack([end - 3, end], axis=1)
            offsets[row < len(SPECIALS)] = 0
            example["offset_mapping"] = offsets.tolist()
            example["special_tokens_mask"] = (row < len(SPECIALS)).astype(int).tolist()

    def run():
        batch = collate(examples)
        return batch["input_ids"], batch["labels"]

    if kind == "tensors only":
        collate.create_rng()
        ready, mask = torch.from_numpy(rows), torch.from_numpy(rows < len(SPECIALS))

        def run():
            return collate.torch_mask_tokens(ready.clone(), special_tokens_mask=mask)

    input_ids, labels = (x.numpy() for x in run())
    # with whole words it puts [MASK] for every chosen token, which is less work
    check(rows, input_ids, labels != -100, mask_prob=1.0 if kind == "word" else 0.8)
    return run


CONTESTANTS: dict[str, Callable[[np.ndarray], Callable[[], Any]]] = {
    "fastbert token": lambda rows: ours(rows, "token", "cpp"),
    "fastbert word": lambda rows: ours(rows, "word", "cpp"),
    "fastbert span": lambda rows: ours(rows, "span", "cpp"),
    "fastbert token, Python twin": lambda rows: ours(rows, "token", "reference"),
    "numpy token": vectorised_numpy,
    "transformers token": lambda rows: collator(rows, "token"),
    "transformers token, tensors only": lambda rows: collator(rows, "tensors only"),
    "transformers word": lambda rows: collator(rows, "word"),
}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("name", CONTESTANTS)
def test_masking(benchmark, name, shape):
    """tokens/s = B * L / time."""
    run = CONTESTANTS[name](make_rows(*shape))
    benchmark.group = f"masking {shape[0]}x{shape[1]}"
    benchmark.pedantic(run, rounds=20, warmup_rounds=2)
    note_rate(benchmark, "tokens_per_s", shape[0] * shape[1])


class Ids:
    """A tokenizer's special ids, all that the loader needs of it."""

    pad_id, unk_id, cls_id, sep_id, mask_id = SPECIALS
    is_continuation = IS_CONTINUATION

    def __len__(self) -> int:
        return VOCAB


def make_store() -> MemoryStore:
    rng = np.random.default_rng(0)
    return MemoryStore([[rng.integers(5, VOCAB, rng.integers(3, 60)).tolist() for _ in range(40)] for _ in range(1500)])


def load_epoch(store: MemoryStore, **options: Any) -> tuple[int, float, float]:
    """Return tokens of an epoch, CPU seconds, and the part of the slots filled."""
    with BatchLoader(store, store.spans, Ids(), batch_tokens=16384, max_length=128, seed=0, **options) as loader:
        begin, tokens, batches = time.process_time(), 0, 0
        while loader.epoch < 1:
            batch = loader.next_batch(RATE)
            tokens += batch.num_tokens
            batches += 1
        return tokens, time.process_time() - begin, tokens / (16384 * batches)


@pytest.mark.parametrize("objective", ["mlm", "mlm+nsp"])
def test_loader(benchmark, objective):
    """From the token store to masked batches: order, packing, assembly, masking."""
    store = make_store()
    tokens, _, filled = load_epoch(store, objective=objective)
    assert filled >= 0.98
    benchmark.group = "loader"
    benchmark.pedantic(load_epoch, args=(store,), kwargs={"objective": objective, "prefetch": 0}, rounds=3)
    note_rate(benchmark, "tokens_per_s", tokens)


def seconds_of(run: Callable[[], Any], number: int) -> float:
    """CPU seconds of the process, all threads: what else runs on the machine counts little."""
    return seconds(lambda: [run() for _ in range(number)]) / number


def main() -> None:
    """Turns of at least 3 ms in random order, 15 rounds; medians, tokens/s and the ratio to fastbert token."""
    for shape in SHAPES:
        runs = {name: make(make_rows(*shape)) for name, make in CONTESTANTS.items()}
        turn = {name: 1 + int(0.003 / seconds_of(run, 3)) for name, run in runs.items()}
        times: dict[str, list[float]] = {name: [] for name in runs}
        order = random.Random(0)
        for _ in range(15):
            for name in order.sample(list(runs), len(runs)):
                times[name].append(seconds_of(runs[name], turn[name]))
        tokens = shape[0] * shape[1]
        best = statistics.median(times["fastbert token"])
        print(f"\n{shape[0]} x {shape[1]} tokens")
        for name, values in times.items():
            median = statistics.median(values)
            rate = tokens / median / 1e6
            print(f"  {name:36}{median * 1e6:10.1f} us {rate:9.1f} M tokens/s  x {median / best:7.1f}")
    store = make_store()
    for options in ({"objective": "mlm"}, {"objective": "mlm+nsp"}, {"objective": "mlm+nsp", "mask_unit": "span"}):
        runs_of = [load_epoch(store, prefetch=0, **options) for _ in range(3)]
        rate = statistics.median(tokens / seconds for tokens, seconds, _ in runs_of) / 1e6
        print(f"store to masked batches, one thread, {options}: {rate:.1f} M tokens/s, {runs_of[0][2]:.2%} filled")


if __name__ == "__main__":
    main()
