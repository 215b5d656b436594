"""Loss against wall-clock: Hugging Face and fastbert on the same text, vocabulary, size, rows and masks.

    python benchmarks/time_to_loss/run.py                      # the list of runs, about two hours; then table and plot
    python benchmarks/time_to_loss/run.py --corpus bundled-pt --minutes 1 --contestants hf-tuned@1e-3 fastbert --seeds 0
    python benchmarks/time_to_loss/run.py --table              # of what is there, without running anything

Contestants: ``hf-default`` and ``hf-tuned``, with ``@RATE`` for a learning rate (1e-3 without); ``fastbert``, the
command with its defaults, and ``fastbert-classic``; ``fastbert@--option=value@…`` passes further options on. A run that
is in the results is not run again, and every run is written down as soon as it ends: the list can be stopped anywhere.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from corpora import Prepared, prepare  # noqa: E402
from scoring import score_in_process  # noqa: E402

RATES = ("5e-4", "1e-3", "2e-3")
# in this order any beginning of the list is of use: the usual rate first, other rates once, then the other seeds
PLAN = (
    "hf-tuned@1e-3 0", "fastbert 0", "fastbert-classic 0", "hf-tuned@5e-4 0", "hf-tuned@2e-3 0",
    "hf-tuned@1e-3 1", "fastbert 1", "fastbert-classic 1", "hf-tuned@1e-3 2", "fastbert 2", "fastbert-classic 2",
    "hf-default@1e-3 0",
)  # fmt: skip
KEY = ("corpus", "preset", "minutes", "contestant", "seed", "threads")


def command(contestant: str, seed: int, prepared: Prepared, output: Path, arguments) -> list[str]:
    """The command line of a contestant."""
    name, *extra = contestant.split("@")
    common = ["--minutes", str(arguments.minutes), "--preset", arguments.preset, "--seed", str(seed)]
    common += ["--threads", str(arguments.threads), "--evaluations", str(arguments.evaluations)]
    common += ["--output", str(output)]
    if name in ("hf-default", "hf-tuned"):
        rate = extra[0] if extra else "1e-3"
        program = [sys.executable, str(HERE / "huggingface.py"), "--prepared", str(prepared.folder)]
        return [*program, "--variant", name.removeprefix("hf-"), "--learning-rate", rate, *common]
    if name not in ("fastbert", "fastbert-classic"):
        raise SystemExit(f"contestant {contestant}: expected hf-default, hf-tuned, fastbert or fastbert-classic")
    program = [sys.executable, "-m", "fastbert.train", "--data", str(prepared.train)]
    program += ["--tokenizer", str(prepared.vocabulary), "--eval-data", str(prepared.heldout)]
    program += ["--eval-tokens", "65536"]  # more than the rows have: every evaluation is of all
    return [*program, *(["--arch", "classic"] if name == "fastbert-classic" else []), *extra, *common]


def curve_of(contestant: str, output: Path) -> list[dict]:
    """Charged seconds, tokens seen, loss and accuracy, evaluation by evaluation."""
    ours = contestant.startswith("fastbert")
    lines = (output / ("metrics.jsonl" if ours else "curve.jsonl")).read_text(encoding="utf-8").splitlines()
    points = []
    for record in map(json.loads, lines):
        if record["kind"] not in ("heldout", "final"):
            continue
        seconds = record["elapsed_s"] - record.get("evaluation_s", 0.0)
        point = {"seconds": round(seconds, 3), "step": record["step"], "tokens": record["tokens"]}
        points.append(point | {"loss": round(record["loss"], 5), "accuracy": round(record["accuracy"], 5)})
    return points


def run_one(contestant: str, seed: int, prepared: Prepared, output: Path, arguments) -> dict:
    """Train, score the checkpoint, and return the record; the checkpoint stays in ``output``."""
    shutil.rmtree(output, ignore_errors=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    asked = command(contestant, seed, prepared, output, arguments)
    environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads)}
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    began = time.monotonic()
    printed = output.with_name(f"{output.name}.log")
    with printed.open("w", encoding="utf-8") as log:
        code = subprocess.run(asked, env=environment, stdout=log, stderr=subprocess.STDOUT).returncode
    wall_s = time.monotonic() - began
    if code:
        raise SystemExit(f"{contestant} seed {seed} ended with {code}: see {printed}")
    checkpoint = output if contestant.startswith("fastbert") else output / "model"
    final = score_in_process(checkpoint, prepared.rows, environment)
    for leftover in ("checkpoints", "tokens", "eval_tokens", "tensorboard"):
        shutil.rmtree(output / leftover, ignore_errors=True)
    values = (arguments.corpus, arguments.preset, arguments.minutes, contestant, seed, arguments.threads)
    return dict(zip(KEY, values, strict=True)) | {
        "final": final, "wall_s": round(wall_s, 2), "checkpoint": os.path.relpath(checkpoint, arguments.output),
        "curve": curve_of(contestant, output), "command": asked[1:], "facts": prepared.facts,
        "load_before": load, "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "machine": machine(),
    }  # fmt: skip


def machine() -> dict:
    """Processor and versions."""
    from importlib import metadata

    from fastbert.system.environment import hardware

    return hardware() | {p: metadata.version(p) for p in ("torch", "transformers", "tokenizers")}


def key(record: dict) -> tuple:
    return tuple(record[name] for name in KEY)


def read_results(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def planned(arguments) -> list[tuple[str, int]]:
    """Contestants and seeds in the order they run."""
    if not arguments.contestants:
        return [(name, int(seed)) for name, seed in (entry.split(" ") for entry in PLAN)]
    return [(name, seed) for seed in arguments.seeds for name in arguments.contestants]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", default="en", help="en, pt, bundled-en, bundled-pt or a .txt file (default: en)")
    parser.add_argument("--texts", default="../shared/data/text", help="folder with en/ and pt/, the shared novels")
    parser.add_argument("--minutes", type=float, default=10.0, help="of every run, from process start (default: 10)")
    parser.add_argument("--preset", default="mini", choices=("tiny", "mini", "small"))
    parser.add_argument("--contestants", nargs="+", help="default: the list in this file")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--evaluations", type=int, default=60, help="in a run, evenly (default: 60)")
    parser.add_argument("--output", default="runs/time_to_loss", help="results.jsonl, checkpoints, plots")
    parser.add_argument("--table", action="store_true", help="only print and draw what is there")
    arguments = parser.parse_args()
    arguments.output = Path(arguments.output)
    arguments.output.mkdir(parents=True, exist_ok=True)
    results = arguments.output / "results.jsonl"
    done = {key(record) for record in read_results(results)}
    if not arguments.table:
        label = Path(arguments.corpus).stem
        prepared = prepare(arguments.corpus, arguments.output / "corpora" / label, Path(arguments.texts))
        print(json.dumps(prepared.facts), flush=True)
        for contestant, seed in planned(arguments):
            one = (arguments.corpus, arguments.preset, arguments.minutes, contestant, seed, arguments.threads)
            if one in done:
                print(f"{contestant} seed {seed}: there already", flush=True)
                continue
            folder = f"{label}-{arguments.preset}-{arguments.minutes:g}m"
            place = arguments.output / folder / f"{contestant.replace('@', '_').replace('/', '_')}-s{seed}"
            record = run_one(contestant, seed, prepared, place, arguments)
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            print(f"{contestant} seed {seed}: loss {record['final']['loss']:.3f}, masked accuracy "
                  f"{record['final']['accuracy']:.1%}, {record['wall_s']:.1f} s", flush=True)  # fmt: skip
    import table

    table.show(read_results(results), arguments.corpus, arguments.preset, arguments.minutes, arguments.output)


if __name__ == "__main__":
    main()
