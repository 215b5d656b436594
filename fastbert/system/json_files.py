"""JSON from untrusted or damaged files: read as a dictionary, each field validated before use. And JSON lines."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastbert.system.errors import InputError

MAX_BYTES = 256 << 20  # enough for a vocabulary of millions of entries; protects against huge files that are not JSON


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """Read the JSON object in a file.

    Raises:
        InputError: the file is missing, cannot be read, or is not a JSON object; the message ends with ``remedy``.
    """
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise InputError(f"{path}: has {size:,} bytes, too many for this kind of file. Try: {remedy}")
        value = json.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: missing. Try: {remedy}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Try: {remedy}") from None
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: is damaged, not valid JSON ({reason}). Try: {remedy}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: contains {type(value).__name__}, expected a JSON object. Try: {remedy}")
    return value


def json_line(record: Mapping[str, Any]) -> str:
    """A record of a JSON-lines file, its line feed included."""
    return json.dumps(record, ensure_ascii=False) + "\n"


class Fields:
    """The fields of a JSON object, with validated types and ranges.

    Args:
        source: for errors: a path, or a path and a location in it.
        remedy: for errors.
    """

    def __init__(self, values: object, source: str, remedy: str):
        self.source, self.remedy = source, remedy
        if not isinstance(values, Mapping):
            raise InputError(f"{source}: is {shown(values)}, expected an object. Try: {remedy}")
        self.values = values

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def refuse(self, name: str, expected: str) -> InputError:
        got = shown(self.values[name]) if name in self.values else "missing"
        return InputError(f"{self.source}: {name} is {got}, expected {expected}. Try: {self.remedy}")

    def _value(self, name: str, default: object, expected: str) -> Any:
        if self.values.get(name) is None:
            if default is None:
                raise self.refuse(name, expected)
            return default
        return self.values[name]

    def integer(self, name: str, default: int | None = None, low: int = 0, high: int = 2**31 - 1) -> int:
        """A whole number low … high; absent or null gives the default, if any."""
        expected = f"a whole number from {low} to {high}"
        value = self._value(name, default, expected)
        if type(value) is not int or not low <= value <= high:
            raise self.refuse(name, expected)
        return value

    def number(self, name: str, default: float | None = None, low: float = 0.0, high: float = math.inf) -> float:
        """A finite number low … high."""
        expected = f"a number from {low:g} to {high:g}"
        value = self._value(name, default, expected)
        if type(value) not in (int, float) or not low <= value <= high or abs(value) > 1e300:
            raise self.refuse(name, expected)
        return float(value)

    def text(self, name: str, default: str | None = None) -> str:
        value = self._value(name, default, "a string")
        if not isinstance(value, str) or (not value.isascii() and _broken(value)):
            raise self.refuse(name, "a string")
        return value

    def flag(self, name: str, default: bool | None = None) -> bool:
        value = self._value(name, default, "true or false")
        if not isinstance(value, bool):
            raise self.refuse(name, "true or false")
        return value

    def items(self, name: str, default: tuple | None = None) -> list:
        value = self._value(name, default, "a list")
        if not isinstance(value, list | tuple):
            raise self.refuse(name, "a list")
        return list(value)

    def inner(self, name: str, default: Mapping | None = None) -> "Fields":
        """An object within the object; a default of ``{}`` makes it optional."""
        value = self.values.get(name)
        if value is None and default is not None:
            value = default
        if not isinstance(value, Mapping):
            raise self.refuse(name, "an object")
        return Fields(value, f"{self.source}: {name}", self.remedy)


def _broken(text: str) -> bool:
    """Whether it contains half of a surrogate pair, which JSON can spell but UTF-8 cannot."""
    return any(0xD800 <= ord(c) <= 0xDFFF for c in text)


def shown(value: object) -> str:
    """A value in an error message: short, one line, plain ASCII."""
    text = ascii(value) if not isinstance(value, list | dict) else f"{type(value).__name__} of {len(value)}"
    return text if len(text) <= 40 else text[:37] + "..."
