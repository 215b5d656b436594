"""Builds cuda_guard.cpp once for this PyTorch and loads it; must run before torch is imported."""

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("cuda_guard.cpp")
COMPILERS = ("g++", "c++", "clang++")


def torch_directory() -> Path:
    found = importlib.util.find_spec("torch")
    assert found is not None and found.origin is not None
    return Path(found.origin).parent


def missing() -> str | None:
    """Why this machine cannot pretend, or None."""
    if (torch_directory() / "lib" / "libtorch_cuda.so").exists():
        return "this PyTorch is a CUDA build, which has hooks of its own"
    if not (torch_directory() / "lib" / "libtorch_cpu.so").exists():
        return "no libtorch_cpu.so: not Linux"
    if not any(map(shutil.which, COMPILERS)):
        return "no C++ compiler"
    return None


def build(name: str = "cuda_guard", *more: Path) -> Path:
    """The shared library of the guard and ``more`` C++ files, compiled if no earlier session has."""
    sources = [SOURCE, *more]
    version = importlib.metadata.version("torch")
    text = b"".join(source.read_bytes() for source in sources)
    key = hashlib.sha256(text + version.encode() + str(torch_directory()).encode()).hexdigest()[:16]
    made = SOURCE.parents[1] / ".build" / f"{name}-{key}.so"
    if made.exists():
        return made
    made.parent.mkdir(exist_ok=True)
    root = torch_directory()
    compiler = next(name for name in COMPILERS if shutil.which(name))
    with tempfile.TemporaryDirectory(dir=made.parent) as work:
        library = Path(work) / made.name
        command = [
            compiler, "-O1", "-std=c++20", "-shared", "-fPIC", f"-I{root}/include", *map(str, sources), "-o",
            str(library), f"-L{root}/lib", "-lc10", "-ltorch_cpu",
        ]  # fmt: skip
        subprocess.run(command, check=True)
        library.rename(made)
    return made


def load(library: Path | None = None) -> None:
    lib = torch_directory() / "lib"
    for name in ("libtorch_global_deps.so", "libc10.so", "libtorch_cpu.so"):
        if (lib / name).exists():
            ctypes.CDLL(str(lib / name), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(library or build()))
