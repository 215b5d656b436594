"""JSON from files that anybody may have written or damaged: read as a dictionary, each field checked before use."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastbert.system.errors import InputError

MAX_BYTES = 256 << 20  # a vocabulary of millions of entries fits; a file that is no JSON at all is not swallowed


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        InputError: the file is not there, cannot be read, or holds no JSON object; the line ends with ``remedy``.
    """
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise InputError(f"{path}: has {size:,} bytes, too many for a file of its kind: {remedy}")
        value = json.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: missing: {remedy}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): {remedy}") from None
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: is damaged, no valid JSON ({reason}): {remedy}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds {type(value).__name__} where a JSON object is expected: {remedy}")
    return value


class Fields:
    """The fields of a JSON object, each with the type and the range it must have.

    Args:
        source: what an error names: a path, or a path and a place in it.
        remedy: how an error ends.
    """

    def __init__(self, values: object, source: str, remedy: str):
        self.source, self.remedy = source, remedy
        if not isinstance(values, Mapping):
            raise InputError(f"{source}: {_shown(values)} where an object is expected: {remedy}")
        self.values = values

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def refuse(self, name: str, expected: str) -> InputError:
        got = _shown(self.values[name]) if name in self.values else "missing"
        return InputError(f"{self.source}: {name} is {got}, expected {expected}: {self.remedy}")

    def _value(self, name: str, default: object, expected: str) -> Any:
        if self.values.get(name) is None:
            if default is None:
                raise self.refuse(name, expected)
            return default
        return self.values[name]

    def integer(self, name: str, default: int | None = None, low: int = 0, high: int = 2**31 - 1) -> int:
        """A whole number low … high; absent or null is the default, if there is one."""
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
    """Half of a surrogate pair, which JSON can spell and no file name or vocabulary can hold."""
    return any(0xD800 <= ord(c) <= 0xDFFF for c in text)


def _shown(value: object) -> str:
    """A value in an error message: short, one line, plain ASCII."""
    text = ascii(value) if not isinstance(value, list | dict) else f"{type(value).__name__} of {len(value)}"
    return text if len(text) <= 40 else text[:37] + "..."
