"""The page to watch runs: it follows their files and sends what is new to the browser.

A run is read from its files alone, what was added since the last look; nothing is read while nobody watches.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from fastbert.report.build import live_sections
from fastbert.report.numbers import Numbers
from fastbert.report.runs import RunRecord
from fastbert.serve.frame import HEADERS, language_of, page
from fastbert.serve.wording import WORDS
from fastbert.system.html_page import escape

LOOK_S = 0.5  # between looks at the files
DRAW_S = 2.0  # between drawings of a run that has only trained on; an evaluation is shown at the next look
SILENCE_S = 15.0  # after which a comment keeps the connection open
MOST_RUNS = 8


class Follower:
    """A run's records, kept up to date."""

    def __init__(self, name: str, path: Path):
        self.record = RunRecord(path, name, {})
        self._position = 0
        self._rest = b""
        self._described: tuple[int, int] | None = None
        self._samples: list[Any] = []
        self._samples_bytes = 0

    def look(self) -> bool:
        """Read what was added; whether there was more than training steps."""
        news = self._read_description() | self._read_samples()
        if not self.record.result and self._samples:
            self.record.description["examples"] = self._samples
        path = self.record.path / "metrics.jsonl"
        try:
            with path.open("rb") as file:
                if file.seek(0, 2) < self._position:  # a resumed run has cut it
                    self.record.train.clear()
                    self.record.heldout.clear()
                    self._position, self._rest = 0, b""
                file.seek(self._position)
                added = file.read()
        except OSError:
            return news
        self._position += len(added)
        *lines, self._rest = (self._rest + added).split(b"\n")
        return any([self._take(line) for line in lines]) or news

    def _take(self, line: bytes) -> bool:
        try:
            return self.record.add(line) != "train"
        except (ValueError, KeyError, TypeError):
            return False

    def _read_description(self) -> bool:
        path = self.record.path / "run.json"
        try:
            stat = path.stat()
            if (key := (stat.st_mtime_ns, stat.st_size)) == self._described:
                return False
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        self._described = key
        self.record.description = found if isinstance(found, dict) else {}
        return True

    def _read_samples(self) -> bool:
        """Masks as filled at the last evaluation, until the run has its final ones."""
        path = self.record.path / "samples.jsonl"
        try:
            if path.stat().st_size == self._samples_bytes:
                return False
            content = path.read_bytes()
            self._samples = json.loads(content.rstrip(b"\n").rpartition(b"\n")[2])["examples"]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        self._samples_bytes = len(content)
        return True

    @property
    def size(self) -> int:
        return self._position


def state_of(record: RunRecord, language: str) -> str:
    """Where a run is, in a line."""
    words, numbers = WORDS[language], Numbers(language)
    if record.result:
        return f"{record.name}: {words['finished']}"
    if not record.train:
        return f"{record.name}: {words['waiting']}"
    step = numbers.whole(record.train[-1].get("step"))
    left = left_s(record)
    text = words["live_steps"] if left is None else words["live"]
    return f"{record.name}: {text.format(step=step, left=numbers.clock(left))}"


def left_s(record: RunRecord) -> float | None:
    """About how many seconds of training are left; None if the run does not say."""
    last = record.train[-1]
    spent, step = last.get("training_s"), last.get("step")
    options = record.options
    if not isinstance(spent, (int, float)) or not step:
        return None
    if isinstance(steps := options.get("steps"), int):
        return max(0.0, (steps - step) * spent / step)
    minutes = options.get("minutes") or 5.0
    return max(0.0, minutes * 60 - spent) if isinstance(minutes, (int, float)) else None


def chosen(request: Request) -> list[str]:
    """The runs of the address that are served; by default the newest."""
    names = request.app.state.service.models.runs
    asked = [name for name in dict.fromkeys(request.query_params.getlist("run")) if name in names]
    return asked[:MOST_RUNS] or names[:1]


async def watch(request: Request) -> Response:
    """The page: a choice of runs, and their sections."""
    language = language_of(request)
    words, names, shown = WORDS[language], request.app.state.service.models.runs, chosen(request)
    if not names:
        return page(request, "watch", words["no_runs"], "")
    boxes = "".join(
        f'<li><label><input type="checkbox" name="run" value="{escape(n)}"{" checked" if n in shown else ""}> '
        f"{escape(n)}</label></li>"
        for n in names
    )
    choice = (
        f'<form method="get"><input type="hidden" name="lang" value="{language}"><ul class="runs">{boxes}</ul>'
        f"<button>{escape(words['follow'])}</button></form>"
    )
    query = escape(urlencode([("run", name) for name in shown]))
    content = (
        f'{choice if len(names) > 1 else ""}<p id="state" class="soft" role="status"></p>'
        f'<div data-events="/watch/events?lang={language}&amp;{query}"></div>'
    )
    return page(request, "watch", words["watch_lead"], content)


async def events(request: Request) -> Response:
    """Server-sent events: "state" lines and "sections" of HTML."""
    models = request.app.state.service.models
    followers = [Follower(name, models.by_name[name].path) for name in chosen(request)]
    language, stopping = language_of(request), request.app.state.stopping

    def draw() -> str:
        return live_sections([follower.record for follower in followers], language)

    async def stream() -> AsyncIterator[str]:
        drawn_s = said_s = 0.0
        sizes: list[int] = []
        while not stopping.is_set():
            news = [await asyncio.to_thread(follower.look) for follower in followers]
            now, found = time.monotonic(), [follower.size for follower in followers]
            if not drawn_s or any(news) or (found != sizes and now - drawn_s >= DRAW_S):
                yield _event("sections", await asyncio.to_thread(draw))
                yield _event("state", " — ".join(state_of(f.record, language) for f in followers))
                drawn_s = said_s = now
                sizes = found
            elif now - said_s >= SILENCE_S:
                yield ": still here\n\n"
                said_s = now
            await asyncio.sleep(LOOK_S)

    return StreamingResponse(stream(), media_type="text/event-stream", headers=HEADERS)


def _event(name: str, data: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


PAGES: dict[str, Callable[[Request], Any]] = {"/watch": watch, "/watch/events": events}
