"""Tagging schemes: how the labels of a data set or a checkpoint spell the entities of a sentence.

A scheme is found once, from all the labels together: ``B-PER`` (prefix) or ``PER-B`` (suffix) with the letters of BIO,
IOB1, BIOES, BILOU or BMES, or plain labels such as ``NOUN``, whose letters mean nothing.

Reference: Ramshaw & Marcus, Text Chunking using Transformation-Based Learning, 1995; Ratinov & Roth, Design Challenges
and Misconceptions in Named Entity Recognition, 2009 (BILOU).
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

OUTSIDE = "O"
# letters of other schemes with the same meaning
_CANONICAL = {"B": "B", "I": "I", "M": "I", "E": "E", "L": "E", "S": "S", "U": "S", "W": "S"}
_PREFIX = re.compile(r"([BIMELSUW])([-_])(.+)", re.IGNORECASE | re.DOTALL)
_SUFFIX = re.compile(r"(.+)([-_])([BIMELSUW])", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Entity:
    """Words ``start`` to ``end`` (exclusive) of a sentence."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True)
class TagScheme:
    """How labels are spelled; see :func:`find_scheme`."""

    name: str  # BIO, BIOES or plain; BIO stands for IOB1 too, which differs only in where B- is written
    suffix: bool = False

    def split(self, tag: str) -> tuple[str, str]:
        """The role (B, I, E, S, or O) and the kind of a label; one that is no role and kind is a word of its own."""
        if is_outside(tag) and (tag == OUTSIDE or self.name != "plain"):
            return OUTSIDE, ""
        match = (_SUFFIX if self.suffix else _PREFIX).fullmatch(tag) if self.name != "plain" else None
        if match is None:
            return "S", tag
        letter, kind = (match[3], match[1]) if self.suffix else (match[1], match[3])
        return _CANONICAL[letter.upper()], kind

    def spells(self, tag: str) -> bool:
        """Whether a label is written as this scheme writes labels."""
        return self.name == "plain" or self.split(tag)[1] != tag

    def entities(self, tags: Sequence[str]) -> list[Entity]:
        """The entities of a sentence; an I or E that continues nothing begins one, as in seqeval's default mode."""
        found: list[Entity] = []
        is_open, before = False, ""
        for word, tag in enumerate(tags):
            role, kind = self.split(tag)
            if role == OUTSIDE:
                is_open = False
                continue
            if role in "IE" and is_open and kind == before:
                found[-1] = Entity(kind, found[-1].start, word + 1)
            else:
                found.append(Entity(kind, word, word + 1))
            is_open, before = role in "BI", kind
        return found

    def as_bio(self, tags: Sequence[str]) -> list[str]:
        """The same entities in BIO."""
        converted = [OUTSIDE] * len(tags)
        for entity in self.entities(tags):
            converted[entity.start] = f"B-{entity.kind}"
            for word in range(entity.start + 1, entity.end):
                converted[word] = f"I-{entity.kind}"
        return converted


BIO = TagScheme("BIO")
PLAIN = TagScheme("plain")


def is_outside(tag: str) -> bool:
    """Whether a label says that a word belongs to no entity, if labels have roles."""
    return tag in (OUTSIDE, OUTSIDE.lower())


def find_scheme(labels: Iterable[str]) -> TagScheme:
    """The scheme of a set of labels: the one that explains every label except ``O``; plain where none does.

    A few labels may be none of the scheme's, such as ``X`` or ``[SEP]``, if others are surely.
    """
    given = set(labels)
    names = {label for label in given if not is_outside(label)}
    for pattern, group in ((_PREFIX, 1), (_SUFFIX, 3)):
        matches = [match for name in names if (match := pattern.fullmatch(name))]
        if not matches or len({match[2] for match in matches}) > 1:
            continue
        if len(matches) < len(names) and not _is_sure(matches, group, len(names)):
            continue
        roles = {_CANONICAL[match[group].upper()] for match in matches}
        # E-MAIL and S-BAHN alone are names, not roles
        if roles & {"B", "I"} or (pattern is _PREFIX and roles == {"S"} and len(names) > 1):
            return TagScheme("BIOES" if roles & {"E", "S"} else "BIO", suffix=pattern is _SUFFIX)
    return PLAIN if names or (OUTSIDE not in given and given) else BIO


def _is_sure(matches: Sequence[re.Match[str]], group: int, num_names: int) -> bool:
    """Whether most labels are of the scheme, and some kind has two roles, one of them a beginning."""
    roles: dict[str, set[str]] = {}
    for match in matches:
        roles.setdefault(match[4 - group], set()).add(_CANONICAL[match[group].upper()])
    return 2 * len(matches) > num_names and any(len(found) > 1 and "B" in found for found in roles.values())


def bio_faults(sentences: Iterable[Sequence[str]]) -> Iterator[tuple[int, int]]:
    """(sentence, word) of every I- that continues nothing, in prefix form."""
    for number, tags in enumerate(sentences):
        before = OUTSIDE
        for word, tag in enumerate(tags):
            role, kind = BIO.split(tag)
            if role == "I" and BIO.split(before)[1] != kind:
                yield number, word
            before = tag


def is_iob1(sentences: Iterable[Sequence[str]]) -> bool:
    """Whether B- only separates an entity from another of its kind, as IOB1 asks."""
    for tags in sentences:
        before = OUTSIDE
        for tag in tags:
            role, kind = BIO.split(tag)
            if role == "B" and BIO.split(before)[1] != kind:
                return False
            before = tag
    return True
