"""Does quality pay for speed? The checkpoints of run.py, pretrained for the same minutes, fine-tuned on labelled tasks.

    python benchmarks/time_to_loss/finetune.py --corpus en --data ../shared/data/tasks

Takes the checkpoints that run.py left: tuned Hugging Face with its best learning rate, fastbert and fastbert-classic
(``--contestants`` for others), and fine-tunes each with ``python -m fastbert.finetune``, the same examples, epochs,
learning rates and seeds. Fine-tuning seed s starts from the checkpoint of pretraining seed s where there is one.
Results are lines of finetuning.jsonl; what is there is not run again.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "finetuning")]
from run import read_results  # noqa: E402
from table import groups, name_of, reference_of  # noqa: E402
from tasks import TASKS, Task, prepared  # noqa: E402

TASKS["trec"] = Task("classification", "trec_qc/train.jsonl", "trec_qc/test.jsonl", "accuracy", 5452, 500)
TASKS["rotten_tomatoes_all"] = Task(
    "classification", "rotten_tomatoes/all.jsonl", "rotten_tomatoes/all.jsonl", "accuracy", 8000, 1500, moved=1500
)
OF_LANGUAGE = {"en": ("rotten_tomatoes_all", "trec"), "pt": ("assin1_similarity", "assin1_entailment")}


def checkpoints(arguments) -> dict[str, dict[int, Path]]:
    """Contestant -> pretraining seed -> checkpoint."""
    found = read_results(arguments.output / "results.jsonl")
    wanted = ("corpus", "preset", "minutes")
    by_name = groups([r for r in found if all(r[name] == getattr(arguments, name) for name in wanted)])
    names = arguments.contestants or [reference_of(by_name), "fastbert", "fastbert-classic"]
    chosen = {n: {r["seed"]: arguments.output / r["checkpoint"] for r in by_name[n]} for n in names if n in by_name}
    if not chosen:
        raise SystemExit(f"no checkpoints of {arguments.minutes:g} minutes on {arguments.corpus}: run run.py first")
    return chosen


def finetune(name: str, model: Path, seed: int, arguments) -> dict:
    """One fine-tuning through the command; its figures."""
    task = TASKS[name]
    work = arguments.output / "finetuning"
    train, held = prepared(name, Path(arguments.data), work, arguments.limit)
    output = work / "output"
    shutil.rmtree(output, ignore_errors=True)
    command = [
        sys.executable, "-m", "fastbert.finetune", str(model), "--task", task.kind, "--train", str(train),
        "--eval", str(held), "--output", str(output), "--seed", str(seed), "--epochs", str(arguments.epochs),
        "--learning-rate", str(arguments.learning_rate), "--batch-size", "16", "--max-length", str(task.max_length),
        "--evaluations", "0", "--threads", str(arguments.threads),
    ]  # fmt: skip
    command += ["--label-field", task.label_field] if task.label_field else []
    began = time.perf_counter()
    ran = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": str(arguments.threads)}
    )
    if ran.returncode:
        raise SystemExit(f"{name} from {model} failed:\n{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}")
    scores = json.loads((output / "finetune.json").read_text(encoding="utf-8"))["seeds"][0]["eval"]
    shutil.rmtree(output)
    return {"value": scores[task.measure], "scores": scores, "wall_s": round(time.perf_counter() - began, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", default="en")
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--minutes", type=float, default=10.0, help="of the pretraining to be compared")
    parser.add_argument("--contestants", nargs="+")
    parser.add_argument("--data", default="../shared/data/tasks", help="folder with the tasks' files")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), help="default: two of the corpus's language")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--limit", type=int, help="most examples of every set, to try it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", default="runs/time_to_loss", help="what run.py wrote to")
    arguments = parser.parse_args()
    arguments.output = Path(arguments.output)
    tasks = arguments.tasks or OF_LANGUAGE["pt" if "pt" in Path(arguments.corpus).stem else "en"]
    chosen = checkpoints(arguments)
    path = arguments.output / "finetuning.jsonl"
    fields = ("task", "seed", "checkpoint", "epochs", "learning_rate", "limit")
    done = {tuple(r[f] for f in fields): r for r in read_results(path)}
    found: dict[tuple[str, str], list[float]] = {}
    for seed in range(arguments.seeds):
        for task in tasks:
            for name, of_seed in chosen.items():
                model = of_seed.get(seed) or of_seed[sorted(of_seed)[seed % len(of_seed)]]
                key = (task, seed, str(model), arguments.epochs, arguments.learning_rate, arguments.limit)
                if key not in done:
                    done[key] = dict(zip(fields, key, strict=True)) | finetune(task, model, seed, arguments)
                    with path.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(done[key]) + "\n")
                found.setdefault((task, name), []).append(100 * done[key]["value"])
                print(f"{task:20} seed {seed} {name:20} {100 * done[key]['value']:5.1f}", flush=True)
    print("\n| task | measure × 100 | " + " | ".join(map(name_of, chosen)) + " |\n|---|---|" + "---|" * len(chosen))
    for task in tasks:
        cells = [found[task, name] for name in chosen]
        texts = [f"{statistics.fmean(c):.1f} [{min(c):.1f}, {max(c):.1f}]" for c in cells]
        print(f"| {task} | {TASKS[task].measure} | {' | '.join(texts)} |")


if __name__ == "__main__":
    main()
