"""The rating sheet: every system's text for every input, anonymous and in random order.

Three files: ``sheet.html`` (for a browser, works offline), ``sheet.csv`` (for a spreadsheet) and ``key.json`` (the
system of each text, not for the raters).
"""

import csv
import hashlib
import io
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastbert.evaluation.human_wording import CRITERIA_WORDS, WORDS
from fastbert.system import html_page
from fastbert.system.errors import InputError

CRITERIA = ("relevance", "coherence", "fluency", "grammar")
KEY_FORMAT = "fastbert rating key 1"


@dataclass(frozen=True)
class Item:
    """One text to rate."""

    id: str  # does not reveal the system
    system: str
    input: int  # number of the input, from 0
    source: str | None
    text: str


@dataclass(frozen=True)
class Sheet:
    """Items in the order of the sheet, and how they are rated."""

    id: str
    title: str
    language: html_page.PageLanguage
    criteria: tuple[str, ...]
    points: int  # ratings are 1 … points
    seed: int
    items: tuple[Item, ...]

    def write(self, directory: str | Path) -> Path:
        """Write the three files into a directory that holds no sheet yet; returns ``sheet.html``'s path.

        Raises:
            InputError: there is already a sheet, or it cannot be written.
        """
        directory = Path(directory)
        for name in ("key.json", "sheet.html", "sheet.csv"):
            if (directory / name).exists():
                # answers may already refer to it
                raise InputError(f"{directory / name}: exists. Try: another --output, or delete that sheet first")
        html_page.write(directory / "key.json", json.dumps(self.key(), ensure_ascii=False, indent=1) + "\n")
        html_page.write(directory / "sheet.csv", self.csv())
        return html_page.write(directory / "sheet.html", self.html())

    def key(self) -> dict:
        """The key, for :func:`fastbert.evaluation.human.read_key`."""
        return {
            "format": KEY_FORMAT, "sheet": self.id, "title": self.title, "language": self.language,
            "criteria": list(self.criteria), "points": self.points, "seed": self.seed,
            "items": {i.id: {"system": i.system, "input": i.input, "text": i.text} for i in self.items},
        }  # fmt: skip

    def csv(self) -> str:
        """One row per item with empty columns. A byte order mark tells spreadsheets that it is UTF-8."""
        out = io.StringIO()
        rows = csv.writer(out)
        rows.writerow(["sheet", "item", "source", "text", *self.criteria, "comment"])
        for item in self.items:
            texts = [_not_a_formula(item.source or ""), _not_a_formula(item.text)]
            rows.writerow([self.id, item.id, *texts, *("" for _ in self.criteria), ""])
        return "\ufeff" + out.getvalue()

    def html(self) -> str:
        """The page for a browser."""
        words = WORDS[self.language]
        data = {
            "sheet": self.id, "language": self.language, "points": self.points, "words": words,
            "criteria": [
                {"name": name, "label": label, "question": question}
                for name in self.criteria
                for label, question in [CRITERIA_WORDS[self.language].get(name, (name, ""))]
            ],
            "items": [{"id": i.id, "source": i.source, "text": i.text} for i in self.items],
        }  # fmt: skip
        body = html_page.asset("fastbert.evaluation", "human_sheet.html")
        for name, text in {"title": self.title, **words}.items():
            body = body.replace("{{" + name + "}}", html_page.escape(text))
        return html_page.page(
            self.title,
            body + html_page.data_block("data", data),
            language=self.language,
            style=html_page.asset("fastbert.evaluation", "human_sheet.css"),
            script=html_page.asset("fastbert.evaluation", "human_sheet.js"),
        )


def make_sheet(
    systems: Mapping[str, Sequence[str]],
    sources: Sequence[str] | None = None,
    *,
    criteria: Sequence[str] = CRITERIA,
    points: int = 5,
    language: html_page.PageLanguage = "en",
    title: str | None = None,
    sample: int | None = None,
    seed: int = 0,
) -> Sheet:
    """Make a sheet from the texts of several systems.

    Args:
        systems: name → texts, one per input, in the same order.
        sources: the inputs, shown above the texts.
        criteria: what to rate: names in :data:`CRITERIA`, or any other word.
        points: ratings are 1 … points (2 to 9, a key each).
        language: of the page.
        title: of the page.
        sample: rate this many inputs, chosen at random; None: all.
        seed: of the sample and of the order.

    Raises:
        InputError: no system or text, different numbers of texts, an empty text, repeated criteria.
    """
    count = _check(systems, sources, criteria, points, sample)
    generator = random.Random(seed)
    chosen = sorted(generator.sample(range(count), sample)) if sample is not None else range(count)
    fingerprint = hashlib.sha256(
        json.dumps([{k: list(v) for k, v in systems.items()}, seed, list(criteria), points, list(chosen)]).encode()
    ).hexdigest()
    pairs = [(index, system) for index in chosen for system in systems]
    generator.shuffle(pairs)
    items = tuple(
        # a hash of the sheet and the position: equal commands make equal sheets
        Item(
            hashlib.sha256(f"{fingerprint}/{position}".encode()).hexdigest()[:8],
            system,
            index,
            sources[index] if sources is not None else None,
            systems[system][index],
        )
        for position, (index, system) in enumerate(pairs)
    )
    title = title or WORDS[language]["default_title"]
    return Sheet(fingerprint[:12], title, language, tuple(criteria), points, seed, items)


def _check(systems, sources, criteria, points, sample) -> int:
    """Check the arguments; returns the number of inputs."""
    if not systems:
        raise InputError("no system. Try: the texts of at least one")
    counts = {name: len(texts) for name, texts in systems.items()} | (
        {"the inputs": len(sources)} if sources is not None else {}
    )
    first, count = next(iter(counts.items()))
    for name, other in counts.items():
        if other != count:
            raise InputError(f"{name} has {other} texts and {first} {count}: expected the same number of each")
    if not count:
        raise InputError(f"{first} has no text. Try: at least one")
    for name, texts in systems.items():
        if empty := next((n for n, text in enumerate(texts, start=1) if not text.strip()), None):
            raise InputError(f"text {empty} of {name} is empty and cannot be rated. Try: leave that input out")
    if not criteria or len(set(criteria)) != len(criteria):
        raise InputError(f"criteria {' '.join(criteria)!r}: expected one or more, each once")
    for name in criteria:
        if not name.isidentifier() or name in ("sheet", "item", "source", "text", "comment", "rater"):
            raise InputError(f"criterion {name!r}: expected a single word that is not a column of the sheet")
    if not 2 <= points <= 9:
        raise InputError(f"points={points}: expected 2 to 9")
    if sample is not None and not 1 <= sample <= count:
        raise InputError(f"sample={sample}: expected 1 to {count}, the number of inputs")
    return count


def _not_a_formula(text: str) -> str:
    """The text, with an apostrophe if a spreadsheet would read it as a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
