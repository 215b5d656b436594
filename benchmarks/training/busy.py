"""A training step beside other work: what two threads keep of their quiet speed when somebody else computes too.

    python benchmarks/training/busy.py                                   # about six minutes
    python benchmarks/training/busy.py --contestants fastbert --windows 10 --neighbors none

Neighbors: ``equal`` one busy process of the same priority, ``nice`` one at nice 19, ``bursts`` four that compute for 5
to 60 ms and sleep for 20 to 200, as browsers do. Each is in a session of its own, as another program of a desktop is.
Contestants, by their worker of compare.py: our step with the spinning that the commands choose, with libgomp's own, and
with one thread; and transformers tuned. In every round all take turns beside the same neighbor. Wall-clock; shares are
of fastbert's median without a neighbor, [low, high] is the whole range.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median

sys.path.append(str(Path(__file__).resolve().parents[1]))
from batches import SHAPES, make_batches
from compare import start
from harness import take_turns

from fastbert.system.cores import SPIN_ROUNDS

# name -> worker of compare.py, threads, environment
CONTESTANTS = {
    "fastbert": ("fastbert", 2, {"GOMP_SPINCOUNT": SPIN_ROUNDS}),
    "libgomp's spinning": ("fastbert", 2, {}),
    "one thread": ("fastbert", 1, {}),
    "hf-tuned": ("hf-tuned", 2, {}),
}
BUSY = "while True: pass"
BURSTS = """
import random, time
draw = random.Random({seed}).uniform
while True:
    end = time.perf_counter() + draw(0.005, 0.06)
    while time.perf_counter() < end: pass
    time.sleep(draw(0.02, 0.2))
"""
NEIGHBORS = {
    "none": [],
    "equal": [["-c", BUSY]],
    "nice": [["-c", f"import os; os.nice(19)\n{BUSY}"]],
    "bursts": [["-c", BURSTS.format(seed=seed)] for seed in range(4)],
}


@contextmanager
def beside(name: str):
    """Run the neighbors."""
    processes = [
        subprocess.Popen([sys.executable, *arguments], start_new_session=True) for arguments in NEIGHBORS[name]
    ]
    try:
        time.sleep(0.2 if processes else 0)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="mini-8k", choices=SHAPES)
    parser.add_argument("--windows", type=int, default=5)
    parser.add_argument("--contestants", nargs="+", default=list(CONTESTANTS), choices=CONTESTANTS)
    parser.add_argument("--neighbors", nargs="+", default=list(NEIGHBORS), choices=NEIGHBORS)
    options = parser.parse_args()
    from contestants import write_start

    shape = SHAPES[options.shape]
    batches, _ = make_batches(shape, 2, full=True)
    tokens = sum(batch.tokens for batch in batches) / len(batches)
    with tempfile.TemporaryDirectory() as folder:
        write_start(Path(folder), shape)
        workers = {}
        for name in options.contestants:
            worker, threads, environment = CONTESTANTS[name]
            given = argparse.Namespace(threads=threads, batches=2, full=True)
            workers[name] = start(worker, options.shape, Path(folder), given, environment)
            workers[name].ask("warm")

        def measure(turn: tuple[str, str]) -> float:
            neighbor, contestant = turn
            with beside(neighbor):
                window = workers[contestant].ask("window")
            return tokens * window["steps"] / window["wall_s"]

        turns = [(neighbor, name) for neighbor in options.neighbors for name in workers]
        speeds = take_turns(turns, options.windows, measure)
        for worker in workers.values():
            worker.end()
    quiet = median(speeds.get(("none", "fastbert"), [float("nan")]))
    print(f"{options.shape}, rows of full length, {options.windows} windows; tokens/s")
    for (neighbor, name), values in speeds.items():
        print(
            f"  {neighbor:<8}{name:<20}{median(values):>8,.0f} [{min(values):,.0f}, {max(values):,.0f}]"
            f"   {median(values) / quiet:.2f} of the quiet speed"
        )


if __name__ == "__main__":
    main()
