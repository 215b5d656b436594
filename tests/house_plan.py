"""The package as a house.

A *room* is a folder of the package that holds Python files, without the folders in it, or a file that lies directly in
``fastbert/``; names that are only handed on (NAMES) and the wheel's own tests are none. An *arrow* leads from a room to
another that one of its files imports, anywhere in the file but for type checking. A *floor* is a step on the longest
way along arrows, where a circle of rooms counts as one step.
"""

from pathlib import Path

from source_tree import MODULES, ROOT, imports

NAMES = {"fastbert", "fastbert.data", "fastbert.smoke_tests"}


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


def floors() -> dict[str, int]:
    """Room → its floor, from 1."""
    arrows = house()
    together = circles(arrows)
    heights: dict[frozenset[str], int] = {}

    def height(circle: frozenset[str]) -> int:
        if circle not in heights:
            below = {together[other] for name in circle for other in arrows[name]} - {circle}
            heights[circle] = 1 + max(map(height, below), default=0)
        return heights[circle]

    return {name: height(circle) for name, circle in together.items()}
