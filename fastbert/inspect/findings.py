"""A finding about a text: what it is called, what was seen, and what to do."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that a person should know before training.

    Attributes:
        name: of the kind of problem, always the same words.
        what: what was found, with figures.
        remedy: what to try; "" if nothing needs to be done.
        severe: worth a warning in training; the others are told by ``fastbert.inspect`` only.
    """

    name: str
    what: str
    remedy: str = ""
    severe: bool = True

    def __str__(self) -> str:
        return f"{self.name}: {self.what}" + (f". Try: {self.remedy}" if self.remedy else "")
