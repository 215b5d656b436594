"""The compiled C++ core ``fastbert._C``, or why it cannot be used.

``impl`` follows the same words everywhere: "auto" takes the core when it is there, "cpp" insists on it, "reference"
takes the pure-Python twin. The environment variable ``FASTBERT_IMPL`` sets what "auto" means.
"""

import functools
import importlib.util
import os
import warnings
from pathlib import Path
from types import ModuleType

SOURCES = Path(__file__).resolve().parents[2] / "csrc"  # there in a source tree only


@functools.cache
def _load() -> tuple[ModuleType | None, str]:
    try:
        from fastbert import _C  # type: ignore[attr-defined]
    except ImportError as error:
        built = importlib.util.find_spec("fastbert._C") is not None
        return None, str(error) if built else "it was not compiled at install"
    if is_stale(Path(_C.__file__), SOURCES):
        warnings.warn(
            f"{SOURCES} has changed since fastbert's C++ core was compiled: what is new there may fail. "
            "Remedy: run `pip install -e .` again.",
            stacklevel=4,
        )
    return _C, ""


def is_stale(core: Path, sources: Path) -> bool:
    """Whether any of the sources is younger than the core."""
    compiled = core.stat().st_mtime
    return any(p.stat().st_mtime > compiled for p in sources.glob("**/*") if p.suffix in (".cpp", ".h"))


def status() -> tuple[bool, str]:
    """Whether the core is there, and if not, why."""
    module, why = _load()
    return module is not None, why


@functools.cache
def _warn_once(why: str) -> None:
    warnings.warn(
        f"fastbert's C++ core is not available ({why}); the pure-Python twins are used, which give the same results "
        "many times slower. Remedy: install a C++17 compiler and run `pip install -e .` again.",
        stacklevel=3,
    )


def core(impl: str = "auto") -> ModuleType | None:
    """Return the C++ core, or None when the pure-Python twin is to be used.

    Raises:
        ValueError: unknown ``impl``.
        RuntimeError: ``impl="cpp"`` and the core is not there.
    """
    if impl == "auto":
        wished = os.environ.get("FASTBERT_IMPL", "auto")
        impl = wished if wished in ("reference", "cpp") else "auto"  # "triton" says nothing about text
    if impl == "reference":
        return None
    if impl not in ("auto", "cpp"):
        raise ValueError(f"impl={impl!r}: expected 'auto', 'cpp' or 'reference'")
    module, why = _load()
    if module is None:
        if impl == "cpp":
            raise RuntimeError(
                f"impl='cpp' was asked for and the C++ core cannot be loaded: {why}. "
                "Remedy: install a C++17 compiler and run `pip install -e .` again."
            )
        _warn_once(why)
    return module


def compute() -> ModuleType:
    """The C++ core for the CPU kernels, whatever ``FASTBERT_IMPL`` says of the text engine.

    Raises:
        RuntimeError: the core is not there.
    """
    module, why = _load()
    if module is None:
        raise RuntimeError(f"the C++ core cannot be loaded: {why}. Remedy: impl='reference'")
    return module
