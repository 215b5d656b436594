"""The house: a file imports only from floors below its own; optional parts stay optional; kernels/ shadows nobody."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from source_tree import FILES, MODULES, ROOT, imports, module_name

# floor by floor, packages and root modules with everything in them: a file imports from its own and from floors below
FLOORS = {
    f"fastbert.{name}": floor
    for floor, names in enumerate((
        "system kernels reference batch data.types",
        "config text ops metrics data.corpus data.batches",
        "system.devices data.store weights optim",  # devices asks the ops which precision is fast
        "inspect data layers drop_in runs",  # data/__init__: the names of its packages, imported lazily
        "distributed model",
        "inference tasks training",
        "bert",
        "evaluation",
        "report",
    ))
    for name in names.split()
}  # fmt: skip
FLOORS["fastbert"] = 1  # __init__: names only, imported lazily
COMMANDS = {
    f"fastbert.{name}"
    for name in (
        "train predict finetune evaluate generate embed info tokenize contrastive "
        "export tune roofline serve smoke_tests"
    ).split()
}
FLOORS |= dict.fromkeys(COMMANDS, 9)


def home(name: str) -> str | None:
    """The longest listed prefix of a module name."""
    while name and name not in FLOORS:
        name = name.rpartition(".")[0]
    return name or None


def upward(path: Path) -> dict[str, str]:
    """What a file imports from its own floor or one above, outside its package: home → name."""
    mine = home(module_name(path))
    assert mine and (mine != "fastbert" or path == ROOT / "fastbert" / "__init__.py"), f"{path} stands on no floor"
    found = {}
    for name in imports(path):
        other = home(name)
        assert other not in COMMANDS or other == mine, f"{path} imports the command {other}"
        # `from fastbert import _C`: its own rule is below
        if other not in (None, "fastbert", mine) and FLOORS[other] >= FLOORS[mine]:
            found[other] = name
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_only_from_floors_below(path):
    found = [f"{name} (floor {FLOORS[other]})" for other, name in upward(path).items()]
    assert not found, f"{path} (floor {FLOORS[home(module_name(path))]}) imports {', '.join(found)}"


def test_modules_import_each_other_in_no_circle():
    """When they are imported; within a package they may otherwise import each other as they like."""
    graph = {}
    for name, path in MODULES.items():
        graph[name] = set()
        for imported in imports(path, at_import=True):
            while imported not in MODULES and "." in imported:
                imported = imported.rpartition(".")[0]
            if imported not in ("fastbert", name):
                graph[name].add(imported)
    finished: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " → ".join((*way[way.index(name) :], name))
        if name not in finished:
            for imported in sorted(graph[name]):
                visit(imported, (*way, name))
            finished.add(name)

    for name in sorted(graph):
        visit(name, ())


def test_only_ops_imports_kernels_and_only_native_the_core():
    for name, path in MODULES.items():
        for imported in imports(path):
            for kernels in ("fastbert.kernels", "fastbert.ops.cpu"):
                if imported.startswith(kernels):
                    # the tuner measures the kernels themselves
                    allowed = name.startswith((kernels, "fastbert.ops")) or name == "fastbert.tune"
                    assert allowed, f"{path} imports {imported}"
            if imported.startswith("fastbert._C"):
                assert name == "fastbert.system.native", f"{path} imports {imported}"


def test_every_package_is_installed():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = set(re.findall(r'^  "(fastbert[\w.]*)",$', text, re.MULTILINE))
    assert listed == {module_name(path) for path in FILES if path.name == "__init__.py"}


def test_kernels_folder_cannot_shadow_another_package():
    assert not (ROOT / "kernels" / "__init__.py").exists()
    assert not (ROOT / "tests" / "__init__.py").exists()


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_transformers_imports_from_the_repository_root():
    pytest.importorskip("transformers", reason="the package that a top-level `kernels` would break")
    assert run_python("from transformers import BertForMaskedLM; print(BertForMaskedLM.__name__)") == "BertForMaskedLM"


def test_importing_the_package_imports_nothing_heavy():
    heavy = "torch", "numpy", "triton", "transformers", "tyro", "matplotlib", "tensorboard"
    code = f"import sys, fastbert; print([m for m in {heavy} if m in sys.modules])"
    assert run_python(code) == "[]"


def test_a_line_is_encoded_without_numpy(tmp_path):
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("[UNK]\n[CLS]\n[SEP]\na\n")
    encode = f"Tokenizer.from_file({str(vocabulary)!r}).encode('a').ids"
    assert run_python(f"from fastbert import Tokenizer; import sys; print({encode}, 'numpy' in sys.modules)") == (
        "[1, 3, 2] False"
    )


def test_every_public_name_is_there():
    code = "import fastbert; [getattr(fastbert, n) for n in fastbert.__all__]; print('all')"
    assert run_python(code) == "all"
