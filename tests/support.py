"""What several test files share: a text with something to learn, small trainings, commands, tiny models.

Python and torch take seconds to start, so :func:`command` runs a command line in this process. :func:`process` is for
tests of what only a process has: signals, exits, imports, torchrun.
"""

import contextlib
import io
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from fastbert.bert import Bert
from fastbert.config import BertConfig
from fastbert.model import BertForPreTraining
from fastbert.system import native
from fastbert.text import Tokenizer
from fastbert.text.tokenizer_files import TokenizerOptions

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ("o", "gato", "preto", "dorme", "na", "cama", "azul", "e", "a", "menina", "feliz", "come", "pão", "do", "rei")

# options of a training that takes a second
SMALL = ("--preset", "tiny", "--batch-tokens", 256, "--max-length", 32, "--threads", 1, "--precision", "fp32")


def write_corpus(path: Path, documents: int = 40) -> Path:
    """Documents of six lines with something to learn: each line keeps the order of the words from some start."""
    lines = []
    for d in range(documents):
        lines += [" ".join((WORDS * 3)[(7 * d + 5 * s) % len(WORDS) :][:14]) + "." for s in range(6)] + [""]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def process(
    module: str, *arguments, cwd: Path, ranks: int = 0, timeout: float = 600, input: str | None = None,
    code: int | None = 0, **environment,
) -> subprocess.CompletedProcess:  # fmt: skip
    """``python -m MODULE``, by torchrun where there are ``ranks``; it must exit with ``code`` (None: any)."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", ranks] if ranks else []
    done = subprocess.run(
        [sys.executable, *map(str, [*launcher, "-m", module, *arguments])], cwd=cwd, input=input, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment, capture_output=True, timeout=timeout,
    )  # fmt: skip
    return _exited(done, code)


def _exited(done: subprocess.CompletedProcess, code: int | None) -> subprocess.CompletedProcess:
    assert code in (None, done.returncode), f"exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done


def command(
    module: str, *arguments, cwd: Path, input: str | None = None, code: int | None = 0, **environment
) -> subprocess.CompletedProcess:
    """What ``python -m MODULE`` prints, run in this process by the same lines; it must exit with ``code``."""
    argv = [module, *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    with (
        _restored(argv, cwd, environment), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err),
        _standard_input((input or "").encode()),
    ):  # fmt: skip
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            exited = 0
        except SystemExit as stop:
            exited = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    if exited == 128 + signal.SIGINT:  # Ctrl-C means the tests
        raise KeyboardInterrupt
    return _exited(subprocess.CompletedProcess(argv, exited, out.getvalue(), err.getvalue()), code)


@contextlib.contextmanager
def _standard_input(content: bytes) -> Iterator[None]:
    """Standard input, for sys.stdin and for its descriptor."""
    before, stdin = os.dup(0), sys.stdin
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        os.dup2(file.fileno(), 0)
        sys.stdin = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8")
        try:
            yield
        finally:
            sys.stdin = stdin
            os.dup2(before, 0)
            os.close(before)


@contextlib.contextmanager
def _restored(argv: list[str], cwd: Path, environment: dict[str, str]) -> Iterator[None]:
    """Arguments, directory and environment of a process of its own; afterwards those of the tests again."""
    before = sys.argv, os.getcwd(), dict(os.environ), torch.get_num_threads()
    sys.argv = argv
    os.chdir(cwd)
    os.environ.update(environment)
    try:
        with warnings.catch_warnings():  # also brings back showwarning, which a command line sets
            warnings.filterwarnings("ignore", "'fastbert.* found in sys.modules", RuntimeWarning)
            yield
    finally:
        sys.argv = before[0]
        os.chdir(before[1])
        os.environ.clear()
        os.environ.update(before[2])
        torch.set_num_threads(before[3])


def json_lines(*records) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def change_json(path: Path, *without: str, **fields) -> None:
    """Rewrite a JSON object, ``without`` some of its fields and with others set."""
    kept = {name: value for name, value in json.loads(path.read_text(encoding="utf-8")).items() if name not in without}
    path.write_text(json.dumps(kept | fields), encoding="utf-8")


def at_step(monkeypatch, owner: Any, name: str, step: int, act: Callable) -> None:
    """Let ``act(loss)`` decide the loss of one training step: what the ``step``-th call of ``owner.name`` returns."""
    original, calls = getattr(owner, name), []

    def loss(*arguments):
        calls.append(1)
        value = original(*arguments)
        return act(value) if len(calls) == step else value

    monkeypatch.setattr(owner, name, loss)


def ctrl_c(loss: torch.Tensor) -> torch.Tensor:
    """For :func:`at_step`: the signal arrives, the step goes on."""
    os.kill(os.getpid(), signal.SIGINT)
    return loss


def need_core() -> ModuleType:
    """The C++ core, or a skipped test."""
    built, why = native.status()
    if not built:
        pytest.skip(f"no C++ core: {why}")
    module = native.core("cpp")
    assert module is not None
    return module


def train(*arguments, cwd: Path, **environment) -> subprocess.CompletedProcess:
    """``python -m fastbert.train`` in this process."""
    return command("fastbert.train", *arguments, cwd=cwd, **environment)


def records(run: Path, kind: str | None = None) -> list[dict]:
    """The lines of a run's ``metrics.jsonl``, all or of one kind."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if kind in (None, row["kind"])]


def assert_same_curve(one: Path, other: Path, tolerance: float = 1e-5) -> None:
    """Every loss of two runs, relative to its size."""
    a, b = ({(r["kind"], r["step"]): r["loss"] for r in records(run) if "loss" in r} for run in (one, other))
    assert a.keys() == b.keys() and len(a) > 5
    worst = max(abs(a[key] - b[key]) / a[key] for key in a)
    print(f"{other.name}: largest relative difference {worst:.1e}")
    assert worst <= tolerance


def make_model(arch: str = "classic", *, seed: int = 0, noise: float = 0.1, **changes) -> BertForPreTraining:
    """A tiny model whose weights are noisy enough that no two answers are equal."""
    torch.manual_seed(seed)
    model = BertForPreTraining(BertConfig.preset("tiny", arch, **changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * noise)
    return model


def make_bert(
    vocab: Sequence[str], arch: str = "classic", settings: Any = None, *, precision: Any = "auto",
    tokenizer_options: TokenizerOptions | None = None, **model,
) -> Bert:  # fmt: skip
    """A :func:`make_model` with a vocabulary; ``settings`` are its EmbeddingSettings."""
    tokenizer = Tokenizer(vocab, tokenizer_options) if tokenizer_options else Tokenizer(vocab)
    return Bert(make_model(arch, vocab_size=len(vocab), **model), tokenizer, settings, precision)
