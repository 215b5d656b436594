"""Size and shape of the source tree, counted: a newcomer finds an idea in a file of its own, and few ways lead to it.

A *room* is a folder of the package that holds Python files, without the folders in it, or a file that lies directly in
``fastbert/``; names that are only handed on (NAMES) and the wheel's own tests are none. An *arrow* leads from a room to
another that one of its files imports, anywhere in the file but for type checking. A *floor* is a step on the longest
way along arrows, where a circle of rooms counts as one step.
"""

import ast
import subprocess
from pathlib import Path

import pytest
from source_tree import FILES, MODULES, ROOT, imports

MOST_FILES_IN_PACKAGE = 20
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 400, 70
MOST_ROOMS, MOST_FLOORS, MOST_ARROWS = 40, 10, 150

NAMES = {"fastbert", "fastbert.data", "fastbert.smoke_tests"}
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


def room(path: Path) -> str:
    """A folder's name as it is installed, or a file's that lies in fastbert/ itself."""
    name = next(name for name, file in MODULES.items() if file == path)
    if path.name == "__init__.py":
        return name
    return name if path.parent == ROOT / "fastbert" else name.rpartition(".")[0]


def house() -> dict[str, set[str]]:
    """Room → the rooms that its arrows lead to."""
    rooms = {name: room(path) for name, path in MODULES.items()}
    arrows: dict[str, set[str]] = {r: set() for r in rooms.values() if r not in NAMES}
    for name, path in MODULES.items():
        if rooms[name] in NAMES:
            continue
        for imported in imports(path):
            while imported not in MODULES and "." in imported:
                imported = imported.rpartition(".")[0]
            if rooms.get(imported) not in {None, rooms[name], *NAMES}:
                arrows[rooms[name]].add(rooms[imported])
    return arrows


def circles(arrows: dict[str, set[str]]) -> dict[str, frozenset[str]]:
    """Room → all rooms that it reaches and that reach it, itself included."""

    def reached(start: str) -> set[str]:
        found, left = {start}, [start]
        while left:
            new = arrows[left.pop()] - found
            found |= new
            left += new
        return found

    reach = {name: reached(name) for name in arrows}
    return {name: frozenset(other for other in reach[name] if name in reach[other]) for name in arrows}


def test_the_house_is_small():
    arrows = house()
    together = circles(arrows)
    heights: dict[frozenset[str], int] = {}

    def height(circle: frozenset[str]) -> int:
        if circle not in heights:
            below = {together[other] for name in circle for other in arrows[name]} - {circle}
            heights[circle] = 1 + max(map(height, below), default=0)
        return heights[circle]

    counted = (len(arrows), max(map(height, together.values())), sum(map(len, arrows.values())))
    print("rooms, floors, arrows:", counted)
    print("circles:", {circle for circle in together.values() if len(circle) > 1})
    assert counted[0] <= MOST_ROOMS
    assert counted[1] <= MOST_FLOORS
    assert counted[2] <= MOST_ARROWS


def test_every_file_is_in_a_room():
    assert {room(path) for path in FILES} == {*house(), *NAMES}
