"""The guide and the READMEs say the same in both languages, and the guide's code runs."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from support import command

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


def test_every_block_runs(guide, tmp_path, monkeypatch):
    """All of it, with a training of a few steps."""
    monkeypatch.chdir(tmp_path)

    def run_bash(code: str) -> str:
        printed = ""
        for line in code.splitlines():
            python, option, module, *arguments = shlex.split(line, comments=True)
            few = ("--preset", "tiny", "--batch-tokens", 1024, "--steps", 3) if module == "fastbert.train" else ()
            done = command(module, *arguments, *few, cwd=tmp_path)
            assert (python, option, done.returncode) == ("python", "-m", 0), f"{line}\n{done.stderr}"
            printed += done.stdout
        return printed

    monkeypatch.setattr(guide, "run_bash", run_bash)
    code = guide.blocks((GUIDE / guide.PAGES[0]).read_text(encoding="utf-8"))
    assert len(guide.run_all(code, quick=True)) == len(code)
    assert (tmp_path / "run" / "curves.png").is_file()


def test_pictures_are_there():
    for page in GUIDE.glob("*.md"):
        for name in re.findall(r"!\[.*?\]\((.*?)\)", page.read_text(encoding="utf-8")):
            assert (GUIDE / name).stat().st_size > 2000, name
