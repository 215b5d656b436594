"""Every command and line of Python in the READMEs runs, on small files and with trainings of a few steps.

Both pages have the same commands, which is tested too, so of the Portuguese ones only those with other options run.
"""

import gzip
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from support import command

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "README.pt-BR.md")
QUICK = "--steps 3 --preset tiny --max-length 64 --batch-tokens 256 --evaluations 1 --threads 1 --vocab-size 300"
# not for a test to run: installing, the tests themselves, an example for four devices, a server
NOT_HERE = ("pip install", "torchrun", "pytest", "python -m fastbert.serve")
LINES = [f"Ela abriu a porta {i} e saiu. O gato dorme na casa azul." for i in range(40)]


def code(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    """The lines of the bash blocks without their comments, and the commands in tables, in the order of the page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"^```bash\n(.*?)^```|^\|[^\n`]*`(python -m [^`\n]*)`", text, re.MULTILINE | re.DOTALL)
    lines = [line for block, cell in found for line in (block or cell).splitlines() if line.strip()]
    return [re.sub(r"\s+#.*$", "", line) for line in lines]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The files that the READMEs mention, in both languages."""
    root = tmp_path_factory.mktemp("readme")
    documents = "\n".join(line + ("\n" if i % 4 == 3 else "") for i, line in enumerate(LINES)) + "\n"
    for name in ("my_text", "meu_texto", "texts"):
        (root / f"{name}.txt").write_text(documents, encoding="utf-8")
    for name in ("books", "livros"):
        (root / name).mkdir()
        (root / name / "one.txt.gz").write_bytes(gzip.compress(documents.encode()))
    for name, field in (("notes.jsonl", "body"), ("notas.jsonl", "corpo")):
        (root / name).write_text("".join(json.dumps({field: line}) + "\n" for line in LINES))
    for name in ("sentences.txt", "frases.txt"):
        (root / name).write_text("Ela abriu a [MASK] e saiu.\nO [MASK] dorme.\n", encoding="utf-8")
    for name in ("out", "ref1", "a"):
        (root / f"{name}.txt").write_text("Ela abriu a porta.\nO gato dorme.\n", encoding="utf-8")
    rows = [{"text_a": f"Livro {i}.", "text_b": f"É {w}.", "label": w} for i in range(8) for w in ("bom", "ruim")]
    for name in ("pairs", "pares"):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def run(line: str, folder: Path) -> None:
    """Run one line as a person would, with a training that takes seconds; in a shell only where it needs one."""
    if "fastbert.train" in line:
        line = re.sub(r" --minutes \d+", "", line) + " " + QUICK
        if "--output" not in line:
            line += " --output " + ("runs/001" if not (folder / "runs/001").exists() else f"runs/{abs(hash(line))}")
    if "fastbert.finetune" in line:
        line += " --epochs 1 --threads 1"
    if "|" in line:
        line = line.replace("python -m", f"{shlex.quote(sys.executable)} -m", 1)
        done = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, timeout=600)
    else:
        line, _, file = line.partition(" < ")
        python, option, module, *arguments = shlex.split(line)
        assert (python, option) == ("python", "-m"), line
        given = (folder / file).read_text(encoding="utf-8") if file else None
        done = command(module, *arguments, cwd=folder, input=given)
    assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def options_of(line: str) -> list[str]:
    return re.findall(r"fastbert\.\w+|--[\w-]+", line)


@pytest.fixture(scope="module")
def ran(folder) -> list[str]:
    """The lines of both pages that were run, all without an error."""
    english, portuguese = ([c for c in commands(page) if not c.startswith(NOT_HERE)] for page in PAGES)
    other = [theirs for ours, theirs in zip(english, portuguese, strict=True) if options_of(ours) != options_of(theirs)]
    for line in (*english, *other):
        run(line, folder)
    return [*english, *other]


def test_every_command_runs(ran):
    assert len(ran) >= 14, ran


def test_both_pages_hold_the_same_commands_and_code():
    shapes = [[options_of(line) for line in commands(page)] for page in PAGES]
    extra = ["--language"]  # the report in Portuguese
    assert shapes[0] == [[w for w in line if w not in extra or line[0] == "fastbert.evaluate"] for line in shapes[1]]
    # comments and the texts given to the model are in the page's language
    plain = [[re.sub(r'"[^"]*"|\s*#.*', "", block) for block in code(page, "python")] for page in PAGES]
    assert plain[0] == plain[1]


@pytest.mark.parametrize("page", PAGES)
def test_python_runs(page, ran, folder, monkeypatch):
    """After the commands: what is loaded is what they trained."""
    monkeypatch.chdir(folder)
    exec(compile("\n".join(code(page, "python")), page, "exec"), {"__name__": "readme"})


def test_links_lead_somewhere():
    for page in (*PAGES, *(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").rglob("*.md"))):
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (ROOT / page).read_text(encoding="utf-8")):
            if "://" not in target:
                assert (ROOT / page).parent.joinpath(target).exists(), f"{page}: {target}"


def test_the_functions_that_the_architecture_page_names_are_there():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [^|]+ \| \[[^\]]+\]\(([^)]+)\) \| `([\w.]+)` \|$", text, re.MULTILINE)
    assert len(rows) == 5, rows
    for file, name in rows:
        source = (ROOT / "docs" / file).read_text(encoding="utf-8")
        assert re.search(rf"^ *def {name.rpartition('.')[2]}\(", source, re.MULTILINE), f"{file}: {name}"
