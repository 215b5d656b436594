"""``python -m fastbert.tokenize``: a corpus to a token store, optionally in parts on several machines."""

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastbert.data import Corpus, TokenStore, merge_stores, write_store
from fastbert.data.store.unknown import report_unknown
from fastbert.system.cli import run, unset
from fastbert.system.errors import InputError


@dataclass(frozen=True)
class TokenizeOptions:
    """Tokenize text into a store, which `python -m fastbert.train --data STORE` reads without tokenizing again.

    Repeat the command to resume an interrupted run. With --shard i/n, n such commands (on any machines, in any order)
    each create a part, OUTPUT/part-i-of-n; --merge joins them into one store.
    """

    output: Path
    """Output directory of the store (with --shard: of the parts)."""
    data: tuple[str, ...] = ()
    """Files, folders, globs, URLs, "-" for standard input, or bundled:pt and bundled:en. Formats by ending: .txt .jsonl
    .csv .tsv .parquet, each also .gz .xz .bz2 .zst."""
    tokenizer: Annotated[Path | None, unset("DIR")] = None
    """Directory with the vocab.txt of the tokenizer, for example a run."""
    lowercase: bool = False
    """Read a vocab.txt as uncased whose directory does not say it."""
    no_lowercase: bool = False
    """Read such a vocab.txt as cased (default: as its entries are)."""
    text_field: Annotated[str | None, unset("NAME")] = None
    """Field with the text in .json, .jsonl, .csv, .tsv and .parquet; default "text". "a.b" is field b of the object in
    field a; "a,b" joins two fields."""
    shard: str = "1/1"
    """Create the i-th of n parts, 1/n to n/n: every n-th file if there are enough, otherwise every n-th document."""
    threads: Annotated[int | None, unset("N")] = None
    """Threads of the tokenizer; default: all CPUs of the process."""
    merge: tuple[str, ...] = ()
    """Stores to join into OUTPUT, in this order, instead of --data."""
    verify: bool = False
    """Read the store again and verify its checksums; without --data and --merge, verify the store at OUTPUT."""


def main(options: TokenizeOptions) -> None:
    started_s = time.monotonic()
    if options.merge and options.data:
        raise InputError("--merge and --data exclude each other. Try: only one of them")
    if options.merge:
        store = merge_stores(options.merge, options.output)
    elif options.data:
        store = tokenize(options)
    elif options.verify:
        store = TokenStore.open(options.output)
    else:
        raise InputError("--data: missing. Try: --data texts/ or --data bundled:pt")
    if options.verify:
        store.verify()
    seconds = time.monotonic() - started_s
    print(
        f"{store.directory}: {store.num_tokens:,} tokens ({store.dtype.name}) in {store.num_sentences:,} lines of "
        f"{store.num_documents:,} documents, {store.num_unknown / store.num_tokens:.2%} [UNK]"
        f"{', checksums right' if options.verify else ''}; {seconds:.1f} s"
    )


def tokenize(options: TokenizeOptions) -> TokenStore:
    """Create the store, or the part of it given by --shard."""
    if options.tokenizer is None:
        raise InputError("--tokenizer: missing. Try: a directory with a vocab.txt, for example a run")
    if options.threads is not None and options.threads < 1:
        raise InputError(f"--threads {options.threads}: expected at least 1")
    index, count = parse_shard(options.shard)
    from fastbert.text import Tokenizer

    if options.lowercase and options.no_lowercase:
        raise InputError("--lowercase and --no-lowercase exclude each other. Try: one of them")
    case = False if options.no_lowercase else True if options.lowercase else None
    tokenizer = Tokenizer.load(options.tokenizer, lowercase=case)
    output = options.output if count == 1 else options.output / f"part-{index + 1}-of-{count}"
    with Corpus(options.data, options.text_field) as corpus, shown_progress() as progress:
        store = write_store(output, corpus, tokenizer, threads=options.threads, progress=progress, shard=(index, count))
        if unknown := report_unknown(store, corpus, tokenizer):
            print(f"warning: {unknown}", file=sys.stderr)
    tokenizer.save(output)  # makes the store self-contained
    return store


def parse_shard(text: str) -> tuple[int, int]:
    """Return (index from 0, count) of "i/n", i from 1."""
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise InputError(f"--shard {text}: expected i/n with i from 1 to n. Try: 1/4, 2/4, 3/4 and 4/4")
    return int(found[1]) - 1, int(found[2])


@contextmanager
def shown_progress() -> Iterator[Callable[[int, int], None] | None]:
    """Show a progress line while the store grows; nothing if standard error is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=None)
        yield lambda tokens, documents: bar.update(task, description=f"{tokens:,} tokens, {documents:,} documents")


if __name__ == "__main__":
    sys.exit(run(main, TokenizeOptions))
