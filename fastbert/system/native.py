"""The native extension ``fastbert._C``, or the reason it is unavailable.

``impl`` is the same everywhere: "auto" uses the extension if available, "cpp" requires it, "reference" uses the
pure-Python twin. The environment variable ``FASTBERT_IMPL`` sets the meaning of "auto".
"""

import functools
import importlib.util
import os
import warnings
from pathlib import Path
from types import ModuleType

SOURCES = Path(__file__).resolve().parents[2] / "csrc"  # only in a source tree


@functools.cache
def _load() -> tuple[ModuleType | None, str]:
    try:
        from fastbert import _C  # type: ignore[attr-defined]
    except ImportError as error:
        built = importlib.util.find_spec("fastbert._C") is not None
        return None, str(error) if built else "it was not compiled at install"
    if is_stale(Path(_C.__file__), SOURCES):
        warnings.warn(
            f"{SOURCES} has changed since fastbert's C++ core was compiled. Try: pip install -e .",
            stacklevel=4,
        )
    return _C, ""


def is_stale(core: Path, sources: Path) -> bool:
    """Whether any source is newer than the extension."""
    compiled = core.stat().st_mtime
    return any(p.stat().st_mtime > compiled for p in sources.glob("**/*") if p.suffix in (".cpp", ".h"))


def status() -> tuple[bool, str]:
    """Whether the extension is available, and if not, why."""
    module, why = _load()
    return module is not None, why


@functools.cache
def _warn_once(why: str) -> None:
    warnings.warn(
        f"fastbert's C++ core is not available ({why}): the pure-Python twins give the same results, but much slower. "
        "Try: install a C++17 compiler and run `pip install -e .`",
        stacklevel=3,
    )


def core(impl: str = "auto") -> ModuleType | None:
    """Return the extension, or None to use the pure-Python twin.

    Raises:
        ValueError: unknown ``impl``.
        RuntimeError: ``impl="cpp"``, but the extension is unavailable.
    """
    if impl == "auto":
        requested = os.environ.get("FASTBERT_IMPL", "auto")
        impl = requested if requested in ("reference", "cpp") else "auto"  # "triton" does not concern text
    if impl == "reference":
        return None
    if impl not in ("auto", "cpp"):
        raise ValueError(f"impl={impl!r}: expected 'auto', 'cpp' or 'reference'")
    module, why = _load()
    if module is None:
        if impl == "cpp":
            raise RuntimeError(
                f"impl='cpp': the C++ core cannot be loaded ({why}). "
                "Try: install a C++17 compiler and run `pip install -e .`"
            )
        _warn_once(why)
    return module


def compute() -> ModuleType:
    """Return the extension for the CPU kernels, independent of ``FASTBERT_IMPL``.

    Raises:
        RuntimeError: the extension is unavailable.
    """
    module, why = _load()
    if module is None:
        raise RuntimeError(f"the C++ core cannot be loaded ({why}). Try: impl='reference'")
    return module
