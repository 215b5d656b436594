"""Builds fastbert._C, the C++ core. Everything declarative is in pyproject.toml.

The extension links neither libtorch nor libpython, so one binary serves every torch. It is compiled through
torch.utils.cpp_extension where a torch can be seen (also the one in the environment being installed into, which an
isolated build hides), else through setuptools alone.

FASTBERT_NATIVE=1 makes a failed compile an error, 0 skips it, unset warns and installs the pure-Python twins only.
"""

import importlib.util
import os
import sys
import sysconfig
import warnings
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
MODE = os.environ.get("FASTBERT_NATIVE", "auto")


def outer_site_packages() -> list[str]:
    """The site-packages being installed into: pip's build isolation keeps them off sys.path."""
    places = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    if venv := os.environ.get("VIRTUAL_ENV"):
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        places.append(os.path.join(venv, "lib", version, "site-packages"))
    return [p for p in dict.fromkeys(places) if p and os.path.isdir(p)]


def torch_build_ext():
    """torch's BuildExtension, or None where no usable torch can be seen."""
    if importlib.util.find_spec("torch") is None:
        outer = next((p for p in outer_site_packages() if os.path.isdir(os.path.join(p, "torch", "utils"))), None)
        if outer is None:
            return None
        sys.path.append(outer)  # last, so that it never shadows the build requirements
    try:
        from torch.utils.cpp_extension import BuildExtension
    except Exception as error:
        print(f"fastbert: torch is not usable at build time ({error}); building with setuptools", flush=True)
        return None
    return BuildExtension


def compiling() -> bool:
    """Metadata-only calls (egg_info, dist_info) compile nothing and need not import torch."""
    commands = ("build_ext", "build", "bdist_wheel", "editable_wheel", "develop")
    return MODE != "0" and any(command in sys.argv for command in commands)


Base = (torch_build_ext() if compiling() else None) or build_ext


class OptionalBuildExt(Base):
    """Compiles the core, or says why it could not and lets the install go on without it."""

    failed = False

    def run(self):
        try:
            super().run()
        except (Exception, SystemExit) as error:
            if MODE == "1":
                raise
            self.failed = True
            self.extensions[:] = []
            warnings.warn(
                f"fastbert: the C++ core was not built ({type(error).__name__}: {str(error)[:200]}). The slower "
                "pure-Python twins will be used. Install a C++17 compiler and reinstall; FASTBERT_NATIVE=1 makes "
                "this an error.",
                stacklevel=1,
            )

    def get_outputs(self):
        return [] if self.failed else super().get_outputs()


def extensions() -> list[Extension]:
    if MODE == "0":
        return []
    import pybind11

    folders = ("text", "vocab", "data", "cpu", "bindings", "system")
    files = [p for folder in folders for p in (ROOT / "csrc" / folder).iterdir()]
    sources = sorted(p.relative_to(ROOT).as_posix() for p in files if p.suffix == ".cpp")
    headers = sorted(p.relative_to(ROOT).as_posix() for p in files if p.suffix == ".h")
    windows = os.name == "nt"
    # never -march=native: SIMD paths carry target attributes and are chosen at run time
    flags = ["/O2", "/std:c++17"] if windows else ["-O3", "-std=c++17", "-fvisibility=hidden", "-g0"]
    return [
        Extension(
            "fastbert._C",
            sources,
            include_dirs=[str(ROOT / "csrc"), pybind11.get_include()],
            depends=headers,
            language="c++",
            extra_compile_args=flags,
            extra_link_args=[] if windows else ["-pthread", "-ldl"],
        )
    ]


setup(ext_modules=extensions(), cmdclass={"build_ext": OptionalBuildExt})
