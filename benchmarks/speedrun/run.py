"""The masked-LM speedrun: how soon does a process that starts with text end with a model of the target loss?

    python benchmarks/speedrun/run.py --track cpu --language pt             # three seeds of the default recipe
    python benchmarks/speedrun/run.py --track cpu --language en --minutes 1.5 --name short
    python benchmarks/speedrun/run.py --track gpu --language pt --name mine \
        --command "{python} mine.py --train {train} --vocab {vocabulary} --seed {seed} --out {output}"
    python benchmarks/speedrun/run.py --table                               # records.md from the logs

README.md has the rules. Each attempt is checked and written to logs/ as one JSON file; what it trained on, what it was
scored on and the vocabulary are compared with fixed.json by their SHA-256.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "time_to_loss"))
from corpora import Prepared, file_sha256, prepare, shares_a_run  # noqa: E402
from scoring import score_in_process  # noqa: E402

FIXED = json.loads((HERE / "fixed.json").read_text(encoding="utf-8"))
LOGS = HERE / "logs"
DEFAULT = (
    "{python} -m fastbert.train --data {train} --tokenizer {vocabulary} --preset mini --minutes {minutes} "
    "--threads {threads} --seed {seed} --output {output}"
)
CORES = 2
SEEDS = 3  # of a record


def fixed_files(language: str, folder: Path) -> Prepared:
    """The corpus's files, refused where they are not the fixed ones."""
    prepared = prepare(f"bundled-{language}", folder, folder)
    wanted = FIXED[language]["sha256"]
    for name, digest in prepared.facts["sha256"].items():
        if digest != wanted[name]:
            raise SystemExit(
                f"{name} of {language} has SHA-256 {digest}, not {wanted[name]}: this is not the speedrun's"
            )
    return prepared


def attempt(arguments, seed: int, work: Path) -> dict:
    """Run the command once on what it may see, then score what it left."""
    given = work / "given"
    made = fixed_files(arguments.language, work / "fixed")
    given.mkdir()
    shutil.copy(made.train, given / "train.txt")
    shutil.copytree(made.vocabulary, given / "vocabulary")
    shutil.rmtree(made.folder)  # what is held out is not there while the command runs
    output = work / "output"
    values = {
        "python": sys.executable, "train": given / "train.txt", "vocabulary": given / "vocabulary", "output": output,
        "seed": seed, "minutes": arguments.minutes, "threads": CORES if arguments.track == "cpu" else os.cpu_count(),
    }  # fmt: skip
    command = [part.format(**values) for part in shlex.split(arguments.command)]
    wall_s, printed = timed(command, arguments.track, work)
    if file_sha256(given / "train.txt") != FIXED[arguments.language]["sha256"]["train.txt"]:
        raise SystemExit("the command has changed the training text")
    made = fixed_files(arguments.language, work / "fixed")
    checked = check_unseen(made, output)
    found = score_in_process(output, made.rows)
    shown = [part.replace(str(work), "WORK").replace(sys.executable, "python") for part in command]
    return {"seed": seed, "seconds": round(wall_s, 2), **found, "unseen": checked, "command": shown, "output": printed}


def timed(command: list[str], track: str, work: Path) -> tuple[float, str]:
    """Wall-clock seconds from the start of the process to its end, and what it printed, without the work folder."""
    environment = dict(os.environ)
    confine = None
    if track == "cpu":
        environment |= {"OMP_NUM_THREADS": str(CORES), "CUDA_VISIBLE_DEVICES": ""}
        if hasattr(os, "sched_setaffinity"):
            cores = sorted(os.sched_getaffinity(0))[:CORES]

            def confine() -> None:
                os.sched_setaffinity(0, cores)
    else:
        environment.setdefault("CUDA_VISIBLE_DEVICES", "0")
        if "," in environment["CUDA_VISIBLE_DEVICES"]:
            raise SystemExit("the GPU track is of one GPU: set CUDA_VISIBLE_DEVICES to one number")
    began = time.monotonic()
    outputs = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(command, cwd=work, env=environment, preexec_fn=confine, **outputs)
    wall_s = time.monotonic() - began
    if done.returncode:
        raise SystemExit(f"the command ended with {done.returncode}:\n{done.stdout[-3000:]}")
    return wall_s, done.stdout.replace(str(work), "WORK")


def check_unseen(made: Prepared, output: Path) -> str:
    """What is known of the text the command trained on: no row may share 13 tokens in a row with it.

    Raises:
        SystemExit: the token store that the command left holds held-out text, or more than the training text.
    """
    import numpy as np

    from fastbert import Tokenizer
    from fastbert.data import TokenStore

    if not (output / "tokens" / "manifest.json").is_file():
        return "no token store was left: its program has to be read"
    store = TokenStore.open(output / "tokens", verify=True)
    tokens = store.gather([0], [store.num_tokens])
    text = Tokenizer.load(made.vocabulary).encode_file(str(made.train), add_special_tokens=False)
    if not np.array_equal(tokens, text.input_ids):
        raise SystemExit("the token store is not that of the training text")
    rows = np.load(made.rows)
    whole = np.where(rows["labels"] >= 0, rows["labels"], rows["input_ids"])
    inside = [row[mask > 0][1:-1] for row, mask in zip(whole, rows["attention_mask"], strict=True)]
    if any(shares_a_run(inside, tokens)):
        raise SystemExit("held-out text is in the token store")
    return "the token store is that of the training text; no row shares 13 tokens in a row with it"


def log_of(arguments, attempts: list[dict]) -> dict:
    """What is written down of an attempt."""
    from fastbert.system.environment import _git_commit, _versions, hardware

    target = FIXED[arguments.language]["target"]
    mean = statistics.fmean(a["loss"] for a in attempts)
    return {
        "track": arguments.track, "language": arguments.language, "name": arguments.name,
        "date": time.strftime("%Y-%m-%d"), "target": target, "mean_loss": round(mean, 4),
        "reached": mean <= target, "record": mean <= target and len(attempts) >= SEEDS,
        "seconds": round(statistics.fmean(a["seconds"] for a in attempts), 2),
        "command": arguments.command.replace("{minutes}", str(arguments.minutes)), "attempts": attempts,
        "git_commit": _git_commit(), "versions": _versions(), "hardware": hardware(),
    }  # fmt: skip


def earlier(path: Path, arguments) -> list[dict]:
    """Attempts of the same day, commit and command that are written down: they are not made again."""
    from fastbert.system.environment import _git_commit

    if not path.is_file():
        return []
    log = json.loads(path.read_text(encoding="utf-8"))
    mine = (arguments.command.replace("{minutes}", str(arguments.minutes)), _git_commit())
    return log["attempts"] if (log["command"], log["git_commit"]) == mine else []


def write_log(path: Path, log: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(log, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_table(logs: Path, path: Path) -> str:
    """records.md: for each track and language its records, a line whenever the time fell."""
    found = [json.loads(file.read_text(encoding="utf-8")) | {"file": file.name} for file in sorted(logs.glob("*.json"))]
    lines = ["# Records", "", "Written by `python benchmarks/speedrun/run.py --table` from the logs.", ""]
    for track in ("cpu", "gpu"):
        for language in FIXED:
            lines += [f"## {track}, {language}: loss {FIXED[language]['target']:.2f}", ""]
            mine = [log for log in found if (log["track"], log["language"]) == (track, language) and log["record"]]
            mine.sort(key=lambda log: (log["date"], -log["seconds"]))
            rows, best = [], float("inf")
            for log in mine:
                if log["seconds"] >= best:
                    continue
                best = log["seconds"]
                losses, times = ([a[k] for a in log["attempts"]] for k in ("loss", "seconds"))
                rows.append(
                    f"| {log['seconds']:.1f} [{min(times):.1f}, {max(times):.1f}] | {log['mean_loss']:.3f} "
                    f"[{min(losses):.3f}, {max(losses):.3f}] | {len(losses)} | {log['name']} | {log['date']} | "
                    f"{log['hardware']['cpu']} | [log](logs/{log['file']}) |"
                )
            head = "| seconds | loss, mean [range] | seeds | what | date | processor | |"
            lines += [head, "|---|---|---|---|---|---|---|", *rows, ""] if rows else ["None yet.", ""]
    text = "\n".join(lines).rstrip() + "\n"
    path.write_text(text, encoding="utf-8")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--track", choices=("cpu", "gpu"), default="cpu", help="two cores, or one GPU")
    parser.add_argument("--language", choices=list(FIXED), default="pt")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="a record needs three (default: 3)")
    parser.add_argument("--minutes", type=float, help="of the default command (default: fixed.json's)")
    parser.add_argument("--name", default="fastbert, defaults", help="what the table calls it")
    parser.add_argument("--command", default=DEFAULT, help="{train} {vocabulary} {output} {seed} {threads} {python}")
    parser.add_argument("--logs", default=str(LOGS), help="where the log goes, records.md beside it")
    parser.add_argument("--table", action="store_true", help="only write records.md")
    arguments = parser.parse_args()
    logs = Path(arguments.logs)
    if not arguments.table:
        arguments.minutes = arguments.minutes or FIXED[arguments.language]["minutes"]
        word = re.sub(r"\W+", "-", arguments.name).strip("-")
        path = logs / f"{time.strftime('%Y-%m-%d')}-{arguments.track}-{arguments.language}-{word}.json"
        attempts = earlier(path, arguments)
        for seed in range(len(attempts), arguments.seeds):
            with tempfile.TemporaryDirectory(prefix="speedrun-") as work:
                attempts.append(attempt(arguments, seed, Path(work)))
            print(f"seed {seed}: {attempts[-1]['seconds']:.1f} s, loss {attempts[-1]['loss']:.4f}", flush=True)
            write_log(path, log_of(arguments, attempts))
        log = log_of(arguments, attempts)
        write_log(path, log)
        verdict = "reached" if log["reached"] else "not reached"
        print(f"{log['seconds']:.1f} s, mean loss {log['mean_loss']:.4f}: target {log['target']} {verdict}; {path}")
    text = write_table(logs, logs.parent / "records.md")
    if arguments.table:
        print(text)


if __name__ == "__main__":
    main()
