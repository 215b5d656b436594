"""The public names and their signatures, as docs promise them: a change here is a change for every user.

After a deliberate change, ``python tests/test_public_api.py`` writes the file anew.
"""

import enum
import inspect
import json
from pathlib import Path

import fastbert
from fastbert.bert import Bert

RECORD = Path(__file__).parent / "data" / "public_api.json"
# between the package's own modules; no page promises them
INTERNAL = (
    "PackedBatch.filled_up", "PackedBatch.padded_to", "PackedBatch.padded_to_multiple", "reference.self_attention",
    "reference.turned",
)  # fmt: skip
INTERNAL_KEYWORDS = ("word", "source", "embedding_table", "unique_index")


def public_names(module) -> list[str]:
    """``__all__``, or what a module defines itself without a leading underscore."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    )


def parameters(function) -> list[str]:
    """Each parameter as ``kind name=default``; annotations are left out, they may be made sharper."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # an exception's constructor is Python's own
        return []
    found = []
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name in INTERNAL_KEYWORDS:
            continue
        default = parameter.default
        default = default.value if isinstance(default, enum.Enum) else default
        if callable(default):
            default = getattr(default, "__name__", "…")
        suffix = "" if parameter.default is inspect.Parameter.empty else f"={default!r}"
        found.append(f"{parameter.kind.description} {parameter.name}{suffix}")
    return found


def describe(value, path: str) -> object:
    """Of a function its parameters; of a class those of its constructor and of its public methods and properties."""
    if inspect.isclass(value):
        members: dict[str, object] = {} if value.__init__ is object.__init__ else {"()": parameters(value)}
        for name, member in inspect.getmembers(value):
            ours = any(name in vars(kind) for kind in value.__mro__ if kind.__module__.startswith("fastbert"))
            if name.startswith("_") or not ours or f"{path}.{name}" in INTERNAL:
                continue
            members[name] = parameters(member) if callable(member) else type(member).__name__
        return members
    return parameters(value) if callable(value) else type(value).__name__


def describe_api() -> dict[str, object]:
    api: dict[str, object] = {}
    for name in sorted(fastbert.__all__):
        value = getattr(fastbert, name)
        if inspect.ismodule(value):
            inside = {f"{name}.{inner}": getattr(value, inner) for inner in public_names(value)}
            api |= {path: describe(inner, path) for path, inner in inside.items() if path not in INTERNAL}
        else:
            api[name] = describe(value, name)
    return api | {"load().Bert": describe(Bert, "Bert")}


def test_public_names_and_signatures():
    recorded, now = json.loads(RECORD.read_text(encoding="utf-8")), json.loads(json.dumps(describe_api()))
    gone = sorted(recorded.keys() - now.keys())
    assert not gone, f"public names that are gone: {gone}"
    for name, signature in recorded.items():
        assert now[name] == signature, f"{name}: another signature"


def test_new_names_are_recorded():
    assert sorted(describe_api()) == sorted(json.loads(RECORD.read_text(encoding="utf-8")))


if __name__ == "__main__":
    RECORD.write_text(json.dumps(describe_api(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
