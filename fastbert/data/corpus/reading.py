"""How text is read: its fields, its Unicode normalization, and where a document of plain text ends."""

import unicodedata
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

from fastbert.system.errors import InputError
from fastbert.system.native import core

Normalization = Literal["nfc", "none"]
DOCUMENT_RULES = ("blank", "line", "file")


@dataclass(frozen=True)
class ReadingRules:
    """What a reader does to text before anything else sees it.

    Attributes:
        text_field: field of records with the text; None: "text". "a.b" is field b of the object in field a; "a,b" joins
            two fields.
        documents: what ends a document of plain text: a "blank" line, each "line", only the "file", or any other
            string, such as "<|endoftext|>", which is not part of the text. A record is always a document.
        normalize: "nfc" composes characters, so that a letter with its accent is one code point wherever the text comes
            from; "none" keeps the text as it is.

    Raises:
        InputError: another value.

    Reference: Unicode Standard Annex #15, Unicode Normalization Forms.
    """

    text_field: str | None = None
    documents: str = "blank"
    normalize: Normalization = "nfc"

    def __post_init__(self) -> None:
        if self.normalize not in get_args(Normalization):
            raise InputError(f"--normalize {self.normalize}: expected nfc or none")
        if not self.documents.strip() or "\n" in self.documents:
            raise InputError(
                f"--documents {self.documents!r}: expected blank, line, file, or a separator within a line, such as "
                "'<|endoftext|>'"
            )

    @property
    def changes(self) -> list[str]:
        """The rules for documents and normalization, empty if they are the usual ones."""
        return [] if (self.documents, self.normalize) == ("blank", "nfc") else [self.documents, self.normalize]

    @cached_property
    def _may_change(self) -> Any:
        module = core()
        return None if module is None else module.may_change_in_nfc

    def normalized(self, text: str) -> str:
        """``text`` in NFC, unless it is to be kept."""
        if self.normalize == "none" or text.isascii():
            return text
        if self._may_change is not None and not self._may_change(text):
            return text
        return unicodedata.normalize("NFC", text)

    def plain_text(self, text: str, inside_line: bool) -> str:
        """Whole lines of plain text, normalized, with a blank line (and only there) where a document ends.

        Args:
            text: of a file.
            inside_line: it begins within a line, the rest of one that was cut.
        """
        text = self.normalized(text)
        if self.documents == "blank":
            return text
        if self.documents == "line":
            return text.replace("\n", "\n\n")
        text = _without_blank_lines(text, inside_line)
        return text if self.documents == "file" else text.replace(self.normalized(self.documents), "\n\n")


def _without_blank_lines(text: str, inside_line: bool) -> str:
    first, *rows = text.removesuffix("\n").split("\n")
    kept = [row for row in rows if row and not row.isspace()]
    if inside_line or (first and not first.isspace()):
        kept.insert(0, first)
    return "\n".join(kept) + ("\n" if kept and text.endswith("\n") else "")
