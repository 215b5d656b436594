"""What a step costs: python benchmarks/recipe/costs.py [--rounds N]; one line for each setting of the queue.

Processor time of one thread, the optimizers' included, settings interleaved so that a busy machine hurts all alike.
"""

import argparse
import json
import statistics
import sys
import tempfile
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import seconds, take_turns
from report import cost_key
from run import HERE, Recorder, prepared, queue, set_up_run
from variants import apply

from fastbert.runs.directory import RunDirectory
from fastbert.system.environment import hardware
from fastbert.training.options import TrainOptions
from fastbert.training.trainer import Trainer

STEPS = 4  # in a round


def trainer_of(job: dict[str, Any], place: Path, scratch: Path, stack: ExitStack) -> Trainer:
    options = TrainOptions(data=[str(place)], steps=1000, evaluations=0, checkpoint_every=0, **job["options"])
    run = stack.enter_context(RunDirectory.claim(str(scratch), options))
    trainer = set_up_run(run, options, place, Recorder()).trainer
    stack.enter_context(apply(job["variant"], trainer))
    stack.callback(trainer.close_after_failure)
    return trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--match", default="", help="only settings with this in their line")
    parser.add_argument("--presets", nargs="*", default=["tiny", "mini"])
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "fastbert-recipe")
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    jobs: dict[str, dict[str, Any]] = {}
    for job in queue():
        for preset in arguments.presets:
            wanted = job | {"options": job["options"] | {"preset": preset}}
            if arguments.match in cost_key(wanted):
                jobs.setdefault(cost_key(wanted), wanted)
    torch.set_num_threads(1)
    place = prepared(arguments.cache, "bundled:pt")
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        trainers = {
            what: trainer_of(job, place, Path(scratch) / str(i), stack) for i, (what, job) in enumerate(jobs.items())
        }

        def seconds_a_token(what: str) -> float:
            trainer = trainers[what]
            tokens = trainer.tokens
            return seconds(lambda: [trainer.train_step(0.5) for _ in range(STEPS)]) / (trainer.tokens - tokens)

        taken = take_turns(trainers, arguments.rounds + 1, seconds_a_token)
    machine = {"date": date.today().isoformat(), "cpu": hardware()["cpu"], "threads": 1}
    with open(HERE / "costs.jsonl", "a") as log:
        for what, (_, *values) in taken.items():  # the first round warms up
            log.write(json.dumps({"what": what, "seconds_a_token": values} | machine) + "\n")
            print(f"{what}: {statistics.median(values) * 1e6:.0f} µs a token ({min(values) * 1e6:.0f} the least)")


if __name__ == "__main__":
    main()
