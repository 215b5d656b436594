"""Does quality pay for speed? The checkpoints of run.py, pretrained for the same minutes, fine-tuned on labelled tasks.

    python benchmarks/time_to_loss/finetune.py --corpus en --data ../shared/data/tasks

Takes the checkpoints that run.py left: tuned Hugging Face with its best learning rate, fastbert and fastbert-classic
(``--contestants`` for others), and fine-tunes each with ``python -m fastbert.finetune``, the same examples, epochs and
seeds, each contestant with its own best optimizer settings (../finetuning/choosing.py). Fine-tuning seed s starts from
the checkpoint of pretraining seed s where there is one. Results are lines of finetuning.jsonl; what is there is not run
again.
"""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "finetuning")]
from choosing import Finetunings, mean_and_deviation  # noqa: E402
from run import read_results  # noqa: E402
from table import groups, name_of, reference_of  # noqa: E402
from tasks import TASKS, Task  # noqa: E402

TASKS["trec"] = Task("classification", "trec_qc/train.jsonl", "trec_qc/test.jsonl", "accuracy", 4900, 500)
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
    parser.add_argument("--limit", type=int, help="most examples of every set, to try it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", default="runs/time_to_loss", help="what run.py wrote to")
    arguments = parser.parse_args()
    arguments.output = Path(arguments.output)
    tasks = arguments.tasks or OF_LANGUAGE["pt" if "pt" in Path(arguments.corpus).stem else "en"]
    work, path = arguments.output / "finetuning", arguments.output / "finetuning.jsonl"
    finetunings = Finetunings(Path(arguments.data), work, path, arguments.limit, None, arguments.threads)
    chosen, lines = checkpoints(arguments), []
    for task in tasks:
        cells = []
        for name, of_seed in chosen.items():

            def model_of(seed: int, of_seed=of_seed) -> Path:
                return of_seed.get(seed) or of_seed[sorted(of_seed)[seed % len(of_seed)]]

            seeds = range(arguments.seeds)
            settings, values = finetunings.with_best_settings(task, name, model_of, seeds, arguments.epochs)
            cells.append(f"{mean_and_deviation(values)} ({settings})")
        lines.append(f"| {task} | {TASKS[task].measure} | {' | '.join(cells)} |")
    print("\n| task | measure × 100 | " + " | ".join(map(name_of, chosen)) + " |\n|---|---|" + "---|" * len(chosen))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
