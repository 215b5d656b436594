"""The guide and the READMEs say the same in both languages, and the guide's code runs."""

import importlib.util
import json
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


# ---- notebooks ----
def code_of(name: str) -> list[tuple[str, str]]:
    """(language, code) of the cells of a notebook."""
    cells = json.loads((GUIDE / name).read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return [("bash" if text.startswith("%%bash\n") else "python", text.removeprefix("%%bash\n")) for text in sources]


@pytest.fixture
def run_quickly(guide, tmp_path, monkeypatch):
    """``run_quickly(code)``: every cell, in an empty directory, with trainings of a few steps."""
    monkeypatch.chdir(tmp_path)

    def run_bash(code: str) -> str:
        printed = ""
        for line in code.splitlines():
            python, option, module, *arguments = shlex.split(line.partition("  # ")[0])
            few: tuple = ()
            if module == "fastbert.train":
                few = ("--preset", "tiny", "--batch-tokens", 1024, "--steps", 3)
                if "--minutes" in arguments:
                    del arguments[(at := arguments.index("--minutes")) : at + 2]
            done = command(module, *arguments, *few, cwd=tmp_path)
            assert (python, option) == ("python", "-m"), line
            printed += done.stdout
        return printed

    monkeypatch.setattr(guide, "run_bash", run_bash)
    shown = "from pathlib import Path\n\nImage, display = lambda name: Path(name).read_bytes(), len"  # no IPython here
    return lambda code: guide.run_all(
        [(kind, text.replace("from IPython.display import Image, display", shown)) for kind, text in code], quick=True
    )


def test_notebooks_are_their_pages(guide):
    """``python docs/guide/run.py --notebooks`` writes them."""
    for page, name in guide.NOTEBOOKS.items():
        written = (GUIDE / name).read_text(encoding="utf-8")
        assert written == guide.notebook((GUIDE / page).read_text(encoding="utf-8")), name
        assert not re.search(r'"[^"\n]*(/tmp/|/home/|/root/)', written), name
    first, second, *others = guide.NOTEBOOKS.values()
    assert code_of(first) == code_of(second) and code_of(others[0]) == code_of(others[1])
    outputs = [cell.get("outputs") for cell in json.loads((GUIDE / first).read_text(encoding="utf-8"))["cells"]]
    kinds = [output["output_type"] for shown in outputs for output in shown or ()]
    assert kinds.count("display_data") == len(guide.PICTURES) and kinds.count("stream") >= 12


def test_notebooks_have_the_right_format(guide):
    nbformat = pytest.importorskip("nbformat")
    for name in guide.NOTEBOOKS.values():
        nbformat.validate(nbformat.read(GUIDE / name, as_version=4))


def test_every_cell_runs(guide, run_quickly, tmp_path):
    """Of the guide in English; the Portuguese one has the same code."""
    code = code_of(guide.NOTEBOOKS[guide.PAGES[0]])
    assert len(run_quickly(code)) == len(code)
    assert (tmp_path / "run" / "curves.png").is_file()


@pytest.mark.slow
def test_the_gpu_hour_runs_on_a_cpu(run_quickly, tmp_path):
    """What is not about the machine: no GPU is needed to see that options and names are right."""
    pytest.importorskip("onnxscript")
    not_here = ("nvidia-smi", "pip ", "cp ")
    code = [(kind, text.replace('"cuda"', '"cpu"')) for kind, text in code_of("first-gpu-hour.ipynb")]
    here = [(kind, text) for kind, text in code if not text.startswith(not_here)]
    assert len(run_quickly(here)) == len(code) - 4
    assert (tmp_path / "model.onnx").is_file() and (tmp_path / "runs/gpu/report.html").is_file()


def test_pictures_are_there():
    for page in GUIDE.glob("*.md"):
        for name in re.findall(r"!\[.*?\]\((.*?)\)", page.read_text(encoding="utf-8")):
            assert (GUIDE / name).stat().st_size > 2000, name
