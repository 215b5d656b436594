"""What a pretrained model is worth afterwards: a fixed panel of tasks of its language.

    python benchmarks/recipe/worth.py pt before=runs/001 now=runs/002 --data ../shared/data/tasks

Fine-tunes each model on every task with its own best optimizer settings, chosen with one seed on sentences that are
not scored (benchmarks/finetuning/choosing.py), then with three seeds; and counts the minimal pairs, sentences of the
tasks and the same with two words swapped, that it tells apart. Several models of a name, separated by commas, are
different pretrainings of one candidate. Results are lines of --results; what is there is not run again.
"""

import argparse
import math
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "finetuning"))
from choosing import Finetunings, mean_and_deviation
from tasks import TASKS, prepared, read

# task -> epochs
PANELS = {
    "pt": {"lenerbr": 12, "assin1_similarity": 5, "assin1_entailment": 5, "faquad": 6},
    "en": {"rotten_tomatoes": 5, "trec": 5, "cola": 3, "mrpc": 5},
}
TEXTS = {"pt": "assin1_similarity", "en": "rotten_tomatoes"}  # where the minimal pairs come from
PAIRS = 500
SCORED = 2000  # sentences at most


def swapped_words(model: Path, sentences: list[str]) -> float:
    """Percentage of sentences that the model finds more probable than the same with two words swapped."""
    import fastbert
    from fastbert.evaluation.probes import SWAPPED, minimal_pairs

    bert = fastbert.load(model)
    ids = [bert.tokenizer.encode(text, add_special_tokens=False).ids for text in sentences]
    pairs = minimal_pairs(bert, ids, count=PAIRS, seconds=math.inf)
    return next(100 * one.preferred for one in pairs if one.name == SWAPPED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("language", choices=list(PANELS))
    parser.add_argument("candidates", nargs="+", metavar="NAME=RUN[,RUN]")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/tasks"), help="folder with the tasks' files")
    parser.add_argument("--tasks", nargs="+", help="of the panel (default: all)")
    parser.add_argument("--seeds", type=int, default=3, help="of each task's fine-tuning")
    parser.add_argument("--limit", type=int, help="most examples of every set")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--results", type=Path, default=Path("worth-results.jsonl"))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "fastbert-worth")
    arguments = parser.parse_args()
    panel = PANELS[arguments.language]
    for given in arguments.candidates:
        if "=" not in given:
            parser.error(f"{given}: expected NAME=RUN")
    if unknown := set(arguments.tasks or ()) - set(panel):
        parser.error(f"--tasks {' '.join(sorted(unknown))}: expected some of {', '.join(panel)}")
    candidates = {
        name: [Path(run) for run in runs.split(",")]
        for name, runs in (given.split("=", 1) for given in arguments.candidates)
    }
    finetunings = Finetunings(
        arguments.data, arguments.work, arguments.results, arguments.limit, SCORED, arguments.threads
    )
    columns: dict[str, list[list[float]]] = {name: [] for name in candidates}
    for task in arguments.tasks or panel:
        for name, runs in candidates.items():
            seeds = range(arguments.seeds)
            _, values = finetunings.with_best_settings(
                task, name, lambda seed, runs=runs: runs[seed % len(runs)], seeds, panel[task]
            )
            columns[name].append(values)
    _, held = prepared(TEXTS[arguments.language], arguments.data, arguments.work, arguments.limit, SCORED)
    sentences = [row["text"] for row in read(held)]
    for name, runs in candidates.items():
        columns[name].append([swapped_words(run, sentences) for run in runs])
    print(f"\n| task, × 100 | {' | '.join(columns)} |\n|---{'|---' * len(columns)}|")
    for row, task in enumerate([*(arguments.tasks or panel), "two words swapped"]):
        measure = f", {TASKS[task].measure}" if task in TASKS else ""
        print(f"| {task}{measure} | {' | '.join(mean_and_deviation(of[row]) for of in columns.values())} |")
    means = (statistics.fmean(statistics.fmean(values) for values in of) for of in columns.values())
    print(f"| mean | {' | '.join(f'{mean:.2f}' for mean in means)} |")


if __name__ == "__main__":
    main()
