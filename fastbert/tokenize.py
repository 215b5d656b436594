"""``python -m fastbert.tokenize``: a corpus to a token store, optionally in parts on several machines."""

import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from fastbert.data import Corpus, TokenStore, merge_stores, write_store
from fastbert.data.store.unknown import check_unknown
from fastbert.system.cli import run, unset
from fastbert.system.errors import InputError
from fastbert.system.option_checks import require_count
from fastbert.system.progress import shown_progress


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
    .csv .tsv .parquet .arrow, each also .gz .xz .bz2 .zst."""
    tokenizer: Annotated[Path | None, unset("DIR")] = None
    """Directory with the vocab.txt of the tokenizer, for example a run."""
    lowercase: bool = False
    """Read a vocab.txt as uncased whose directory does not say it."""
    no_lowercase: bool = False
    """Read such a vocab.txt as cased (default: as its entries are)."""
    text_field: Annotated[str | None, unset("NAME")] = None
    """Field with the text in records; default "text". "a.b" is field b of the object in field a; "a,b" joins two
    fields."""
    documents: str = "blank"
    """What ends a document of plain text: a blank line, every line (line), only the file (file), or a separator, such
    as "<|endoftext|>". Records are always documents."""
    normalize: Literal["nfc", "none"] = "nfc"
    """nfc composes letters and their accents to one character, as most texts have them; none keeps the text as it
    is."""
    max_word_chars: Annotated[int | None, unset("N")] = None
    """Longer words become one [UNK]; default: that of the tokenizer, as a rule 100."""
    allow_unknown: bool = False
    """Store the text although half of its tokens or more are [UNK]."""
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
    require_count(options, "threads", "max_word_chars")
    index, count = parse_shard(options.shard)
    from fastbert.text import Tokenizer

    if options.lowercase and options.no_lowercase:
        raise InputError("--lowercase and --no-lowercase exclude each other. Try: one of them")
    case = False if options.no_lowercase else True if options.lowercase else None
    tokenizer = Tokenizer.load(options.tokenizer, "auto", options.max_word_chars, case)
    output = options.output if count == 1 else options.output / f"part-{index + 1}-of-{count}"
    corpus = Corpus(options.data, options.text_field, options.documents, options.normalize)
    with corpus, shown_progress() as show:
        store = write_store(
            output, corpus, tokenizer, threads=options.threads, shard=(index, count),
            progress=lambda tokens, documents: show(f"{tokens:,} tokens, {documents:,} documents"),
        )  # fmt: skip
        if unknown := check_unknown(store, corpus, tokenizer, allowed=options.allow_unknown):
            print(f"warning: {unknown}", file=sys.stderr)
    tokenizer.save(output)  # makes the store self-contained
    return store


def parse_shard(text: str) -> tuple[int, int]:
    """Return (index from 0, count) of "i/n", i from 1."""
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise InputError(f"--shard {text}: expected i/n with i from 1 to n. Try: 1/4, 2/4, 3/4 and 4/4")
    return int(found[1]) - 1, int(found[2])


if __name__ == "__main__":
    sys.exit(run(main, TokenizeOptions))
