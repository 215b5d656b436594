"""``fastbert train …``: every command of the package by its name, the same as ``python -m fastbert.train …``."""

import difflib
import runpy
import sys

from fastbert.system import cli

COMMANDS = {
    "train": "pretrain a BERT on your own text",
    "inspect": "look at a corpus before training",
    "predict": "fill [MASK]s, or predict with a fine-tuned model",
    "generate": "generate text by filling masks",
    "finetune": "fine-tune for classes, numbers, tags or answers",
    "contrastive": "fine-tune to embed similar texts closely",
    "embed": "a vector for every line or record of files",
    "evaluate": "metrics of texts, and human rating",
    "serve": "models over HTTP, a page to play, live runs",
    "report": "one page about runs",
    "export": "write a model for other programs",
    "tokenize": "vocabulary and token shards of a large text",
    "info": "this machine, and which implementation runs each op",
    "tune": "measure kernels on this GPU",
    "roofline": "the limits of this machine",
}


def main(argv: list[str] | None = None) -> int:
    """Run the command named by the first argument with the rest; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    name = argv[0] if argv else "--help"
    if name in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        print("usage: fastbert COMMAND …  (COMMAND --help lists its options, --config FILE reads them from TOML)\n")
        print("\n".join(f"  {command:<{width}}  {about}" for command, about in COMMANDS.items()))
        print('\nshell completion:  eval "$(fastbert --completion bash)"')
        return 0
    if name == "--version":
        from fastbert import __version__

        print(f"fastbert {__version__}")
        return 0
    if name == "--completion":
        return completion(argv[1:])
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        print(f"error: {name}: no such command. Try: {near[0] if near else 'fastbert --help'}", file=sys.stderr)
        return 2
    sys.argv = [f"fastbert {name}", *argv[1:]]
    before, cli.LAUNCHER = cli.LAUNCHER, "fastbert "
    try:
        runpy.run_module(f"fastbert.{name}", run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        cli.LAUNCHER = before
    return 0


def completion(argv: list[str]) -> int:
    """Print a script that completes commands, options (asked of ``--help`` at that moment) and file names."""
    if argv != ["bash"]:
        print(
            f"error: --completion {' '.join(argv)}: expected bash, which zsh reads after bashcompinit", file=sys.stderr
        )
        return 2
    print(_BASH.replace("COMMANDS", " ".join(COMMANDS)))
    return 0


_BASH = """_fastbert() {
  local word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]}
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "COMMANDS" -- "$word"))
  elif [ "${word#-}" != "$word" ]; then
    local variable=_fastbert_options_$command
    [ -n "${!variable}" ] || printf -v "$variable" '%s' \\
      "$(fastbert "$command" --help 2>/dev/null | grep -o -- '--[a-z][a-z0-9-]*' | sort -u | tr '\\n' ' ') --config"
    COMPREPLY=($(compgen -W "${!variable}" -- "$word"))
  else
    COMPREPLY=($(compgen -f -- "$word"))
  fi
}
complete -o filenames -F _fastbert fastbert"""


if __name__ == "__main__":
    sys.exit(main())
