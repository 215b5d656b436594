"""``--config FILE``: the options of a command in a TOML file, and the file that a run writes back.

    # options.toml
    data = ["book.txt"]
    preset = "small"
    minutes = 30

Options on the command line take precedence. A value must be one that the option could have; nothing is guessed.
"""

import dataclasses
import difflib
import importlib
import json
import math
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastbert.system.atomic_write import written_whole
from fastbert.system.errors import InputError

NAME = "options.toml"  # in the directory of a run
NOT_REUSED = ("output", "resume", "stop_after", "watch")  # where a run went and when it stopped, not what it is


def take_config(argv: Sequence[str]) -> tuple[list[str], Path | None]:
    """The arguments without ``--config FILE``, and the file.

    Raises:
        InputError: no file is named, or several.
    """
    rest, found, arguments = [], [], iter(argv)
    for argument in arguments:
        if argument == "--":
            rest += [argument, *arguments]
        elif argument == "--config":
            found.append(next(arguments, ""))
        elif argument.startswith("--config="):
            found.append(argument.partition("=")[2])
        else:
            rest.append(argument)
    if len(found) > 1 or found == [""]:
        raise InputError(f"--config: is given {len(found)} times or without a file. Try: --config FILE, once")
    return rest, Path(found[0]) if found else None


def read_config(path: Path, options_type: type) -> dict[str, Any]:
    """The values of a file, by the names of the options' fields.

    Raises:
        InputError: the file cannot be read, names an option that the command lacks, or has a value of another type.
    """
    values = _read_toml(path)
    hints = typing.get_type_hints(options_type, include_extras=True)
    names = {field.name for field in dataclasses.fields(options_type)}
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            raise InputError(f"{path}: {key} is no option of this command. Try: {near[0] if near else '--help'}")
        if name in found:
            raise InputError(f"{path}: {key} stands there twice. Try: once")
        try:
            found[name] = _fitted(value, hints[name])
        except ValueError as error:
            raise InputError(f"{path}: {key} = {json.dumps(value, default=str)[:60]}: expected {error}") from None
    return found


def _read_toml(path: Path) -> dict[str, Any]:
    tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise InputError(f"--config {path}: cannot be read ({error.strerror}). Try: another file") from None
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f'--config {path}: is no TOML ({reason}). Try: lines such as preset = "small"') from None


def _fitted(value: Any, hint: Any) -> Any:
    """The value, if an option of this type can have it; ValueError says what it can have."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _fitted(value, inner[0])
    if origin in (typing.Union, types.UnionType):
        expected = []
        for alternative in inner:
            if alternative is type(None):
                continue
            try:
                return _fitted(value, alternative)
            except ValueError as error:
                expected.append(str(error))
        raise ValueError(" or ".join(expected))
    if origin is typing.Literal:
        if value in inner and type(value) in map(type, inner):
            return value
        raise ValueError(f"one of {', '.join(map(str, inner))}")
    if origin is list:
        if isinstance(value, list):
            return [_fitted(item, inner[0]) for item in value]
        raise ValueError("a list")
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is hint:
        return value
    raise ValueError({bool: "true or false", int: "a whole number", float: "a number"}.get(hint, "a text in quotes"))


def write_options(directory: Path, options: Mapping[str, Any], command: str) -> None:
    """Write the options of a run for :func:`read_config`; those that are None or its place are left out."""
    lines = [f"# the options of this run; python -m fastbert.{command} --config {NAME} uses them again"]
    for name, value in options.items():
        if value is not None and name not in NOT_REUSED:
            lines.append(f"{name} = {_toml(value)}")
    with written_whole(directory / NAME) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, int):
        return str(value)
    # JSON's escapes are TOML's, but for one control character
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
