"""Does pretraining help? A BERT pretrained here on the bundled Portuguese against the same one with random weights.

    python benchmarks/finetuning/pretraining.py --minutes 20 --data ../shared/data/tasks

Pretrains once (or takes --pretrained DIR), then fine-tunes both on Portuguese tasks with the same vocabulary, examples,
epochs and seeds, each with its own best settings (choosing.py). Results are appended to --results; what is there
already is not run again.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from choosing import Finetunings, mean_and_deviation
from tasks import TASKS

EPOCHS = {
    "lenerbr": 12, "assin1_similarity": 5, "assin1_similarity_portugal": 5, "assin1_entailment": 5, "faquad": 6,
}  # fmt: skip
SCORED = 2000  # sentences at most


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


def randomise(run: Path, folder: Path, seed: int) -> Path:
    """The same architecture and vocabulary with weights that have seen nothing."""
    directory = folder / str(seed)
    import torch

    from fastbert import BertForPreTraining, Tokenizer
    from fastbert.weights.huggingface import read_config

    config = read_config(run)
    torch.manual_seed(seed)
    BertForPreTraining(config).save_pretrained(directory)
    Tokenizer.load(run).save(directory, token_type_ids=config.arch != "modern")
    return directory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0, help="of pretraining (default: 20)")
    parser.add_argument("--train-options", default="", help="further options of fastbert.train, in one string")
    parser.add_argument("--pretrained", help="a run that is there already")
    parser.add_argument("--data", default="../shared/data/tasks", help="folder with the tasks' files")
    parser.add_argument("--tasks", nargs="+", default=list(EPOCHS), choices=list(EPOCHS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, help="most examples of every set")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--results", default="pretraining-results.jsonl")
    parser.add_argument("--work", default=str(Path(tempfile.gettempdir()) / "fastbert-pretraining"))
    arguments = parser.parse_args()
    work, data = Path(arguments.work), Path(arguments.data)
    work.mkdir(parents=True, exist_ok=True)
    run = pretrain(arguments)
    finetunings = Finetunings(data, work, Path(arguments.results), arguments.limit, SCORED, arguments.threads)
    rows = []
    for name in arguments.tasks:
        starts = {
            "random": partial(randomise, run, work / f"random-{run.name}-{name}"),
            "pretrained": lambda seed: run,
        }
        cells, means = [], []
        for start, model_of in starts.items():
            seeds = range(arguments.seeds)
            settings, values = finetunings.with_best_settings(name, start, model_of, seeds, EPOCHS[name])
            means.append(statistics.fmean(values))
            cells.append(f"{mean_and_deviation(values)} ({settings})")
        rows.append(f"| {name} | {TASKS[name].measure} × 100 | {' | '.join(cells)} | {means[1] - means[0]:+.1f} |")
    print("\n| task | measure | random weights | pretrained here | difference |\n|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
