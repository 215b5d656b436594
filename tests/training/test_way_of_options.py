"""Where the options of a training go: they are settled at the door, and nothing behind the plan reads them."""

import itertools
import sys
from pathlib import Path

from house_plan import NAMES, floors, room
from source_tree import MODULES

from fastbert.training.options import TrainOptions
from support import SMALL, command, write_corpus

MOST_ROOMS, MOST_CLIMBS = 15, 12
DOOR = {"train", "training.options", "training.new_model", "training.prepare_data", "training.plan"}
DOOR.add("system.option_checks")  # asked by training.options
RECORDS = {"runs.directory", "system.environment"}  # run.json keeps what was given


def functions_given_options(run) -> list[tuple[str, str]]:
    """(module, function) of each call within the package that is handed the options, in order, while ``run`` runs."""
    modules = {str(path): name for name, path in MODULES.items()}
    found = []

    def look(frame, event, _):
        code = frame.f_code
        if event != "call" or code.co_filename not in modules or code.co_name.startswith("<"):
            return
        given = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        if any(type(frame.f_locals.get(name)).__name__ == TrainOptions.__name__ for name in given):
            found.append((modules[code.co_filename], code.co_name))

    sys.setprofile(look)
    try:
        run()
    finally:
        sys.setprofile(None)
    return found


def test_options_are_settled_at_the_door(tmp_path: Path):
    corpus = write_corpus(tmp_path / "corpus.txt")
    given = ("--data", corpus, *SMALL, "--steps", 2, "--output", tmp_path / "run", "--vocab-size", 80)
    calls = functions_given_options(lambda: command("fastbert.train", *given, cwd=tmp_path))
    heights = floors()
    way = [room(MODULES[module]) for module, _ in calls if room(MODULES[module]) not in NAMES]
    climbs = sum(heights[after] > heights[before] for before, after in itertools.pairwise(way))
    print("rooms:", len(set(way)), "climbs:", climbs, "way:", calls)
    assert ("fastbert.training.plan", "make_plan") in calls
    assert len(set(way)) <= MOST_ROOMS
    assert climbs <= MOST_CLIMBS
    assert {module.removeprefix("fastbert.") for module, _ in calls} <= DOOR | RECORDS
