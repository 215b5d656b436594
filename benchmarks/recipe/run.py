"""Run the queue of experiments.py: python benchmarks/recipe/run.py [--log FILE] [--cache DIR].

Each run is fastbert's own training, in a process of its own; its line is appended to the log, and what the log has
already is not run again. Several of these programs may work on one queue. experiments.py is read anew before each run,
so that the queue may be changed meanwhile.
"""

import argparse
import fcntl
import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
EVALUATIONS = 4  # on the way


def key(job: dict[str, Any]) -> str:
    """What makes a run that run."""
    return json.dumps({name: job[name] for name in ("options", "steps", "corpus", "variant", "seed")}, sort_keys=True)


def queue(experiments: str = "experiments.py") -> list[dict[str, Any]]:
    """Every run of the queue, with its options in full."""
    module = runpy.run_path(str(HERE / experiments))
    jobs = []
    for experiment in module["QUEUE"]:
        told = asdict(experiment)
        for seed in told.pop("seeds"):
            jobs.append(told | {"options": module["BASE"] | told["options"], "seed": seed})
    return jobs


def read_log(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    # before there was a choice
    before = {"beta1": 0.9, "vector_scale": 1.0, "decay_timescale": 0.1}
    return [line | {"options": before | line["options"]} for line in lines]


@contextmanager
def claimed(cache: Path, name: str):
    """Yield whether the run is ours: another worker may have it; the lock of a dead one is free."""
    folder = cache / "claims"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / name, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield True
        except BlockingIOError:
            yield False


def prepared(cache: Path, corpus: str) -> Path:
    """The corpus as tokens with its vocabulary of 8,192 pieces, made once: a pure function of the text."""
    from fastbert.data import Corpus, write_store
    from fastbert.text import Tokenizer

    place = cache / corpus.replace(":", "-")
    with open(cache / "preparing", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "tokenizer_config.json").exists():
            text = Corpus([corpus])
            # as the command trains it: cased, with accents
            tokenizer = Tokenizer.train(text.text_chunks(), vocab_size=8192, lowercase=False, strip_accents=False)
            write_store(place, text, tokenizer)
            tokenizer.save(place)
    return place


class Recorder:
    """In the place of fastbert.runs.metrics_log.Monitor: keeps the records, shows nothing."""

    metrics_bytes = 0

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def log(self, line: str = "") -> None: ...

    def update_bar(self, *values: object) -> None: ...

    def stop_bar(self) -> None: ...

    def record(self, kind: str, step: int, **values: Any) -> None:
        self.records.append({"kind": kind, "step": step, **values})


def set_up_run(run, options, store: Path, recorder: Recorder):
    """A trainer on a token store as the command sets it up."""
    from fastbert.data import TokenStore
    from fastbert.distributed.world import World
    from fastbert.system.devices import choose_device
    from fastbert.text import Tokenizer
    from fastbert.training.evaluation_data import EvaluationText
    from fastbert.training.new_model import Architecture
    from fastbert.training.plan import make_plan
    from fastbert.training.prepare_data import TrainingText
    from fastbert.training.setup import set_up

    text = TrainingText(Tokenizer.load(store), TokenStore.open(store))
    evaluation = EvaluationText.choose(
        text, options.heldout_fraction, max_length=options.max_length, next_sentence=options.next_sentence
    )
    plan = make_plan(options, Architecture.of(options), text, evaluation, choose_device("cpu"), World())
    return set_up(run, plan, text, evaluation, recorder)  # type: ignore[arg-type]


def one(job: dict[str, Any], cache: Path, models: Path | None) -> dict[str, Any]:
    """Train as the command does and measure: on unseen documents, 15 % of the tokens, the same for every run."""
    import torch
    from variants import apply

    from fastbert.runs.directory import RunDirectory
    from fastbert.system.environment import hardware
    from fastbert.training.divergence import Diverged
    from fastbert.training.options import TrainOptions, check

    store_path = prepared(cache, job["corpus"])
    options = TrainOptions(
        data=[str(store_path)], steps=job["steps"], seed=job["seed"], evaluations=EVALUATIONS, checkpoint_every=0,
        **job["options"],
    )  # fmt: skip
    check(options)
    torch.set_num_threads(options.threads or 1)
    recorder = Recorder()
    with tempfile.TemporaryDirectory() as scratch:
        run = RunDirectory.claim(str(Path(scratch) / "run"), options)
        setup = set_up_run(run, options, store_path, recorder)
        trainer, tokenizer = setup.trainer, setup.text.tokenizer
        with apply(job["variant"], trainer):
            before_s = time.process_time()
            try:
                trainer.train()
                if trainer.step < job["steps"]:
                    raise SystemExit(f"stopped after step {trainer.step}: no result")
                result = trainer.evaluate(setup.final_batches(1.0))
                final = {"loss": result.loss, "accuracy": result.accuracy, "masked_tokens": result.masked_tokens}
            except Diverged as error:
                final = {"loss": None, "accuracy": None, "diverged": str(error).split(": training")[0]}
            processor_s = time.process_time() - before_s
        trainer.close()
        run.release()
        if models:
            place = models / hash_of(key(job))
            trainer.model.save_pretrained(place)
            tokenizer.save(place, token_type_ids=trainer.plan.arch != "modern")
    curve = [[r["tokens"], r["loss"], r["accuracy"]] for r in recorder.records if r["kind"] == "heldout"]
    return job | {
        **final,
        "tokens": trainer.tokens,
        "epochs": trainer.loader.epoch,
        "curve": curve,
        "processor_s": round(processor_s, 1),
        "vocabulary": tokenizer.fingerprint()[:16],
        "commit": run.description["git_commit"],
        "date": date.today().isoformat(),
        "cpu": hardware()["cpu"],
    }


def work(arguments: argparse.Namespace) -> None:
    """Run what is not done until the queue is done or --stop-file appears; what failed here is tried once."""
    failed: set[str] = set()
    while not (arguments.stop_file and Path(arguments.stop_file).exists()):
        done = {key(line) for line in read_log(arguments.log)}
        for job in queue(arguments.experiments):
            name = f"{hash_of(key(job))}"
            if key(job) in done | failed:
                continue
            with claimed(arguments.cache, name) as mine:
                if not mine or key(job) in {key(line) for line in read_log(arguments.log)}:
                    continue
                command = [sys.executable, __file__, "--one", json.dumps(job), "--cache", str(arguments.cache)]
                command += ["--models", str(arguments.models)] if arguments.models else []
                command = arguments.prefix.split() + command
                answer = subprocess.run(command, stdout=subprocess.PIPE, text=True)
                if answer.returncode:
                    print(f"failed: {key(job)}", file=sys.stderr)
                    failed.add(key(job))
                    break
                with open(arguments.log, "a") as log:
                    fcntl.flock(log, fcntl.LOCK_EX)
                    log.write(answer.stdout.splitlines()[-1] + "\n")
                break
        else:
            return


def hash_of(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", default="experiments.py", help="file beside this one with BASE and QUEUE")
    parser.add_argument("--log", type=Path, default=HERE / "log.jsonl")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "fastbert-recipe")
    parser.add_argument("--models", type=Path, help="keep the model of each run here, in a folder named by its options")
    parser.add_argument("--stop-file", help="stop before the next run once this file exists")
    parser.add_argument("--prefix", default="", help="command to start each run with, such as 'nice -n 19'")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    if arguments.one:
        print(json.dumps(one(json.loads(arguments.one), arguments.cache, arguments.models)))
    else:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        work(arguments)


if __name__ == "__main__":
    main()
