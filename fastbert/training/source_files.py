"""The files that a run's tokens were made from, so that a resumed run can say what has become of them."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from fastbert.data import Corpus
from fastbert.data.corpus.sources import BUNDLED_PREFIX, STANDARD_INPUT, Source, find_sources
from fastbert.system.atomic_write import write_durably
from fastbert.system.errors import InputError
from fastbert.system.json_files import Fields, read_object

NAME = "sources.json"
_SHOWN = 3


def is_local(name: str) -> bool:
    """Whether an item of ``--data`` names files here: not standard input, a URL or a bundled text."""
    return name != STANDARD_INPUT and "://" not in name and not name.startswith(BUNDLED_PREFIX)


def absolute(name: str, folder: str) -> str:
    """An item of ``--data`` that was given in ``folder``, as it is called anywhere."""
    return os.path.join(folder, os.path.expanduser(name)) if is_local(name) else name


def write(directory: Path, corpus: Corpus) -> None:
    """Write the files of a corpus beside its tokens."""
    files = [
        {"path": _place(source), "bytes": source.size, "modified_ns": source.modified_ns}
        for source in corpus.sources
        if is_local(source.name) and not source.once
    ]
    write_durably(directory / NAME, json.dumps({"files": files}))


def describe_changes(directory: Path, data: Sequence[str]) -> str:
    """Which files are gone, changed or new since the tokens were stored, in one line; "" if none is."""
    if not (directory / NAME).is_file():  # a run of an older version
        return ""
    remedy = f"delete {directory / NAME}"
    fields = Fields(read_object(directory / NAME, remedy), str(directory / NAME), remedy)
    known = {}
    for number, values in enumerate(fields.items("files")):
        one = Fields(values, f"{directory / NAME}: files[{number}]", remedy)
        known[one.text("path")] = (one.integer("bytes", low=-1, high=2**62), one.integer("modified_ns", high=2**63))
    now = {_place(source): (source.size, source.modified_ns) for source in _found(data)}
    gone = [path for path in known if path not in now and not os.path.exists(path)]
    changed = [path for path, facts in known.items() if path in now and now[path] != facts]
    new = [path for path in now if path not in known]
    kinds = (gone, "gone"), (changed, "changed"), (new, "new")
    return "; ".join(f"{kind}: {_listed(paths)}" for paths, kind in kinds if paths)


def _place(source: Source) -> str:
    """The absolute path, for names that are not UTF-8 with U+FFFD."""
    return os.fsencode(os.path.abspath(source.path)).decode("utf-8", "replace")


def _found(data: Sequence[str]) -> list[Source]:
    found = []
    for name in data:
        try:
            found += find_sources([name]) if is_local(name) else []
        except InputError:  # gone, unreadable or empty: reported by comparison
            continue
    return [source for source in found if not source.once]


def _listed(paths: list[str]) -> str:
    more = len(paths) - _SHOWN
    return ", ".join(paths[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
