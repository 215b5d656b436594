"""What the benchmarks share: skips, rates in pytest-benchmark's tables, turns, and contestants in other processes.

Test files find it through conftest.py; a program in a folder below puts this folder on sys.path. Nothing but the
standard library is imported here: a contestant's process has what the contestant needs.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any, TypeVar

Name, Result = TypeVar("Name"), TypeVar("Result")


def need_core() -> None:
    """Skip where the C++ core is not built."""
    import pytest

    from fastbert.system import native

    built, why = native.status()
    if not built:
        pytest.skip(f"no C++ core ({why}): install a C++17 compiler and run `pip install -e .` again")


def need_peer(module: str, package: str) -> Any:
    """The module, or a skip that says what to install."""
    import pytest

    return pytest.importorskip(module, reason=f"{module} is not installed: pip install {package}")


def note_rate(benchmark, name: str, amount: float) -> None:
    """``amount`` a second, by the median; nothing where only the checks run (--benchmark-disable)."""
    if benchmark.stats is not None:
        benchmark.extra_info[name] = amount / benchmark.stats.stats.median


def seconds(run: Callable[[], Any], clock: Callable[[], float] = time.process_time) -> float:
    began = clock()
    run()
    return clock() - began


def take_turns(names: Iterable[Name], rounds: int, measure: Callable[[Name], Result]) -> dict[Name, list[Result]]:
    """One measurement of each in turn, so that whatever else the machine does meets all of them alike."""
    results: dict[Name, list[Result]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, values in results.items():
            values.append(measure(name))
    return results


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """median [least, most]"""
    return f"{median(values):{form}} [{min(values):{form}}, {max(values):{form}}]"


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Of each round's own two."""
    return [a / b for a, b in zip(above, below, strict=True)]


class Worker:
    """A process that answers every line it reads with a line of JSON (:func:`answer`); what else it prints goes by."""

    def __init__(self, name: str, command: Iterable[Any], environment: dict[str, Any] | None = None, **pipes: Any):
        self.name, self.log = name, pipes.get("stderr")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE} | pipes
        own = {key: str(value) for key, value in (environment or {}).items()}
        self.process = subprocess.Popen(list(map(str, command)), env=os.environ | own, text=True, **pipes)

    def send(self, what: Any = "") -> None:
        print(what, file=self.process.stdin, flush=True)

    def read(self) -> dict:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        message = f"{self.name} ended with status {self.process.wait()}"
        if hasattr(self.log, "read"):
            self.log.seek(0)
            message += f": {self.log.read()[-2000:]}"
        raise SystemExit(message)

    def ask(self, what: Any = "") -> dict:
        self.send(what)
        return self.read()

    def end(self) -> None:
        """The end of its input is the end of its work."""
        self.process.communicate()


def answer(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)
