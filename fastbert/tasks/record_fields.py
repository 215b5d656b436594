"""Fields of the user's records: found by their usual names, checked, and counted where they are not used."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastbert.data.corpus.records import Record
from fastbert.system.errors import InputError


@dataclass(frozen=True)
class FieldNames:
    """The names of the fields in the user's records; None: the usual names. And how labels are written in them."""

    text: str | None = None
    pair: str | None = None
    label: str | None = None
    label_separator: str | None = None  # between the labels of one text, where they are written in one string
    label_names: tuple[str, ...] = ()  # of integer labels or tags, from 0


@dataclass
class Notes:
    """What was repaired or left out while reading: a line each, with a count and the first place."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, what: str, where: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1
        self.first.setdefault(what, where)

    def lines(self) -> list[str]:
        return [f"note: {what} ({count:,} ×, first: {self.first[what]})" for what, count in self.counts.items()]


def value_of(record: Record, where: str, named: str | None, usual: Sequence[str], option: str) -> tuple[str, Any]:
    """The name and the value of a field."""
    names = (named,) if named else usual
    for name in names:
        if name in record:
            return name, record[name]
    present = ", ".join(map(repr, record)) or "none"
    remedy = f"--{option}-field with one of them" if option else "rename it"
    remedy += header_remedy(where)
    raise InputError(f"{where}: has no field {names[0]!r}; its fields: {present}. Try: {remedy}")


def header_remedy(where: str) -> str:
    """What else to try with a file whose first line names its columns, or should."""
    name = where.rpartition(":")[0].lower()
    return ", or a first line with the names of the columns" if ".csv" in name or ".tsv" in name else ""


def note_unused(record: Record, used: Iterable[str], where: str, notes: Notes) -> None:
    known = set(used)
    for name in record:
        if name not in known:
            notes.add(f"field {name!r} is not used", where)


def text_of(value: Any, where: str, name: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where}: {name} is {shown(value)}, expected a string. Try: put it in quotes")
    return value


def shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "…"
