"""The exception for invalid user input, as opposed to bugs."""


class InputError(ValueError):
    """Invalid user input: one line with the file, line or option, the value, and the remedy after "Try:".

    Commands print it as ``error: …`` and exit with code 2 (see :func:`fastbert.system.cli.run`).
    """


class AllRanksFail(InputError):
    """An input error that all ranks encounter at once; only rank 0 prints it."""
