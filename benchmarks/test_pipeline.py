"""Raw text file to packed, masked batches, as one run on one thread.

    pytest benchmarks/test_pipeline.py           pytest-benchmark's tables
    python benchmarks/test_pipeline.py [MB]      tokens per CPU second, and the part of the slots that is filled

A run reads the file, tokenizes it into a token store on disk, opens that, and hands out every batch of one epoch,
masked: the arrays of a `PackedBatch`. Tokens are those of the store; [CLS] and [SEP] come on top. The text is
that of benchmarks/test_tokenizer.py. Before anything is timed, one run's batches are put back together: every token of
the store is there once, and the labels are the tokens that were masked.
"""

import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import seconds, take_turns
from texts import corpus

from fastbert.batch import PackedBatch
from fastbert.data import BatchLoader, Corpus, TokenStore, write_store
from fastbert.data.batches.split import split_documents
from fastbert.text import Tokenizer

BUDGETS = (4096, 16_384, 65_536)
MAX_LENGTH = 128
ROUNDS = 5


def text_file(language: str, megabytes: float, folder: Path) -> tuple[Path, Tokenizer]:
    """A file of documents of 50 lines."""
    text = corpus(language, megabytes)
    path = folder / f"{language}.txt"
    blocks = ("\n".join(text.lines[i : i + 50]) for i in range(0, len(text.lines), 50))
    path.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    return path, text.tokenizer()


def batches_of(
    path: Path, tokenizer: Tokenizer, batch_tokens: int, folder: Path
) -> tuple[TokenStore, list[PackedBatch]]:
    """One run: the file in, the masked batches of one epoch out."""
    with tempfile.TemporaryDirectory(dir=folder) as directory:
        store = write_store(Path(directory) / "tokens", Corpus([str(path)]), tokenizer, threads=1)
        spans = split_documents(store, fraction=0.0).train
        options = {"batch_tokens": batch_tokens, "max_length": MAX_LENGTH, "prefetch": 0}
        with BatchLoader(store, spans, tokenizer, **options) as loader:
            batches = []
            while loader.epoch < 1:
                batches.append(loader.next_batch(0.15))
        return store, batches


def check(path: Path, tokenizer: Tokenizer, batch_tokens: int, folder: Path) -> tuple[int, float]:
    """Return the tokens of a run and the part of the slots that is filled."""
    store, batches = batches_of(path, tokenizer, batch_tokens, folder)
    specials = torch.tensor([tokenizer.cls_id, tokenizer.sep_id])
    found = []
    for batch in batches:
        assert batch.num_tokens <= batch_tokens and batch.cu_seqlens[-1] == batch.num_tokens
        ids = batch.input_ids.clone()
        ids[batch.masked_index] = batch.labels
        found.append(ids[~torch.isin(ids, specials)].numpy())
    expected = tokenizer.encode_file(path, add_special_tokens=False, split_special_tokens=True).input_ids
    assert np.array_equal(np.bincount(np.concatenate(found)), np.bincount(expected))
    filled = sum(batch.num_tokens for batch in batches) / (len(batches) * batch_tokens)
    return store.num_tokens, filled


@pytest.mark.parametrize("language", ["en", "pt"])
@pytest.mark.parametrize("batch_tokens", BUDGETS)
def test_pipeline(benchmark, language, batch_tokens, tmp_path):
    path, tokenizer = text_file(language, 8.0, tmp_path)
    tokens, filled = check(path, tokenizer, batch_tokens, tmp_path)
    benchmark.extra_info.update(tokens=tokens, filled=round(filled, 4))
    benchmark.pedantic(batches_of, args=(path, tokenizer, batch_tokens, tmp_path), rounds=ROUNDS)


def main() -> None:
    torch.set_num_threads(1)
    megabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for language in ("en", "pt"):
            path, tokenizer = text_file(language, megabytes, folder)
            sizes = {budget: check(path, tokenizer, budget, folder) for budget in BUDGETS}
            run = lambda budget: seconds(lambda: batches_of(path, tokenizer, budget, folder))  # noqa: B023, E731
            times = take_turns(BUDGETS, ROUNDS, run)
            print(f"{language}: {path.stat().st_size / 1e6:.1f} MB")
            for budget, (tokens, filled) in sizes.items():
                median, best = tokens / statistics.median(times[budget]), tokens / min(times[budget])
                print(
                    f"  budget {budget:6,}: {tokens:,} tokens, {median / 1e6:.1f} million per CPU second "
                    f"(best {best / 1e6:.1f}), {filled:.2%} of the slots filled"
                )


if __name__ == "__main__":
    main()
