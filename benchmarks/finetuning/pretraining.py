"""Does pretraining help? A BERT pretrained here on the bundled Portuguese against the same one with random weights.

    python benchmarks/finetuning/pretraining.py --minutes 20 --data ../shared/data/tasks

Pretrains once (or takes --pretrained DIR), then fine-tunes both on Portuguese tasks with the same vocabulary, data,
epochs, learning rates and seeds. Results are appended to --results; what is there already is not run again.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from tasks import TASKS, prepared

PORTUGUESE = ("assin1_similarity", "assin1_entailment", "lenerbr", "faquad")
# (epochs, learning rate) of small encoders, pretrained or not; chosen once for both, before any comparison
RECIPE = {"faquad": (8, 3e-4), "lenerbr": (6, 3e-4)}
USUAL = (6, 2e-4)
STARTS = ("random", "pretrained")


def pretrain(arguments: argparse.Namespace) -> Path:
    """The pretrained run: --pretrained, or a new one of so many minutes."""
    if arguments.pretrained:
        return Path(arguments.pretrained)
    run = Path(arguments.work) / f"pretrained-{arguments.minutes:g}m"
    if not (run / "model.safetensors").is_file():
        shutil.rmtree(run, ignore_errors=True)
        given = ["--minutes", str(arguments.minutes), "--output", str(run), *arguments.train_options.split()]
        if arguments.threads:
            given += ["--threads", str(arguments.threads)]
        subprocess.run([sys.executable, "-m", "fastbert.train", *given], check=True)
    return run


def randomise(run: Path, directory: Path, seed: int) -> Path:
    """The same architecture and vocabulary with weights that have seen nothing."""
    import torch

    from fastbert import BertForPreTraining, Tokenizer
    from fastbert.interop import read_config

    config = read_config(run)
    torch.manual_seed(seed)
    BertForPreTraining(config).save_pretrained(directory)
    Tokenizer.load(run).save(directory, token_type_ids=config.arch != "modern")
    return directory


def finetune(arguments: argparse.Namespace, name: str, model: Path, seed: int) -> dict:
    """One fine-tuning through the command; its figures."""
    task = TASKS[name]
    train, held = prepared(name, Path(arguments.data), Path(arguments.work), arguments.limit)
    epochs, rate = RECIPE.get(name, USUAL)
    output = Path(arguments.work) / "output"
    shutil.rmtree(output, ignore_errors=True)
    command = [
        sys.executable, "-m", "fastbert.finetune", str(model), "--task", task.kind, "--train", str(train),
        "--eval", str(held), "--output", str(output), "--seed", str(seed), "--epochs", str(epochs),
        "--learning-rate", str(rate), "--batch-size", "16", "--max-length", str(task.max_length), "--evaluations", "0",
    ]  # fmt: skip
    for option, value in (("--label-field", task.label_field), ("--threads", arguments.threads)):
        command += [option, str(value)] if value else []
    began = time.perf_counter()
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        sys.exit(f"{name} failed:\n{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}")
    scores = json.loads((output / "finetune.json").read_text(encoding="utf-8"))["seeds"][0]["eval"]
    shutil.rmtree(output)
    return {"scores": scores, "wall_s": round(time.perf_counter() - began, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0, help="of pretraining (default: 20)")
    parser.add_argument("--train-options", default="", help="further options of fastbert.train, in one string")
    parser.add_argument("--pretrained", help="a run that is there already")
    parser.add_argument("--data", default="../shared/data/tasks", help="folder with the tasks' files")
    parser.add_argument("--tasks", nargs="+", default=list(PORTUGUESE), choices=list(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, help="most examples of every set")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--results", default="pretraining-results.jsonl")
    parser.add_argument("--work", default=str(Path(tempfile.gettempdir()) / "fastbert-pretraining"))
    arguments = parser.parse_args()
    if arguments.threads:
        os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    Path(arguments.work).mkdir(parents=True, exist_ok=True)
    run = pretrain(arguments)
    results = Path(arguments.results)
    records = [json.loads(row) for row in results.read_text().splitlines()] if results.is_file() else []
    done = {(r["task"], r["seed"], r["start"], r["run"], r["limit"]): r for r in records}
    for name in arguments.tasks:
        for seed in range(arguments.seeds):
            for start in STARTS:
                key = (name, seed, start, str(run), arguments.limit)
                if key not in done:
                    model = run if start == "pretrained" else randomise(run, Path(arguments.work) / "random", seed)
                    record = dict(zip(("task", "seed", "start", "run", "limit"), key, strict=True))
                    done[key] = record | finetune(arguments, name, model, seed)
                    with results.open("a") as file:
                        file.write(json.dumps(done[key]) + "\n")
                value = done[key]["scores"][TASKS[name].measure]
                print(f"{name:18} seed {seed} {start:10} {TASKS[name].measure} {100 * value:5.1f}", flush=True)
    print("\n| task | measure | random weights | pretrained here | difference |\n|---|---|---|---|---|")
    for name in arguments.tasks:
        measure, cells, means = TASKS[name].measure, [], []
        for start in STARTS:
            values = [
                100 * done[name, seed, start, str(run), arguments.limit]["scores"][measure]
                for seed in range(arguments.seeds)
            ]
            means.append(statistics.fmean(values))
            cells.append(f"{means[-1]:.1f} ± {statistics.stdev(values) if len(values) > 1 else 0:.1f}")
        print(f"| {name} | {measure} ×100 | {cells[0]} | {cells[1]} | {means[1] - means[0]:+.1f} |")


if __name__ == "__main__":
    main()
