"""What a file of records looks like: how its records are laid out, which fields are read and which are not."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from fastbert.data.corpus.compression import ByteStream
from fastbert.data.corpus.documents import Corpus
from fastbert.data.corpus.formats import field_names
from fastbert.data.corpus.json_values import json_values
from fastbert.data.corpus.records import csv_rows, delimiter_of
from fastbert.data.corpus.sources import Source
from fastbert.data.corpus.text_blocks import BOM, text_blocks
from fastbert.inspect.findings import Finding
from fastbert.system.errors import InputError

MAX_FILES = 20  # whose forms are looked at
MAX_RECORDS = 200  # of each
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "|"}


def findings(corpus: Corpus) -> list[Finding]:
    """One finding for each form of record files; files that cannot be read are passed over."""
    forms: dict[str, list[str]] = {}
    for source in [source for source in corpus.sources if source.format in ("jsonl", "csv", "tsv")][:MAX_FILES]:
        try:
            form = "; ".join(_form(corpus, source))
        except InputError:  # reported by whoever reads all of it
            continue
        forms.setdefault(form, []).append(source.name)
    return [
        Finding("records", f"{names[0]}{f' and {len(names) - 1:,} more' if names[1:] else ''}: {form}", severe=False)
        for form, names in forms.items()
    ]


def _form(corpus: Corpus, source: Source) -> Iterator[str]:
    fields = field_names(corpus.rules.text_field)
    with ByteStream(corpus.opener(source), source.name, source.compression) as stream:
        head = next(text_blocks(stream, records=True), "")
    with ByteStream(corpus.opener(source), source.name, source.compression) as stream:
        if source.format == "jsonl":
            yield from _json_form([value for _, value in islice(json_values(stream), MAX_RECORDS)], head, fields)
        else:
            _, header = next(csv_rows(stream, source.format), (0, []))
            yield f"fields divided by {_NAMES[delimiter_of(head, source.format)]}"
            yield from _not_read(header, fields)
    if BOM in head:
        yield f"{head.count(BOM):,} byte order marks within the file, as of files that were joined, are passed over"


def _json_form(values: Sequence[Any], head: str, fields: Sequence[str]) -> Iterator[str]:
    kinds = {type(value) for value in values}
    of_lines = head.lstrip().startswith("{") or kinds == {str}
    yield "JSON, one record a line" if of_lines else "a JSON array, one record each"
    if str in kinds or list in kinds:
        yield "records are their texts, without fields"
    records = [value for value in values if isinstance(value, dict)]
    lists = [field for field in fields if any(isinstance(record.get(field), list) for record in records)]
    if lists:
        yield f"{', '.join(lists)}: a list of texts, a line each"
    yield from _not_read(dict.fromkeys(name for record in records for name in record), fields)


def _not_read(names: Sequence[str] | dict[str, Any], fields: Sequence[str]) -> Iterator[str]:
    others = [name for name in names if not any(name == field or field.startswith(f"{name}.") for field in fields)]
    if others:
        yield f"not read: {', '.join(others[:8])}{' …' if len(others) > 8 else ''}"
