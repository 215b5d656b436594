"""Run the guide: every code block in order, writing its output under it and its plots next to the page.

    python docs/guide/run.py                # about four minutes; rewrites README.md, LEIAME.md and their notebooks
    python docs/guide/run.py --quick        # trains for seconds, writes nothing; the test does this
    python docs/guide/run.py --notebooks    # runs nothing; writes the notebooks again, from the pages

The code is the same in both languages (``tests/test_guide.py``), so it runs once. Python blocks share one interpreter;
bash blocks run in its directory. A notebook is its page: text, code, the output and the pictures that are under it.
"""

import argparse
import base64
import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGES = ("README.md", "LEIAME.md")
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```\n(?:\n```text\n.*?^```\n)?", re.MULTILINE | re.DOTALL)
NOTEBOOKS = {
    "README.md": "seven-steps.ipynb", "LEIAME.md": "sete-passos.ipynb",
    "first-gpu-hour.md": "first-gpu-hour.ipynb", "primeira-hora-gpu.md": "primeira-hora-gpu.ipynb",
}  # fmt: skip
PICTURE = re.compile(r"^!\[(?P<alt>.*?)\]\((?P<name>.*?)\)\n", re.MULTILINE)
PICTURES = {"attention.png": "attention.png", "curves.png": "run/curves.png"}  # where the blocks write them
MAX_LINES = 24  # of a block's output; longer output is cut in the middle


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, code) of every block."""
    return [(match[1], match[2]) for match in BLOCK.finditer(page)]


def run_python(code: str, names: dict) -> str:
    captured = io.StringIO()
    with contextlib.redirect_stdout(captured):
        exec(compile(code, "guide", "exec"), names)
    return captured.getvalue()


def run_bash(code: str) -> str:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-ec", code], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{code}\nfailed:\n{done.stdout}{done.stderr}")
    return done.stdout


def shown(output: str) -> str:
    lines = [line.rstrip() for line in output.strip("\n").split("\n")]
    if len(lines) > MAX_LINES:
        half = MAX_LINES // 2
        lines = [*lines[:half], "…", *lines[-half:]]
    return "\n".join(lines)


def run_all(code: list[tuple[str, str]], quick: bool) -> list[str]:
    """Run every block in the current directory and return the outputs."""
    names: dict = {"__name__": "guide"}
    outputs = []
    for language, text in code:
        if quick:
            text = text.replace("--minutes 3", "--steps 30 --evaluations 2 --threads 1").replace(
                "range(30)", "range(10)"
            )
        outputs.append(run_python(text, names) if language == "python" else run_bash(text))
    return outputs


def with_outputs(page: str, outputs: list[str]) -> str:
    results = iter(outputs)

    def block(match: re.Match) -> str:
        output = shown(next(results))
        return f"```{match[1]}\n{match[2]}```\n" + (f"\n```text\n{output}\n```\n" if output else "")

    return BLOCK.sub(block, page)


# ---- notebooks ----
def cell(kind: str, text: str, outputs: list[dict] | None = None) -> dict:
    made = {"cell_type": kind, "metadata": {}, "source": text.strip("\n").splitlines(keepends=True)}
    return made if kind == "markdown" else made | {"execution_count": None, "outputs": outputs or []}


def code_cell(match: re.Match) -> dict:
    output = re.search(r"^```text\n(.*?)^```", match[0], re.MULTILINE | re.DOTALL)
    printed = (
        [{"output_type": "stream", "name": "stdout", "text": output[1].splitlines(keepends=True)}] if output else []
    )
    return cell("code", match[2] if match[1] == "python" else f"%%bash\n{match[2]}", printed)


def picture_cell(match: re.Match) -> dict:
    """Shows the file that an earlier cell has written."""
    data = base64.b64encode((HERE / match["name"]).read_bytes()).decode("ascii")
    shown = {"output_type": "display_data", "metadata": {}, "data": {"image/png": data, "text/plain": [match["alt"]]}}
    code = f'from IPython.display import Image, display\n\ndisplay(Image("{PICTURES[match["name"]]}"))'
    return cell("code", code, [shown])


def notebook(page: str) -> str:
    """A page as a notebook, format 4.5."""
    found = [(match, code_cell) for match in BLOCK.finditer(page)]
    found += [(match, picture_cell) for match in PICTURE.finditer(page) if match["name"] in PICTURES]
    cells, taken = [], 0
    for match, make in sorted(found, key=lambda pair: pair[0].start()):
        if text := page[taken : match.start()].strip():
            cells.append(cell("markdown", text))
        cells.append(make(match))
        taken = match.end()
    cells.append(cell("markdown", page[taken:]))
    for number, each in enumerate(cells):
        each["id"] = f"cell-{number}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    content = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def write_notebooks() -> None:
    for page, name in NOTEBOOKS.items():
        (HERE / name).write_text(notebook((HERE / page).read_text(encoding="utf-8")), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="train for seconds and write nothing")
    parser.add_argument("--notebooks", action="store_true", help="run nothing; write the notebooks from the pages")
    options = parser.parse_args()
    if options.notebooks:
        return write_notebooks()
    quick = options.quick
    code = blocks((HERE / PAGES[0]).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        outputs = run_all(code, quick)
        os.chdir(HERE)
        if quick:
            return
        for name, place in PICTURES.items():
            shutil.copyfile(Path(scratch, place), HERE / name)
    for name in PAGES:
        page = (HERE / name).read_text(encoding="utf-8")
        (HERE / name).write_text(with_outputs(page, outputs), encoding="utf-8")
    write_notebooks()


if __name__ == "__main__":
    main()
