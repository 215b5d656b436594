"""Size and shape of the source tree, counted: a newcomer finds an idea in a file of its own, and few ways lead to it.

Rooms, arrows and floors are those of ``house_plan.py``.
"""

import ast
import subprocess
from pathlib import Path

import pytest
from house_plan import NAMES, circles, floors, house, room
from source_tree import FILES, ROOT

MOST_FILES_IN_PACKAGE = 20
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 400, 70
MOST_ROOMS, MOST_FLOORS, MOST_ARROWS = 40, 10, 150
MOST_LINES_OF_A_README = 120

# generated, or tables and data rather than code
NOT_COUNTED = ("csrc/tables/", "fastbert/text/unicode_tables.py")


def tracked(*suffixes: str) -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    names = (name for name in done.stdout.split("\0") if name.endswith(suffixes) and not name.startswith(NOT_COUNTED))
    return [path for name in names if (path := ROOT / name).is_file()]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_few_files_lie_in_the_package_itself():
    files = [path.name for path in (ROOT / "fastbert").glob("*.py")]
    assert len(files) <= MOST_FILES_IN_PACKAGE, files


def test_no_file_is_long():
    found = {
        name_of(path)
        for path in tracked(".py", ".cpp", ".h", ".cc")
        if path.read_text(encoding="utf-8").count("\n") > MOST_LINES
    }
    assert not found, f"more than {MOST_LINES} lines, split by idea: {sorted(found)}"


@pytest.mark.parametrize("name", ["README.md", "README.pt-BR.md"])
def test_readmes_are_short(name):
    assert (ROOT / name).read_text(encoding="utf-8").count("\n") <= MOST_LINES_OF_A_README


def test_no_function_is_long():
    """Of Python; its decorators, signature and docstring are counted."""
    found = set()
    for path in tracked(".py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if node.end_lineno - node.lineno + 1 > MOST_LINES_OF_A_FUNCTION:
                found.add(f"{name_of(path)}:{node.name}")
    assert not found, f"split by idea: {sorted(found)}"


def test_the_house_is_small():
    arrows = house()
    counted = (len(arrows), max(floors().values()), sum(map(len, arrows.values())))
    print("rooms, floors, arrows:", counted)
    print("circles:", {circle for circle in circles(arrows).values() if len(circle) > 1})
    assert counted[0] <= MOST_ROOMS
    assert counted[1] <= MOST_FLOORS
    assert counted[2] <= MOST_ARROWS


def test_every_file_is_in_a_room():
    assert {room(path) for path in FILES} == {*house(), *NAMES}
