"""Run the guide: every code block in order, writing its output under it and its plots next to the page.

    python docs/guide/run.py            # about four minutes; rewrites README.md and LEIAME.md
    python docs/guide/run.py --quick    # trains for seconds, writes nothing; the test does this

The code is the same in both languages (``tests/test_guide.py``), so it runs once. Python blocks share one interpreter;
bash blocks run in its directory.
"""

import argparse
import contextlib
import io
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
PICTURES = ("attention.png",)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="train for seconds and write nothing")
    quick = parser.parse_args().quick
    code = blocks((HERE / PAGES[0]).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        outputs = run_all(code, quick)
        os.chdir(HERE)
        if quick:
            return
        for name in PICTURES:
            shutil.copyfile(Path(scratch, name), HERE / name)
        shutil.copyfile(Path(scratch, "run/curves.png"), HERE / "curves.png")
    for name in PAGES:
        page = (HERE / name).read_text(encoding="utf-8")
        (HERE / name).write_text(with_outputs(page, outputs), encoding="utf-8")


if __name__ == "__main__":
    main()
