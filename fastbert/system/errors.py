"""The one exception that means "your input", not "our bug"."""


class InputError(ValueError):
    """Bad input from the user: one line that names the file, line or option, and the remedy.

    Commands print it as ``error: …`` and exit with code 2 (see :func:`fastbert.system.cli.run`).
    """


class AllRanksFail(InputError):
    """A fault that every rank of a run meets at once: only rank 0 says it."""
