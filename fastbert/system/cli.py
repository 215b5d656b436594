"""The entry point of every command: options from a typed dataclass, one line for user errors, an exit code.

    @dataclass(frozen=True)
    class Options:
        \"\"\"What the command does (the head of --help).\"\"\"

        run: Positional[str]
        \"\"\"Directory of a trained run.\"\"\"
        batch_tokens: int = 4096
        \"\"\"Tokens in a batch.\"\"\"
        resume: bool = False
        \"\"\"Resume an interrupted run.\"\"\"

    def main(options: Options) -> None: ...

    if __name__ == "__main__":
        sys.exit(run(main, Options))

Exit codes: 0 success, 2 invalid input or option, 130 interrupted. Anything else is a bug and shows its traceback.
"""

import ast
import contextlib
import dataclasses
import errno
import functools
import inspect
import io
import itertools
import os
import re
import sys
import textwrap
import warnings
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

from fastbert.system.config_file import read_config, take_config
from fastbert.system.cores import set_up_threads
from fastbert.system.errors import InputError

try:
    from tyro.conf import Positional as Positional  # commands mark their arguments without a dash with it
    from tyro.conf import UseAppendAction as UseAppendAction
    from tyro.conf import arg
except ImportError:  # images that come with torch have all our other needs: parse() says what is missing
    arg = None  # type: ignore[assignment]

    class Positional:  # type: ignore[no-redef]
        def __class_getitem__(cls, item: Any) -> Any:
            return item

    UseAppendAction = Positional  # type: ignore[assignment,misc]

LAUNCHER = "python -m fastbert."  # before a command's name, as the user types it
Options = TypeVar("Options")

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_DISK_ERRORS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FAILING_DISK = {errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.ETIMEDOUT}


def unset(metavar: str) -> Any:
    """Mark an option whose default is computed and explained in its help, which then omits "(default: None)"."""
    return metavar if arg is None else arg(metavar=metavar, help_behavior_hint="")


@functools.cache
def _join_lines_of_help(options_type: type) -> None:
    """Pass the docstrings of options to tyro as running text; it would keep the line breaks of the source."""
    from typing_extensions import Doc  # a dependency of tyro, which reads this annotation

    for cls in options_type.__mro__:
        if "__dataclass_fields__" not in vars(cls):
            continue
        try:
            source = textwrap.dedent(inspect.getsource(cls))
        except OSError:  # bytecode without sources has no docstrings of options
            continue
        statements = ast.parse(source).body[0].body  # type: ignore[attr-defined]
        for option, doc in itertools.pairwise(statements):
            match option, doc:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    running = "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))
                    cls.__annotations__[name] = Annotated[cls.__annotations__[name], Doc(running)]


def in_sections(options_type: Any) -> Any:
    """The same options nested by ``help_sections`` (section -> its first option), which --help then shows apart."""
    if not (sections := getattr(options_type, "help_sections", None)):
        return options_type
    first = {option: section for section, option in sections.items()}
    nested: dict[str, list[Any]] = {}
    for option in dataclasses.fields(options_type):
        section = nested.setdefault(first.get(option.name) or list(nested)[-1], [])
        default = dataclasses.field(default=option.default, default_factory=option.default_factory)
        section.append((option.name, options_type.__annotations__[option.name], default))
    types = [(name, dataclasses.make_dataclass(name, options)) for name, options in nested.items()]
    sections_of = [(name, section, dataclasses.field(default_factory=section)) for name, section in types]
    whole = dataclasses.make_dataclass(options_type.__name__, sections_of)
    whole.__doc__ = options_type.__doc__
    return whole


def parse(options_type: type[Options], argv: Sequence[str], *, prog: str) -> Options:
    """Read ``argv`` into ``options_type``; ``--help`` prints and raises SystemExit(0).

    ``--config FILE`` gives the options that the command line does not.

    Raises:
        InputError: an invalid, missing or unknown option.
    """
    if arg is None:
        raise InputError("tyro, which reads command lines, is not installed. Try: pip install tyro")
    import tyro

    argv, config = take_config(argv)
    defaults: dict[str, Any] = {}

    markers = [tyro.conf.FlagCreatePairsOff]  # --resume, without its --no-resume
    if named := getattr(tyro.conf, "PositionalMetavarFromFieldName", None):
        markers.append(named)  # newer tyro only: RUN in the usage line instead of its type, STR
    if {"-h", "--help"} & set(argv):
        _join_lines_of_help(options_type)  # type: ignore[arg-type]
        options_type = in_sections(options_type)
        markers.append(tyro.conf.OmitArgPrefixes)
    elif config is not None:
        values = read_config(config, options_type)
        needed = [f for f in dataclasses.fields(options_type) if f.default is f.default_factory is dataclasses.MISSING]  # type: ignore[arg-type]
        defaults["default"] = options_type(**{f.name: tyro.MISSING for f in needed} | values)
    captured = io.StringIO()
    try:
        with contextlib.redirect_stderr(captured):
            return tyro.cli(options_type, prog=prog, args=argv, config=markers, **defaults)
    except SystemExit as stop:
        if not stop.code:
            if {"-h", "--help"} & set(argv):
                print("Every command also takes --config FILE, TOML with these options, and --version.")
            raise
        raise InputError(f"{_one_line(captured.getvalue(), prog)} (see `{prog} --help`)") from None


def run(
    main: Callable[[Any], int | None], options_type: type, argv: Sequence[str] | None = None, *, prog: str | None = None
) -> int:
    """Parse the options, call ``main(options)`` and return the exit code for ``sys.exit``.

    ``prog`` is the command as the user types it, if it is more than ``python -m`` and the module.
    """
    set_up_threads()
    argv = sys.argv[1:] if argv is None else list(argv)
    # the message, without our source line
    warnings.showwarning = lambda message, *_args, **_kwargs: _say(f"warning: {message}")
    if "--version" in argv:
        from fastbert import __version__

        print(f"fastbert {__version__}")
        return 0
    return exit_code(lambda: main(parse(options_type, argv, prog=prog or _program(main))))


def exit_code(work: Callable[[], int | None]) -> int:
    """The exit code of a command that does ``work``: what the user can mend becomes one line on standard error."""
    try:
        code = work()
        sys.stdout.flush()
        return code or 0
    except InputError as error:
        _say(f"error: {error}")
        return 2
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except BrokenPipeError:
        # the reader (`| head`) is gone; otherwise Python would report it again when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno in _DISK_ERRORS:
            remedy = "free some space, or use a path that you may read and write"
        elif error.errno in _FAILING_DISK:
            remedy = "repeat the command when the disk works again (training: --resume)"
        else:
            raise
        path = f"{error.filename}: " if error.filename else ""
        _say(f"error: {path}{error.strerror}. Try: {remedy}")
        return 2


def _program(main: Callable) -> str:
    """The command as the user types it, for --help: ``python -m fastbert.train``."""
    module = getattr(main, "__module__", None)
    if module in (None, "__main__"):
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        if spec is None:
            return os.path.basename(sys.argv[0])
        module = spec.name
    module = module.removesuffix(".__main__").removesuffix(".command")
    name = module.removeprefix("fastbert.")
    return f"python -m {module}" if name == module else LAUNCHER + name


def _say(message: str) -> None:
    print(" ".join(message.split("\n")), file=sys.stderr, flush=True)


def _one_line(box: str, prog: str) -> str:
    """Turn tyro's boxed error into one sentence: the first block of the box, and its suggestion.

    The box is drawn with box characters or, if stdout is not UTF-8, with dashes and spaces.
    """
    blocks: list[list[str]] = [[]]
    for row in _ANSI.sub("", box).strip().splitlines():
        text = row.strip("│╭╮╰╯ ")
        if not text.strip("─-"):
            blocks.append([])
        elif not row.startswith("╭"):  # the title repeats the text
            blocks[-1].append(text)
    blocks = [block for block in blocks if block]
    if len(blocks) > 1 and len(blocks[0]) == 1 and "╭" not in box:
        del blocks[0]
    message = " ".join(blocks[0]).replace(f"Missing from {prog}:", "missing:").rstrip(".") if blocks else "bad options"
    for block in blocks[1:]:
        if block[0].startswith("Perhaps you meant") and len(block) > 1:
            message += f"; perhaps you meant {block[1]}"
    return message[:1].lower() + message[1:]
