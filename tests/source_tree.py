"""The package's files as text: their module names and what they import, by their syntax trees alone."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def module_name(path: Path) -> str:
    kernels = ROOT / "kernels" / "gpu"
    if path.is_relative_to(kernels):
        parts: tuple[str, ...] = ("fastbert", "kernels", *path.relative_to(kernels).with_suffix("").parts)
    else:
        parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imports(path: Path, *, at_import: bool = False) -> set[str]:
    """Modules and names of the package that a file imports, but for type checking.

    Args:
        path: of the file.
        at_import: only what runs when the file is imported, not what its functions import when they are called.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
        if at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
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
MODULES = {module_name(path): path for path in FILES}
