"""``python -m fastbert.report RUN [RUN2 …]``: one self-contained page about one or more training runs."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from fastbert.system.cli import Positional, unset
from fastbert.system.errors import InputError


@dataclass(frozen=True)
class ReportOptions:
    """Write report.html: curves, probes, example predictions, tokens, attention, word map, machine and settings.

    Several runs are compared in the same charts; the sections about the model show the first.
    """

    runs: Positional[list[str]]
    """Directories of runs."""
    output: Annotated[str | None, unset("FILE")] = None
    """The page to write (default: report.html in the first run's directory)."""
    language: Literal["en", "pt"] = "en"
    """Language of titles and labels."""
    text: Annotated[str | None, unset("TEXT")] = None
    """Text whose tokens and attention are shown (default: an example of the run)."""


def main(options: ReportOptions) -> int:
    from fastbert.bert import load
    from fastbert.report.build import build
    from fastbert.report.runs import read_run
    from fastbert.system import html_page

    records = [read_run(path) for path in options.runs]
    if not records:
        raise InputError("no run given. Try: the directory of at least one")
    if options.text is not None and not options.text.strip():
        raise InputError("--text: is empty. Try: a sentence, or no --text")
    output = Path(options.output) if options.output else records[0].path / "report.html"
    if output.is_dir():
        raise InputError(f"--output {output}: is a directory. Try: the name of a file in it")
    bert, problem = None, ""
    try:
        bert = load(records[0].path)
    except InputError as error:
        problem = str(error)
    html = build(records, bert, language=options.language, text=options.text, problem=problem)
    print(f"{html_page.write(output, html)}: {len(html.encode()) / 1e3:,.0f} kB; open it in a browser")
    if problem:
        print(f"note: the sections about the model are missing: {problem}", file=sys.stderr)
    return 0
