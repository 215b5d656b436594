"""The guide and the READMEs say the same in both languages, and the guide's code runs."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GUIDE = ROOT / "docs" / "guide"


@pytest.fixture(scope="module")
def guide():
    spec = importlib.util.spec_from_file_location("guide_runner", GUIDE / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_both_languages_hold_the_same_code_and_the_same_output(guide):
    pages = [(GUIDE / name).read_text(encoding="utf-8") for name in guide.PAGES]
    assert guide.blocks(pages[0]) == guide.blocks(pages[1])
    outputs = [re.findall(r"^```text\n(.*?)^```", page, re.MULTILINE | re.DOTALL) for page in pages]
    assert outputs[0] == outputs[1] and len(outputs[0]) >= 12
    assert [len(re.findall(r"^#+ ", page, re.MULTILINE)) for page in pages] == [8, 8]


def test_every_block_that_prints_has_its_output(guide):
    page = (GUIDE / "README.md").read_text(encoding="utf-8")
    for match in guide.BLOCK.finditer(page):
        printing = "print(" in match[2] or match[1] == "bash"
        assert printing == ("```text" in match[0]), match[2]


def test_every_block_runs():
    """All of it, with a training of a few steps."""
    done = subprocess.run([sys.executable, GUIDE / "run.py", "--quick"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]


def test_pictures_are_there():
    for page in GUIDE.glob("*.md"):
        for name in re.findall(r"!\[.*?\]\((.*?)\)", page.read_text(encoding="utf-8")):
            assert (GUIDE / name).stat().st_size > 2000, name
