"""The raters' answers: JSON files saved by the page, or completed CSV sheets."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastbert.data.corpus.records import read_records
from fastbert.evaluation.human_sheet import KEY_FORMAT
from fastbert.system.errors import InputError


@dataclass(frozen=True)
class Key:
    """The system of each text of a sheet."""

    path: str
    sheet: str
    criteria: tuple[str, ...]
    points: int
    items: dict[str, tuple[str, int]]  # item id → system, number of the input

    @property
    def systems(self) -> list[str]:
        return sorted({system for system, _ in self.items.values()})


@dataclass(frozen=True)
class Rating:
    """One rating by one rater."""

    rater: str
    item: str
    criterion: str
    value: int


def read_key(path: str | Path) -> Key:
    """Read ``key.json`` (or the directory that holds it).

    Raises:
        InputError: it cannot be read, or is not a key.
    """
    path = Path(path)
    path = path / "key.json" if path.is_dir() else path
    content = _json(path)
    try:
        if content["format"] != KEY_FORMAT:
            raise ValueError
        items = {str(i): (str(v["system"]), int(v["input"])) for i, v in content["items"].items()}
        key = Key(str(path), str(content["sheet"]), tuple(content["criteria"]), int(content["points"]), items)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError(f"{path}: is not the key of a sheet. Try: the key.json written by `human make`") from None
    return key


def read_answers(paths: Sequence[str | Path], key: Key) -> list[Rating]:
    """Read the files of several raters; missing ratings are allowed.

    Args:
        paths: ``.json`` files saved by the page, or completed sheets (``.csv``, ``.tsv``, compressed …), whose rater is
            in the column "rater" or otherwise the name of the file.
        key: of the sheet.

    Raises:
        InputError: a file that cannot be read or belongs to another sheet, an unknown item, a number out of range, a
            rater twice, or no ratings.
    """
    if not paths:
        raise InputError("no answers. Try: the files saved by the raters")
    ratings: list[Rating] = []
    seen: dict[str, str] = {}
    for path in map(Path, paths):
        found = _read_json(path, key) if path.suffix.lower() == ".json" else _read_csv(path, key)
        for rater in dict.fromkeys(rating.rater for rating in found):
            if rater in seen:
                raise InputError(f"{path}: rater {rater!r} has answers in {seen[rater]} too. Try: one file per rater")
            seen[rater] = str(path)
        ratings += found
    if not ratings:
        raise InputError(f"{', '.join(map(str, paths))}: no ratings. Try: rate some texts and save again")
    return ratings


def _read_json(path: Path, key: Key) -> list[Rating]:
    content = _json(path)
    if not isinstance(content, dict) or not isinstance(content.get("answers"), dict):
        raise InputError(f"{path}: holds no answers. Try: a file saved by the page of the sheet")
    _same_sheet(str(path), content.get("sheet"), key)
    rater = content.get("rater")
    if not isinstance(rater, str) or not rater.strip():
        raise InputError(f'{path}: has no rater\'s name. Try: fill in the field "rater"')
    ratings = []
    for item, given in content["answers"].items():
        if not isinstance(given, dict):
            raise InputError(f"{path}, item {item}: expected an object of ratings")
        for criterion, value in given.items():
            if criterion != "comment":
                ratings.append(_rating(f"{path}, item {item}", rater.strip(), item, criterion, value, key))
    return ratings


def _read_csv(path: Path, key: Key) -> list[Rating]:
    ratings = []
    for where, record in read_records(str(path)):
        row = {name: "" if value is None else str(value).strip() for name, value in record.items()}
        if missing := [name for name in ("item", *key.criteria) if name not in row]:
            raise InputError(f"{path}: has no column {', '.join(missing)}. Try: keep the header row of sheet.csv")
        if not any(row.values()):
            continue
        _same_sheet(where, row.get("sheet") or key.sheet, key)
        rater = row.get("rater") or path.stem
        for criterion in key.criteria:
            if row[criterion]:
                ratings.append(_rating(where, rater, row["item"], criterion, row[criterion], key))
    return ratings


def _same_sheet(where: str, sheet: object, key: Key) -> None:
    if sheet != key.sheet:
        raise InputError(f"{where}: answers sheet {sheet}, {key.path} belongs to sheet {key.sheet}. Try: its own key")


def _rating(where: str, rater: str, item: str, criterion: str, value: object, key: Key) -> Rating:
    if item not in key.items:
        raise InputError(f"{where}: the sheet has no item {item!r}. Try: leave the column unchanged")
    if criterion not in key.criteria:
        raise InputError(f"{where}: unknown criterion {criterion!r}: expected {', '.join(key.criteria)}")
    number: int | None = None
    if isinstance(value, str):
        number = int(value) if value.isascii() and value.isdigit() else None
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    if number is None or not 1 <= number <= key.points:
        raise InputError(f"{where}: {criterion} is {value!r}: expected an integer from 1 to {key.points}")
    return Rating(rater, item, criterion, number)


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: is not valid JSON ({error.msg}). Try: save it again") from None
    except RecursionError:
        raise InputError(f"{path}: nests too deeply. Try: a file saved by the page of the sheet") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 (byte {error.start}). Try: save it as UTF-8") from None
