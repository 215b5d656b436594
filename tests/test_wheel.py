"""The wheel and the sdist: built, installed where there is neither compiler nor source tree, and put to work.

Slow: ``pytest -m slow tests/test_wheel.py``. The new environment borrows the packages of this one (torch, numpy …), so
that nothing is downloaded, and sees no fastbert but its own.
"""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent


def run(*command, **options) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=1200, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def build(source: Path, target: Path) -> Path:
    """A wheel of a source directory or sdist, compiled."""
    environment = os.environ | {"FASTBERT_NATIVE": "1"}
    options = ("--no-deps", "--no-build-isolation", "-q", "-w", target)
    run(sys.executable, "-m", "pip", "wheel", source, *options, env=environment, cwd=target)
    return next(target.glob("fastbert-*.whl"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return build(clone(tmp_path_factory.mktemp("clone")), tmp_path_factory.mktemp("dist"))


def clone(target: Path) -> Path:
    """The tracked files as they stand: no build folder of ours can help."""
    tracked = run("git", "ls-files", "-z", cwd=ROOT).split("\0")
    for name in filter(None, tracked):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes((ROOT / name).read_bytes())
    return target


def test_wheel_holds_what_it_should(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.startswith("fastbert/_C") for name in names)
    for name in ("fastbert/py.typed", "fastbert/kernels/attention/op.py", "fastbert/train.py"):
        assert name in names
    assert any(name.startswith("fastbert/data/bundled/") and name.endswith(".xz") for name in names)
    foreign = [n for n in names if n.split("/")[0] != "fastbert" and ".dist-info/" not in n]
    assert not foreign, "nothing but the package may be installed"


def smoke(wheel: Path, folder: Path) -> str:
    """Install a wheel in a fresh environment without compilers, and run its own tests there."""
    venv.create(folder / "env", with_pip=True)
    python = folder / "env/bin/python"
    places = sysconfig.get_paths(vars={"base": str(folder / "env")})
    run(python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel)
    # behind the environment's own packages; .pth files in there, such as an editable install's, are not read
    borrowed = Path(places["purelib"]) / "borrowed.pth"
    borrowed.write_text("\n".join(sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})) + "\n")
    environment = {
        "PATH": str(folder / "env/bin"), "HOME": str(folder), "CXX": "/nowhere/c++", "CC": "/nowhere/cc",
        "OMP_NUM_THREADS": "2",
    }  # fmt: skip
    where = run(python, "-c", "import fastbert; print(fastbert.__file__)", cwd=folder, env=environment)
    assert str(folder) in where
    command = (python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--pyargs", "fastbert.smoke_tests")
    return run(*command, cwd=folder, env=environment)


def test_wheel_works_without_compiler_and_source(wheel, tmp_path):
    assert "passed" in smoke(wheel, tmp_path)


def test_sdist_builds_the_same_wheel(wheel, tmp_path):
    source = clone(tmp_path / "clone")
    command = "import setuptools.build_meta as b, sys; print(b.build_sdist(sys.argv[1]))"
    run(sys.executable, "-c", command, tmp_path, cwd=source)
    sdist = next(tmp_path.glob("fastbert-*.tar.gz"))
    with tarfile.open(sdist) as archive:
        assert not [n for n in archive.getnames() if n.endswith((".so", ".pyc"))]
    names = [sorted(zipfile.ZipFile(w).namelist()) for w in (wheel, build(sdist, tmp_path))]
    assert names[0] == names[1]
