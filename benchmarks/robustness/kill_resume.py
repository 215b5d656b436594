"""Kill a training run with SIGKILL at random moments until it has been killed N times; its weights must not care.

    python benchmarks/robustness/kill_resume.py --kills 200
    python benchmarks/robustness/kill_resume.py --kills 200 --threads 1 2 3    # another number at every start

The same tiny run is made once undisturbed. Then runs of it are started, killed at a random moment (data preparation,
steps, checkpoints, evaluations and the end included), started again with --resume, killed again … until each is done;
then its weights, its metrics and its number of steps are compared, bit for bit, with those of the undisturbed run.
The matrix products of the library add up in another order with another number of threads: where that changes, steps
and tokens must be the same and every held-out loss within 0.001.
Processes are forked from one that has imported everything, so that a start costs milliseconds.
"""

import argparse
import functools
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

WORDS = (
    *("o", "gato", "preto", "dorme", "na", "cama", "azul", "e", "a", "menina", "feliz", "come", "pão"),
    *("com", "queijo", "no", "jardim", "grande", "do", "velho", "rei"),
)

MOST_LOSS = 1e-3  # between runs with other numbers of threads


def import_everything() -> None:
    """All that a run imports on its way, before the processes are forked."""
    for name in (
        *("fastbert.evaluation.probes", "fastbert.train", "fastbert.training.setup", "fastbert.runs.checkpoint"),
        *("fastbert.weights.huggingface", "torch._dynamo", "torch.utils.tensorboard", "fastbert.runs.metrics_log"),
    ):
        importlib.import_module(name)
    # most of the time of so short a run otherwise, in which little can go wrong
    probes, metrics = (sys.modules[f"fastbert.{name}"] for name in ("evaluation.probes", "runs.metrics_log"))
    probes.minimal_pairs = functools.partial(probes.minimal_pairs, seconds=0.1)
    metrics.draw_curves = lambda run: run / "curves.png"


def write_corpus(path: Path) -> None:
    lines = []
    for d in range(60):
        lines += [" ".join((WORDS * 2)[(7 * d + 3 * s) % len(WORDS) :][:12]) + "." for s in range(6)] + [""]
    path.write_text("\n".join(lines), encoding="utf-8")


def options(folder: Path, run: Path, steps: int, threads: int = 1):
    from fastbert.training.options import TrainOptions

    return TrainOptions(
        data=[str(folder / "corpus.txt")], output=str(run), preset="tiny", batch_tokens=128, max_length=32,
        threads=threads, precision="fp32", steps=steps, evaluations=4, checkpoint_every=4, dropout=0.1, keep_every=20,
    )  # fmt: skip


def forked(run: Path, opts, log: Path) -> int:
    """Train in a child process; returns its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        import dataclasses

        import fastbert
        from fastbert import train
        from fastbert.system import cli

        fastbert.IMPORTED_AT_S = time.monotonic()
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1), os.dup2(out, 2)
        if (run / "run.json").exists():
            opts = dataclasses.replace(opts, resume=True)
        code = cli.exit_code(lambda: train.main(opts))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def outcome(run: Path) -> dict:
    """What must be the same: weights, steps, tokens, and every recorded figure but the times."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    records = [{name: value for name, value in record.items() if not name.endswith("_s")} for record in records]
    facts = json.loads((run / "run.json").read_text())["result"]
    return {
        "weights": hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest(),
        "metrics": [r for r in records if r["kind"] != "probe"],
        "result": facts,
    }


def is_close(one: dict, other: dict) -> bool:
    """Whether two outcomes are the same but for rounding."""
    mine, others = one["metrics"], other["metrics"]
    if [(r["kind"], r["step"], r["tokens"]) for r in mine] != [(r["kind"], r["step"], r["tokens"]) for r in others]:
        return False
    return all(abs(a["loss"] - b["loss"]) < MOST_LOSS for a, b in zip(mine, others, strict=True) if "loss" in a)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="each start takes one of them")
    parser.add_argument("--folder", default=None, help="where to work (default: a temporary directory)")
    asked = parser.parse_args()
    import_everything()
    import torch

    torch.set_num_threads(1)
    folder = Path(asked.folder or tempfile.mkdtemp(prefix="kill_resume_"))
    folder.mkdir(exist_ok=True)
    write_corpus(folder / "corpus.txt")
    log, whole = folder / "log.txt", folder / "whole"
    shutil.rmtree(whole, ignore_errors=True)
    began = time.monotonic()
    child = forked(whole, options(folder, whole, asked.steps), log)
    if os.waitpid(child, 0)[1]:
        sys.exit(f"the undisturbed run failed: see {log}")
    length_s, expected = time.monotonic() - began, outcome(whole)
    print(f"undisturbed: {length_s:.2f} s, weights {expected['weights'][:12]}", flush=True)

    chance = random.Random(asked.seed)
    kills = finished = failures = in_saving = 0
    run = folder / "killed"
    shutil.rmtree(run, ignore_errors=True)
    while kills < asked.kills or run.exists():
        child = forked(run, options(folder, run, asked.steps, chance.choice(asked.threads)), log)
        # once enough have been killed the last run may end
        wait_s = chance.uniform(0, length_s) if kills < asked.kills else 600.0
        ended, status = _wait(child, wait_s)
        if not ended:
            in_saving += any((run / "checkpoints").glob(".step-*")) if run.exists() else 0
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if os.WIFSIGNALED(status):
                kills += 1
                continue
        if status:
            failures += 1
            print(f"a start failed with {status}: see {log}", flush=True)
            return 1
        mine = outcome(run)
        same = mine == expected if len(asked.threads) == 1 else is_close(mine, expected)
        finished, failures = finished + 1, failures + (not same)
        if not same:
            print("different:", [key for key in expected if mine[key] != expected[key]], flush=True)
        shutil.rmtree(run)
        if finished % 10 == 0:
            print(f"{kills} kills, {finished} runs finished, {failures} failures", flush=True)
    print(
        f"{kills} kills ({in_saving} while a checkpoint was being written), {finished} runs finished, "
        f"{failures} of them not identical to the undisturbed one"
    )
    return 1 if failures else 0


def _wait(child: int, seconds: float) -> tuple[bool, int]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return True, status
        time.sleep(0.002)
    return False, 0


if __name__ == "__main__":
    sys.exit(main())
