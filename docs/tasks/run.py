"""Run the code blocks of the task pages and write their output under them.

    python docs/tasks/run.py --model runs/001            # rewrites the pages
    python docs/tasks/run.py --model runs/001 --check    # only runs the blocks

The blocks run in a temporary directory, with links to the given model as runs/001 and to the repository's tests. A
block that is on several pages runs once.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```\n(?:\n```text\n.*?^```\n)?", re.MULTILINE | re.DOTALL)


def output_of(language: str, code: str, folder: Path) -> str:
    """Run a block and return what it prints; exit if it fails."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", "-ec", code] if language == "bash" else [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ | {"PATH": path})
    if done.returncode:
        sys.exit(f"{code}\nfailed:\n{done.stdout}{done.stderr}")
    lines = [line.rstrip()[:160] for line in done.stdout.strip("\n").split("\n")]
    kept = lines if len(lines) <= 20 else [*lines[:4], "…", *lines[-12:]]
    return "\n".join(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a run of python -m fastbert.train")
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("pages", nargs="*", help="default: all")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "runs").mkdir()
        (folder / "runs" / "001").symlink_to(Path(arguments.model).resolve())
        (folder / "tests").symlink_to(HERE.parents[1] / "tests")
        outputs: dict[tuple[str, str], str] = {}  # of the blocks so far
        for page in [HERE / p for p in arguments.pages] or sorted(HERE.glob("*.md")):
            print(page.name, flush=True)
            text = page.read_text(encoding="utf-8")

            def with_output(match: re.Match) -> str:
                block = match[1], match[2]
                if block not in outputs:
                    outputs[block] = output_of(*block, folder)
                return f"```{match[1]}\n{match[2]}```\n\n```text\n{outputs[block]}\n```\n"

            text = BLOCK.sub(with_output, text)
            if not arguments.check:
                page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
