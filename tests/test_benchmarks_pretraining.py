"""The programs in benchmarks/time_to_loss and benchmarks/speedrun, on small texts, for seconds."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
RUN, SPEEDRUN = ROOT / "benchmarks" / "time_to_loss" / "run.py", ROOT / "benchmarks" / "speedrun" / "run.py"


def module(path: Path):
    spec = importlib.util.spec_from_file_location(f"benchmark_{path.parent.name}_{path.stem}", path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def corpora():
    return module(RUN.parent / "corpora.py")


def test_a_shared_run_of_tokens_is_found(corpora):
    rng = np.random.default_rng(0)
    text = rng.integers(0, 8192, 5000)
    other = rng.integers(0, 8192, 40)
    inside, nearly = other.copy(), other.copy()
    inside[20:33] = text[1000:1013]
    nearly[20:32] = text[1000:1012]
    short = text[:12]
    assert corpora.shares_a_run([other, inside, nearly, short, text[-13:]], text) == [False, True, False, False, True]


def test_the_time_of_a_loss_lies_between_two_evaluations():
    first_at = module(RUN.parent / "table.py").first_at
    curve = [{"seconds": s, "loss": loss} for s, loss in ((10, 7.0), (20, 6.0), (30, 5.0))]
    assert first_at(curve, 6.5) == pytest.approx(15.0) and first_at(curve, 5.0) == pytest.approx(30.0)
    assert first_at(curve, 4.9) is None and first_at(curve, 7.0) == 10


@pytest.mark.slow
def test_both_sides_run_and_are_compared(tmp_path):
    pytest.importorskip("transformers")
    rng = np.random.default_rng(1)
    words = ["".join(rng.choice(list("aeioubcdlmnrst"), rng.integers(2, 8))) for _ in range(400)]
    documents = ("\n".join(" ".join(rng.choice(words, 24)) + "." for _ in range(6)) for _ in range(100))
    (tmp_path / "text.txt").write_text("\n\n".join(documents), encoding="utf-8")
    command = [sys.executable, RUN, "--corpus", tmp_path / "text.txt", "--output", tmp_path / "out", "--preset", "tiny"]
    command += ["--minutes", "0.2", "--evaluations", "4", "--threads", "1", "--seeds", "0"]
    command += ["--contestants", "hf-tuned@1e-3", "fastbert-classic", "fastbert@--mask-rate=0.2"]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    results = tmp_path / "out" / "results.jsonl"
    records = [json.loads(line) for line in results.read_text().splitlines()]
    assert [r["contestant"] for r in records] == command[-3:]
    for record in records:
        # the run's own last evaluation is of the same rows and masks as the judge's, in bf16
        assert record["curve"][-1]["loss"] == pytest.approx(record["final"]["loss"], abs=0.02)
        assert record["final"]["masked_tokens"] == record["facts"]["masked_tokens"] > 50
        seconds = [point["seconds"] for point in record["curve"]]
        assert seconds == sorted(seconds) and seconds[0] > 0 and seconds[-1] < 40
    rows = np.load(tmp_path / "out" / "corpora" / "text" / "rows.npz")
    assert 0.1 < (rows["labels"] >= 0).sum() / rows["attention_mask"].sum() < 0.2
    assert "Hugging Face, tuned, learning rate 1e-3" in done.stdout and "| fastbert, classic |" in done.stdout
    assert (tmp_path / "out" / "text-tiny-0.2m.png").stat().st_size > 10_000
    again = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert again.returncode == 0 and again.stdout.count("there already") == 3
    assert len(results.read_text().splitlines()) == 3


@pytest.mark.parametrize("language", ["pt", "en"])
def test_the_speedruns_files_are_the_fixed_ones(language, tmp_path):
    speedrun = module(SPEEDRUN)
    made = speedrun.fixed_files(language, tmp_path / "fixed")
    assert made.facts["rows"] == 512
    speedrun.FIXED[language]["sha256"]["rows"] = "0" * 64
    with pytest.raises(SystemExit, match="not the speedrun's"):
        speedrun.fixed_files(language, tmp_path / "fixed")


def test_a_speedrun_is_timed_scored_and_checked(tmp_path):
    pytest.importorskip("transformers")
    recipe = (
        "{python} -m fastbert.train --data {train} --tokenizer {vocabulary} --preset tiny --steps 4 --output {output}"
    )
    command = [sys.executable, SPEEDRUN, "--seeds", "1", "--logs", tmp_path / "logs", "--name", "four steps"]
    done = subprocess.run(
        [*map(str, command), "--command", recipe], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (log,) = (json.loads(p.read_text()) for p in (tmp_path / "logs").iterdir())
    assert not log["reached"] and not log["record"] and 5 < log["mean_loss"] < 10
    assert "no row shares" in log["attempts"][0]["unseen"] and str(tmp_path) not in json.dumps(log)
    assert "None yet" in (tmp_path / "records.md").read_text()
    # all of the bundled text, the held-out documents too, with the same vocabulary
    cheat = recipe.replace("{train}", "bundled:pt")
    done = subprocess.run(
        [*map(str, command), "--command", cheat], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode != 0 and "not that of the training text" in done.stderr


def test_records_are_the_runs_that_were_quicker(tmp_path):
    speedrun = module(SPEEDRUN)
    logs = tmp_path / "logs"
    logs.mkdir()

    def log(day: int, seconds: float, record: bool) -> None:
        content = {
            "track": "cpu", "language": "pt", "name": f"day {day}", "date": f"2026-12-0{day}", "mean_loss": 4.0,
            "seconds": seconds, "record": record, "attempts": [{"loss": 4.0, "seconds": seconds}] * 3,
            "hardware": {"cpu": "a processor"},
        }  # fmt: skip
        (logs / f"{day}.json").write_text(json.dumps(content), encoding="utf-8")

    for day, seconds, record in ((1, 90.0, True), (2, 95.0, True), (3, 50.0, False), (4, 80.0, True)):
        log(day, seconds, record)
    text = speedrun.write_table(logs, tmp_path / "records.md")
    assert "day 1" in text and "day 4" in text and "day 2" not in text and "day 3" not in text
