"""--config FILE for every command, the file that runs write back, and the `fastbert` command."""

import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest

import fastbert
from fastbert.system.cli import Positional, parse, unset
from fastbert.system.commands import COMMANDS, main
from fastbert.system.config_file import NAME, read_config, write_options
from fastbert.system.errors import InputError
from fastbert.training.options import TrainOptions
from support import command


@dataclass(frozen=True)
class Options:
    """A command."""

    model: Positional[str]
    """Model."""
    task: Literal["a", "b"]
    """Task."""
    texts: Positional[list[str]] = field(default_factory=list)
    """Texts."""
    batch_tokens: Annotated[int | None, unset("N")] = None
    """Number."""
    rate: float = 0.5
    """Number."""
    resume: bool = False
    """Flag."""


def parsed(tmp_path, text, *argv):
    path = tmp_path / "o.toml"
    path.write_text(text, encoding="utf-8")
    return parse(Options, [*argv, "--config", str(path)], prog="x")


def test_the_file_gives_what_the_command_line_does_not(tmp_path):
    text = 'model = "m"\ntask = "b"\nbatch-tokens = 7\nrate = 1\nresume = true\ntexts = ["-x", "y"]'
    assert parsed(tmp_path, text) == Options("m", "b", ["-x", "y"], 7, 1.0, True)
    assert parsed(tmp_path, text, "n", "--task", "a", "--rate", "0.25").model == "n"
    assert parsed(tmp_path, text, "--task", "a", "--batch-tokens", "9") == Options("m", "a", ["-x", "y"], 9, 1.0, True)
    assert parsed(tmp_path, "rate = 2.0", "m", "--task", "a") == Options("m", "a", rate=2.0)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("batch_token = 3", "batch_tokens"),
        ('batch_tokens = "3"', "batch_tokens"),
        ("batch_tokens = 3.5", "batch_tokens"),
        ("batch_tokens = true", "batch_tokens"),
        ("task = 'c'", "task"),
        ("texts = 'a'", "texts"),
        ("resume = 1", "resume"),
        ("rate = 1\nrate = 2", "TOML"),
        ("batch_tokens = 1\nbatch-tokens = 2", "twice"),
        ("= 3", "TOML"),
        ("task = 'a'", "MODEL"),  # still missing
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_in_one_line(tmp_path, text, named):
    with pytest.raises(InputError) as refused:
        parsed(tmp_path, text)
    assert named.lower() in str(refused.value).lower() and "\n" not in str(refused.value)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "latin1.toml").write_bytes(b'model = "\xe9"')
    for argv in (
        ["--config", "nowhere"],
        ["--config"],
        ["--config=a", "--config=b"],
        [f"--config={tmp_path}/latin1.toml"],
    ):
        with pytest.raises(InputError, match="--config"):
            parse(Options, argv, prog="x")


def test_what_a_run_writes_back_gives_the_same_options(tmp_path):
    options = TrainOptions(data=['a "quoted" \\ name.txt', "\x7f\n"], minutes=0.1, lowercase=True, preset="tiny")
    write_options(tmp_path, asdict(options), "train")
    assert TrainOptions(**read_config(tmp_path / NAME, TrainOptions)) == options


def test_train_reads_and_writes_it(tmp_path):
    (tmp_path / "a.txt").write_text("o gato dorme na cama azul\n\n" * 60)
    settings = {
        "data": "['a.txt']",
        "preset": "'tiny'",
        "steps": 2,
        "batch_tokens": 256,
        "max_length": 32,
        "threads": 1,
    }
    (tmp_path / "o.toml").write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
    command("fastbert.train", "--config", "o.toml", "--output", "r", "--seed", 3, cwd=tmp_path)
    written = read_config(tmp_path / "r" / NAME, TrainOptions)
    assert written["seed"] == 3 and written["steps"] == 2 and written["data"] == ["a.txt"] and "output" not in written


# ---- fastbert COMMAND ----
def test_every_command_is_listed_and_runs(capsys):
    from test_floors import COMMANDS as MODULES

    packages = {f"fastbert.{path.parent.name}" for path in Path(fastbert.__file__).parent.glob("*/__main__.py")}
    assert {f"fastbert.{name}" for name in COMMANDS} == packages | MODULES - {"fastbert.smoke_tests"}
    assert main([]) == 0 and "  serve " in capsys.readouterr().out
    assert main(["predict", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "usage: fastbert predict" in shown and "--config FILE" in shown
    assert main(["predict", "nowhere", "x"]) == 2 and "nowhere" in capsys.readouterr().err
    assert main(["trian"]) == 2 and "train" in capsys.readouterr().err
    assert main(["--version"]) == 0


def test_completion_is_valid_shell(tmp_path, capsys):
    assert main(["--completion", "fish"]) == 2
    capsys.readouterr()
    assert main(["--completion", "bash"]) == 0
    script = capsys.readouterr().out + '\nCOMP_WORDS=(fastbert tr); COMP_CWORD=1; _fastbert; echo "${COMPREPLY[@]}"\n'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=20)
    assert done.stdout.strip() == "train" and done.returncode == 0, done.stderr
