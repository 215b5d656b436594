"""Fine-tunings of several starts, each with the optimizer settings that suit it, remembered in a file of results.

No one optimizer suits weights of different origin: matrices that Muon made are larger than AdamW's or fresh ones. So
every start has its own best of SETTINGS, chosen with one seed on sentences that are neither trained on nor scored.
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
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from tasks import TASKS, development, prepared

SETTINGS = {
    "AdamW 3e-4": "--optimizer adamw --learning-rate 3e-4",
    "AdamW 1e-3": "--optimizer adamw --learning-rate 1e-3",
    "Muon 0.01": "--optimizer muon --muon-learning-rate 0.01 --learning-rate 1e-3",
    "Muon 0.02": "--optimizer muon --muon-learning-rate 0.02 --learning-rate 2e-3",
}
FOR_TEXTS = {"AdamW 3e-4, [CLS]": "--optimizer adamw --learning-rate 3e-4 --pooling cls"}
COMPARED_EPOCHS = {"faquad": 6, "lenerbr": 6, "assin1_similarity": 3, "assin1_similarity_portugal": 3}
SELECTION = "selection"  # in place of the seed, in a result that chooses


def settings_of(name: str) -> dict[str, str]:
    """The candidates for a task: heads of whole texts can also read the first token in place of the mean."""
    return SETTINGS | ({} if TASKS[name].kind in ("tagging", "qa") else FOR_TEXTS)


class Finetunings:
    """Fine-tunings through the command; what --results has already is not run again.

    Args:
        data: folder with the tasks' files.
        work: folder for files on the way; a process needs its own or its own tasks.
        results: a line for each fine-tuning.
        limit: most examples of every set.
        scored: most sentences that are scored.
        threads: of the command.
    """

    def __init__(
        self, data: Path, work: Path, results: Path, limit: int | None, scored: int | None, threads: int | None
    ):
        self.data, self.work, self.results = data, work, results
        self.limit, self.scored, self.threads = limit, scored, threads
        work.mkdir(parents=True, exist_ok=True)
        lines = results.read_text(encoding="utf-8").splitlines() if results.is_file() else []
        self.done = {self._key(record): record for record in map(json.loads, lines)}

    @staticmethod
    def _key(record: dict) -> tuple:
        return tuple(record[name] for name in ("task", "seed", "start", "settings", "model", "epochs", "limit"))

    def score(self, name: str, start: str, model: Path, settings: str, seed: int | str, epochs: int) -> float:
        """The task's measure × 100, on the scored sentences, or with the seed SELECTION on those to choose on."""
        record = {"task": name, "seed": seed, "start": start, "settings": settings, "epochs": epochs}
        record |= {"model": str(model), "limit": self.limit}
        if self._key(record) not in self.done:
            record |= self._finetune(name, model, settings, seed, epochs)
            self.done[self._key(record)] = record
            with self.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        value = 100 * self.done[self._key(record)]["scores"][TASKS[name].measure]
        print(f"{name:27} {start:16} {settings:18} seed {seed!s:9} {TASKS[name].measure} {value:5.1f}", flush=True)
        return value

    def with_best_settings(
        self, name: str, start: str, model_of: Callable[[int], Path], seeds: Sequence[int], epochs: int
    ) -> tuple[str, list[float]]:
        """The settings that do best on sentences that are not scored, and with them the score of every seed."""
        chosen = max(settings_of(name), key=lambda s: self.score(name, start, model_of(seeds[0]), s, SELECTION, epochs))
        return chosen, [self.score(name, start, model_of(seed), chosen, seed, epochs) for seed in seeds]

    def _finetune(self, name: str, model: Path, settings: str, seed: int | str, epochs: int) -> dict:
        task, number = TASKS[name], 0 if seed == SELECTION else int(seed)
        train, held = prepared(name, self.data, self.work, self.limit, self.scored)
        if seed == SELECTION:
            held = development(name, self.data, self.work, train, held, self.limit)
        output = self.work / f"output-{name}"
        shutil.rmtree(output, ignore_errors=True)
        command = [
            sys.executable, "-m", "fastbert.finetune", str(model), "--task", task.kind, "--train", str(train),
            "--eval", str(held), "--output", str(output), "--seed", str(number), "--epochs", str(epochs),
            "--batch-size", "16", "--max-length", str(task.max_length), "--evaluations", "0",
            *settings_of(name)[settings].split(),
        ]  # fmt: skip
        for option, value in (("--label-field", task.label_field), ("--threads", self.threads)):
            command += [option, str(value)] if value else []
        environment = os.environ | ({"OMP_NUM_THREADS": str(self.threads)} if self.threads else {})
        began = time.perf_counter()
        ran = subprocess.run(command, capture_output=True, text=True, env=environment)
        if ran.returncode:
            sys.exit(f"{name} from {model} failed:\n{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}")
        scores = json.loads((output / "finetune.json").read_text(encoding="utf-8"))["seeds"][0]["eval"]
        shutil.rmtree(output)
        return {"scores": scores, "wall_s": round(time.perf_counter() - began, 1)}


def mean_and_deviation(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.1f} ± {statistics.stdev(values) if len(values) > 1 else 0.0:.1f}"


def main() -> None:
    """Two optimizers, every task and seed: which one fine-tunes a run best that Muon has pretrained?"""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("pretrained", type=Path, help="a run of fastbert.train")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/tasks"), help="folder with the tasks' files")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=1500, help="most examples of every set")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--results", type=Path, default=Path("choosing-results.jsonl"))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "fastbert-choosing")
    given = parser.parse_args()
    finetunings = Finetunings(given.data, given.work, given.results, given.limit, 1000, given.threads)
    for name, epochs in COMPARED_EPOCHS.items():
        for settings in ("AdamW 3e-4", "Muon 0.01"):
            values = [
                finetunings.score(name, "pretrained", given.pretrained, settings, seed, epochs)
                for seed in range(given.seeds)
            ]
            print(f"{name:27} {settings:18} {mean_and_deviation(values)}")


if __name__ == "__main__":
    main()
