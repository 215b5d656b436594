"""The house: a file imports only from floors below its own; optional parts stay optional; kernels/ shadows nobody."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# module (or package, with everything in it) -> floor; README.md explains them
FLOORS = {
    "fastbert": 0,  # __init__: names only, imported lazily
    "fastbert.errors": 0,
    "fastbert.config": 0,
    "fastbert.json_files": 0,
    "fastbert.whole_file": 0,
    "fastbert.cli": 0,
    "fastbert.options": 0,
    "fastbert.reference": 0,
    "fastbert._C": 1,
    "fastbert.native": 1,
    "fastbert.cpu_kernels": 1,
    "fastbert.kernels": 1,
    "fastbert.ops": 2,
    "fastbert.text": 2,
    "fastbert.philox": 2,
    "fastbert.batch": 3,
    "fastbert.interop": 3,
    "fastbert.layers": 3,
    "fastbert.convert": 2,
    "fastbert.drop_in_rules": 3,
    "fastbert.drop_in_huggingface": 4,
    "fastbert.drop_in_torch": 4,
    "fastbert.drop_in": 5,
    "fastbert.masking": 3,
    "fastbert.neighbours": 4,
    "fastbert.model": 4,
    "fastbert.data": 4,
    "fastbert.muon": 4,
    "fastbert.adamw": 4,
    "fastbert.optim": 4,
    "fastbert.budget": 4,
    "fastbert.lock": 4,
    "fastbert.estimate": 4,
    "fastbert.background": 4,
    "fastbert.distributed": 4,
    "fastbert.divergence": 4,
    "fastbert.sharded": 5,
    "fastbert.shared_memory": 5,
    "fastbert.checkpoint": 5,
    "fastbert.run_directory": 5,
    "fastbert.monitor": 5,
    "fastbert.inference": 5,
    "fastbert.scoring": 5,
    "fastbert.filling": 5,
    "fastbert.exact_filling": 5,
    "fastbert.generation": 5,
    "fastbert.embedding": 5,
    "fastbert.attention_maps": 5,
    "fastbert.onnx_export": 5,
    "fastbert.tasks": 5,
    "fastbert.bert": 5,
    "fastbert.by_heart": 5,
    "fastbert.evaluation": 5,
    "fastbert.page": 1,
    "fastbert.human": 5,
    "fastbert.metrics": 5,
    "fastbert.metrics.fluency": 5,
    "fastbert.probes": 5,
    "fastbert.reporting": 5,
    "fastbert.trainer": 5,
    "fastbert.run_text": 5,
    "fastbert.assembly": 5,
    "fastbert.train": 6,
    "fastbert.predict": 6,
    "fastbert.generate": 6,
    "fastbert.export": 6,
    "fastbert.contrastive": 6,
    "fastbert.finetune": 6,
    "fastbert.tokenize": 6,
    "fastbert.info": 6,
    "fastbert.evaluate": 6,
    "fastbert.report": 6,
    "fastbert.roofline": 6,
    "fastbert.tune": 6,
    "fastbert.smoke_tests": 6,
}
COMMANDS = {name for name, floor in FLOORS.items() if floor == 6}
# within one floor, in this order
SAME_FLOOR = (
    *("errors", "json_files", "config", "cli", "options", "_C", "native", "cpu_kernels", "drop_in_huggingface"),
    *("drop_in_torch", "neighbours", "model", "muon", "adamw", "optim", "data", "sharded", "shared_memory"),
    *("checkpoint", "run_directory", "monitor"),
    *("metrics", "tasks", "inference", "scoring"),
    *(
        "filling",
        "exact_filling",
        "generation",
        "embedding",
        "attention_maps",
        "onnx_export",
        "bert",
        "metrics.fluency",
        "by_heart",
        "evaluation",
    ),
    *("probes", "reporting", "trainer", "run_text", "assembly"),
)


def module_name(path: Path) -> str:
    folder = {ROOT / "kernels" / "gpu": "fastbert.kernels"}.get(path.parent)
    name = f"{folder}.{path.stem}" if folder else ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def home(name: str) -> str | None:
    """The longest listed prefix of a module name."""
    while name and name not in FLOORS:
        name = name.rpartition(".")[0]
    return name or None


def imports(path: Path) -> set[str]:
    """Modules of the package that a file imports, anywhere in it but for type checking."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: write imports in full"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.partition(".")[0] == "fastbert"}


FILES = sorted([*(ROOT / "fastbert").rglob("*.py"), *(ROOT / "kernels" / "gpu").rglob("*.py")])


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_only_from_floors_below(path):
    mine = home(module_name(path))
    assert mine in FLOORS and (mine != "fastbert" or path.parent.name == "fastbert"), f"{path} stands on no floor"
    assert mine != "fastbert" or path.name == "__init__.py", f"{path} stands on no floor: add it to FLOORS"
    for name in imports(path):
        other = home(name)
        assert other is not None
        if other in ("fastbert", mine):
            continue
        assert other not in COMMANDS, f"{path} imports the command {other}"
        below = FLOORS[other] < FLOORS[mine]
        order = [m.removeprefix("fastbert.") for m in (other, mine)]
        beside = FLOORS[other] == FLOORS[mine] and all(m in SAME_FLOOR for m in order)
        assert below or (beside and SAME_FLOOR.index(order[0]) < SAME_FLOOR.index(order[1])), (
            f"{mine} (floor {FLOORS[mine]}) imports {name} (floor {FLOORS[other]})"
        )


def test_only_ops_imports_kernels_and_only_native_the_core():
    for path in FILES:
        name = module_name(path)
        for imported in imports(path):
            for kernels in ("fastbert.kernels", "fastbert.cpu_kernels"):
                if imported.startswith(kernels) and not name.startswith(kernels):
                    # the tuner measures the kernels themselves
                    assert name in ("fastbert.ops", "fastbert.tune"), f"{path} imports {imported}"
            if imported.startswith("fastbert._C"):
                assert name == "fastbert.native", f"{path} imports {imported}"


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


def test_every_public_name_is_there():
    code = "import fastbert; [getattr(fastbert, n) for n in fastbert.__all__]; print('all')"
    assert run_python(code) == "all"
