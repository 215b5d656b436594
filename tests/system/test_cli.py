"""fastbert.system.cli: typed options, one line for a mistake, exit codes."""

import errno
import subprocess
import sys
from dataclasses import dataclass
from typing import Literal

import pytest

import fastbert
from fastbert.system.cli import Positional, run
from fastbert.system.errors import InputError


@dataclass(frozen=True)
class Options:
    """Do a thing."""

    model: Positional[str]
    """Directory of a run."""
    texts: Positional[tuple[str, ...]] = ()
    """Texts with [MASK]."""
    data: tuple[str, ...] = ("bundled:pt",)
    """Input paths."""
    arch: Literal["classic", "modern"] = "modern"
    """Architecture."""
    batch_tokens: int = 4096
    """Tokens in a batch."""
    minutes: float | None = None
    """Wall-clock budget, in minutes."""
    resume: bool = False
    """Go on where the
    run stopped."""


def call(argv, main=None):
    seen = []
    code = run(main or seen.append, Options, argv)
    return code, seen


def test_options_of_every_kind():
    code, (options,) = call(
        ["r", "a b", *"c --batch-tokens 12 --minutes 0.5 --resume --data x y --arch classic".split()]
    )
    assert code == 0
    assert options == Options("r", ("a b", "c"), ("x", "y"), "classic", 12, 0.5, True)


def test_defaults():
    assert call(["r"]) == (0, [Options("r")])


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], ["missing", "Directory of a run."]),
        (["r", "--batch-tokens"], ["--batch-tokens"]),
        (["r", "--batch-tokens", "many"], ["--batch-tokens", "many"]),
        (["r", "--batchtokens", "3"], ["--batchtokens", "perhaps you meant --batch-tokens"]),
        (["r", "--arch", "gpt"], ["gpt", "--arch", "classic", "modern"]),
        (["r", "--no-resume"], ["--no-resume"]),
    ],
)
def test_bad_option_is_one_line_and_exit_code_2(argv, words, capsys):
    code, seen = call(argv)
    out, err = capsys.readouterr()
    assert (code, seen, out) == (2, [], "")
    assert err.startswith("error: ") and err.count("\n") == 1 and "--help" in err
    for word in words:
        assert word in err


def test_help_states_defaults(capsys):
    assert call(["--help"])[0] == 0
    out = capsys.readouterr().out
    assert "Do a thing." in out and "Tokens in a batch. (default: 4096)" in out and "--batch-tokens" in out
    assert "Go on where the run stopped." in out  # on one line, whatever the lines of the source


def test_version(capsys):
    assert call(["--version"])[0] == 0
    assert capsys.readouterr().out == f"fastbert {fastbert.__version__}\n"


def raiser(error):
    def main(options):
        raise error

    return main


def test_input_error_is_one_line(capsys):
    assert run(raiser(InputError("x.txt: empty;\nput text in it")), Options, ["r"]) == 2
    assert capsys.readouterr().err == "error: x.txt: empty; put text in it\n"


def test_interrupt(capsys):
    assert run(raiser(KeyboardInterrupt()), Options, ["r"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_full_and_failing_disks_are_input_errors_and_other_os_errors_are_not(capsys):
    assert run(raiser(OSError(errno.ENOSPC, "No space left on device", "/x/y")), Options, ["r"]) == 2
    assert capsys.readouterr().err.startswith("error: /x/y: No space left on device")
    assert run(raiser(OSError(errno.EIO, "Input/output error")), Options, ["r"]) == 2
    assert "--resume" in capsys.readouterr().err
    with pytest.raises(OSError):
        run(raiser(OSError(errno.EBADF, "Bad file descriptor")), Options, ["r"])


def test_return_code_of_main_and_bugs_pass_through():
    assert run(lambda options: 3, Options, ["r"]) == 3
    with pytest.raises(ZeroDivisionError):
        run(raiser(ZeroDivisionError()), Options, ["r"])


def test_cli_does_not_import_torch():
    code = "import sys, fastbert.system.cli; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_command_without_tyro_says_so(tmp_path):
    """The one import that an image with torch lacks."""
    code = (
        "import sys; sys.modules['tyro'] = None; import runpy; runpy.run_module(sys.argv.pop(1), run_name='__main__')"
    )
    for module in ("fastbert.info", "fastbert.train", "fastbert.evaluate"):
        done = subprocess.run(
            [sys.executable, "-c", code, module, "text"], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 2 and "pip install tyro" in done.stderr and done.stderr.count("\n") == 1
