"""Does training take more memory, or begin later, on a large corpus than on a small one?

    python benchmarks/robustness/corpus_size.py --megabytes 30 3000 --rounds 3

For each size: a text is written (documents of about 3 kB, runs of lines of the corpora given, a word from elsewhere
behind each), made a token store by ``python -m fastbert.tokenize``, and trained on for some steps, the last
evaluation and the examples included, from the store ("store") or, with --from-text, from the text itself.

Memory is read from /proc/PID/status every 10 ms: the largest RssAnon, which is what the process itself has allocated,
and VmHWM, the largest resident set, which also counts pages of mapped files. Those are the page cache's: the kernel
takes them back when anybody needs the memory. "First step" is from the start of the process to the end of step 1, wall
clock. Needs Linux, and about 1.8 times the text in disk space.
"""

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

TEXTS = Path(__file__).resolve().parents[3] / "shared/data/text"
DOCUMENT_CHARACTERS = 3000
# the first step's end on a clock that all processes share, then the run as the command makes it
CHILD = """
import sys, time
from fastbert.system import cli
from fastbert import train
from fastbert.training import trainer
step = trainer.Trainer.train_step
def timed(self, progress):
    step(self, progress)
    if self.step == 1:
        print("FIRST", time.monotonic(), file=sys.stderr, flush=True)
trainer.Trainer.train_step = timed
sys.exit(cli.run(train.main, train.TrainOptions))
"""


def documents(lines: list[str], seed: int) -> Iterator[str]:
    """Runs of lines from random places, a word from elsewhere behind each line: no two documents are alike."""
    chance = random.Random(seed)
    words = sorted({word for line in lines for word in line.split()})
    while True:
        at, size, chosen = int(chance.random() * len(lines)), 0, []
        wanted = chance.uniform(0.2, 1.8) * DOCUMENT_CHARACTERS
        while size < wanted:
            chosen.append(f"{lines[at % len(lines)]} {words[int(chance.random() * len(words))]}")
            size += len(chosen[-1]) + 1
            at += 1
        yield "\n".join(chosen) + "\n\n"


def write_text(path: Path, megabytes: float, sources: list[Path]) -> None:
    read = (line.strip() for source in sources for line in source.read_text(encoding="utf-8").splitlines())
    lines = [line[:2000] for line in read if line]
    left, unfinished = int(megabytes * 1e6), path.with_suffix(".unfinished")
    with open(unfinished, "w", encoding="utf-8") as file:
        for document in documents(lines, seed=0):
            left -= file.write(document)
            if left <= 0:
                break
    unfinished.rename(path)


def watch(command: list, cwd: Path) -> dict[str, float]:
    """Run a command; returns MB and seconds."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    anonymous = resident = 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            fields = dict(line.split(":", 1) for line in status.splitlines())
            anonymous = max(anonymous, int(fields["RssAnon"].split()[0]))
            resident = max(resident, int(fields["VmHWM"].split()[0]))
        except (OSError, KeyError, ValueError):  # it has just ended
            pass
        time.sleep(0.01)
    assert process.stderr is not None
    said = process.stderr.read()
    if process.returncode:
        sys.exit(f"{command}: {said[-2000:]}")
    first = [float(line.split()[1]) for line in said.splitlines() if line.startswith("FIRST")]
    found = {"anonymous_mb": anonymous / 1024, "resident_mb": resident / 1024, "whole_s": time.monotonic() - began}
    return found | ({"first_step_s": first[0] - began} if first else {})


def train_command(asked: argparse.Namespace, data: Path, output: Path) -> list:
    options = ["--steps", asked.steps, "--preset", asked.preset, "--objective", asked.objective, "--evaluations", 2]
    from_text = ["--tokenizer", asked.tokenizer] if asked.tokenizer and asked.from_text else []
    return ["-c", CHILD, "--data", data, "--output", output, "--threads", 1, *options, *from_text]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[30.0, 3000.0])
    parser.add_argument("--rounds", type=int, default=3, help="trainings of each size, interleaved")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--objective", default="mlm", choices=("mlm", "mlm+nsp"))
    parser.add_argument("--from-text", action="store_true", help="train on the text itself, not on the store")
    parser.add_argument("--tokenizer", default=None, help="directory of a vocabulary (default: 8,192 pieces, new)")
    parser.add_argument("--texts", type=Path, nargs="+", default=sorted(TEXTS.glob("*/*.txt")))
    parser.add_argument("--folder", type=Path, default=None, help="keep what is made here, and use what is there")
    asked = parser.parse_args()
    if not asked.texts:
        sys.exit("--texts: name some text files")
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="corpus_size_"))
    folder.mkdir(exist_ok=True)
    try:
        measure(asked, folder)
    finally:
        if asked.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


def measure(asked: argparse.Namespace, folder: Path) -> None:
    data = {}
    for megabytes in asked.megabytes:
        text, store = folder / f"{megabytes:g}.txt", folder / f"{megabytes:g}.store"
        if not text.exists():
            write_text(text, megabytes, asked.texts)
        if asked.tokenizer is None:
            asked.tokenizer = str(folder / "vocabulary")
            if not (folder / "vocabulary").is_dir():
                import fastbert

                (folder / "vocabulary").mkdir()
                fastbert.Tokenizer.train([str(text)], vocab_size=8192, threads=1).save(folder / "vocabulary")
        data[megabytes] = text if asked.from_text else store
        if not asked.from_text and not store.is_dir():
            options = ("--data", text, "--tokenizer", asked.tokenizer, "--output", store, "--threads", 1)
            made = watch(["-m", "fastbert.tokenize", *options], folder)
            print(f"{megabytes:g} MB tokenized in {made['whole_s']:.1f} s, {made['anonymous_mb']:.0f} MB anonymous")
        if not asked.from_text:
            manifest = json.loads((store / "manifest.json").read_text())
            print("  " + ", ".join(f"{manifest[f'num_{n}']:,} {n}" for n in ("tokens", "sentences", "documents")))
    found: dict[float, list[dict[str, float]]] = {megabytes: [] for megabytes in data}
    for _ in range(asked.rounds):
        for megabytes, source in data.items():
            output = folder / "run"
            shutil.rmtree(output, ignore_errors=True)
            found[megabytes].append(watch(train_command(asked, source, output), folder))
            shutil.rmtree(output, ignore_errors=True)
    smallest = min(found)
    for megabytes in found:
        line = []
        for name, unit in (("anonymous_mb", "MB"), ("resident_mb", "MB"), ("first_step_s", "s")):
            values, base = ([r[name] for r in found[size]] for size in (megabytes, smallest))
            ratio = statistics.median(values) / statistics.median(base)
            line.append(
                f"{name} {statistics.median(values):.1f} {unit} [{min(values):.1f}, {max(values):.1f}] {ratio:.3f} ×"
            )
        print(f"{megabytes:g} MB: " + "; ".join(line), flush=True)


if __name__ == "__main__":
    main()
