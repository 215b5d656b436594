"""What a second thread gives a training step, and what the machine could give: two processes of one thread at once.

    python benchmarks/training/threads.py mini-8k small-30k --windows 8
    python benchmarks/training/threads.py mini-8k --full

One thread, two threads and two processes take turns, a window each, so that whatever else the machine does meets all
of them alike. Wall-clock, on a quiet machine; ratios are medians of each turn's own, [low, high] is the whole range.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import median

from batches import SHAPES, make_batches
from compare import start
from harness import Worker, ratios, take_turns


def together(workers: list[Worker]) -> float:
    """Steps a second of workers that run at the same time, added up."""
    for worker in workers:
        worker.send("window")
    answers = [worker.read() for worker in workers]
    return sum(answer["steps"] / answer["wall_s"] for answer in answers)


def measure(name: str, options) -> None:
    from contestants import write_start

    shape = SHAPES[name]
    batches, description = make_batches(shape, options.batches, options.full)
    tokens = sum(batch.tokens for batch in batches) / len(batches)
    with tempfile.TemporaryDirectory() as folder:
        write_start(Path(folder), shape)
        workers = [
            start("fastbert", name, Path(folder), argparse.Namespace(**vars(options), threads=threads))
            for threads in (1, 2, 1)
        ]
        for worker in workers:
            worker.ask("warm")
        one, two, other = workers
        turns = {"one thread": [one], "two threads": [two], "two processes": [one, other]}
        speeds = take_turns(turns, options.windows, lambda what: tokens * together(turns[what]))
        for worker in workers:
            worker.end()
    print(f"\n{name}, {description}, {options.windows} windows")
    for what, values in speeds.items():
        times = ratios(values, speeds["one thread"])
        print(f"  {what:<14}{median(values):>8,.0f} tokens/s [{min(values):,.0f}, {max(values):,.0f}]"
              f"   {median(times):.2f} x [{min(times):.2f}, {max(times):.2f}]")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", default=list(SHAPES), choices=[*SHAPES, []], help="default: all")
    parser.add_argument("--full", action="store_true", help="rows of full length instead of line lengths")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--batches", type=int, default=4, help="distinct batches")
    options = parser.parse_args()
    for name in options.shapes:
        measure(name, options)


if __name__ == "__main__":
    main()
