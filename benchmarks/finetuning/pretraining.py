"""Does pretraining help? A BERT pretrained here on the bundled Portuguese against the same one with random weights.

    python benchmarks/finetuning/pretraining.py --minutes 20 --data ../shared/data/tasks

Pretrains once (or takes --pretrained DIR), then fine-tunes both on Portuguese tasks with the same vocabulary, examples,
epochs and seeds. No one optimizer suits both starts, so each has its own best of SETTINGS, chosen with one seed on
sentences that are not scored. Results are appended to --results; what is there already is not run again.
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
from tasks import TASKS, development, prepared

PORTUGUESE = ("assin1_similarity", "faquad", "lenerbr", "assin1_entailment")
EPOCHS = {"faquad": 6, "lenerbr": 12, "assin1_similarity": 5, "assin1_entailment": 5}
SETTINGS = {
    "AdamW 3e-4": "--optimizer adamw --learning-rate 3e-4",
    "AdamW 1e-3": "--optimizer adamw --learning-rate 1e-3",
    "Muon 0.01": "--optimizer muon --muon-learning-rate 0.01 --learning-rate 1e-3",
    "Muon 0.02": "--optimizer muon --muon-learning-rate 0.02 --learning-rate 2e-3",
}
FOR_TEXTS = {"AdamW 3e-4, [CLS]": "--optimizer adamw --learning-rate 3e-4 --pooling cls"}
SCORED = 2000  # sentences at most
STARTS = ("random", "pretrained")
SELECTION = "selection"  # in place of the seed, in a result that chooses


def settings_of(name: str) -> dict[str, str]:
    """The candidates for a task: heads of whole texts can also read the first token in place of the mean."""
    return SETTINGS | (FOR_TEXTS if TASKS[name].kind in ("regression", "pairs") else {})


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


class Comparison:
    """Fine-tunings through the command, remembered in a file of results."""

    def __init__(self, arguments: argparse.Namespace, run: Path):
        self.arguments, self.run, self.work = arguments, run, Path(arguments.work)
        self.file = Path(arguments.results)
        lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.is_file() else []
        self.done = {self._key(record): record for record in map(json.loads, lines)}

    @staticmethod
    def _key(record: dict) -> tuple:
        return tuple(record[name] for name in ("task", "seed", "start", "settings", "run", "limit"))

    def score(self, name: str, start: str, settings: str, seed: int | str) -> float:
        """Of the scored sentences, or with the seed SELECTION of those to choose on."""
        record = {"task": name, "seed": seed, "start": start, "settings": settings}
        record |= {"run": str(self.run), "limit": self.arguments.limit}
        if self._key(record) not in self.done:
            record |= self._finetune(name, start, settings, seed)
            self.done[self._key(record)] = record
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        value = 100 * self.done[self._key(record)]["scores"][TASKS[name].measure]
        print(f"{name:18} {start:10} {settings:18} seed {seed!s:9} {TASKS[name].measure} {value:5.1f}", flush=True)
        return value

    def best_settings(self, name: str, start: str) -> str:
        """What does best on sentences that are not scored."""
        return max(settings_of(name), key=lambda settings: self.score(name, start, settings, SELECTION))

    def _finetune(self, name: str, start: str, settings: str, seed: int | str) -> dict:
        task, number = TASKS[name], 0 if seed == SELECTION else int(seed)
        data, limit = Path(self.arguments.data), self.arguments.limit
        train, held = prepared(name, data, self.work, limit, SCORED)
        if seed == SELECTION:
            held = development(name, data, self.work, train, limit)
        model = self.run if start == "pretrained" else randomise(self.run, self.work / f"random-{name}", number)
        output = self.work / f"output-{name}"
        shutil.rmtree(output, ignore_errors=True)
        command = [
            sys.executable, "-m", "fastbert.finetune", str(model), "--task", task.kind, "--train", str(train),
            "--eval", str(held), "--output", str(output), "--seed", str(number), "--epochs", str(EPOCHS[name]),
            "--batch-size", "16", "--max-length", str(task.max_length), "--evaluations", "0",
            *settings_of(name)[settings].split(),
        ]  # fmt: skip
        for option, value in (("--label-field", task.label_field), ("--threads", self.arguments.threads)):
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
    parser.add_argument("--tasks", nargs="+", default=list(PORTUGUESE), choices=PORTUGUESE)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, help="most examples of every set")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--results", default="pretraining-results.jsonl")
    parser.add_argument("--work", default=str(Path(tempfile.gettempdir()) / "fastbert-pretraining"))
    arguments = parser.parse_args()
    if arguments.threads:
        os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    Path(arguments.work).mkdir(parents=True, exist_ok=True)
    comparison = Comparison(arguments, pretrain(arguments))
    rows = []
    for name in arguments.tasks:
        cells, means = [], []
        for start in STARTS:
            settings = comparison.best_settings(name, start)
            values = [comparison.score(name, start, settings, seed) for seed in range(arguments.seeds)]
            means.append(statistics.fmean(values))
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{means[-1]:.1f} ± {spread:.1f} ({settings})")
        rows.append(f"| {name} | {TASKS[name].measure} × 100 | {' | '.join(cells)} | {means[1] - means[0]:+.1f} |")
    print("\n| task | measure | random weights | pretrained here | difference |\n|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
