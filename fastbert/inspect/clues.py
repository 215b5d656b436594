"""What the beginning of a text gives away: where documents seem to end, accents, markup, special tokens.

Reads a few megabytes of each file, as they are in the file; ``python -m fastbert.train`` does so too.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fastbert.data.corpus.documents import Corpus
from fastbert.data.corpus.reading import ReadingRules
from fastbert.data.corpus.sources import Source
from fastbert.inspect import characters, forms
from fastbert.inspect.characters import CharacterCounts
from fastbert.inspect.findings import Finding
from fastbert.system.errors import InputError
from fastbert.text.word_counts import SPECIAL_TOKENS

MAX_CHARS = 16 << 20  # of all files
MAX_CHARS_OF_A_FILE = 2 << 20
MIN_UNDIVIDED_LINES = 100  # of a text without a blank line
MIN_MARKUP_SHARE = 0.05  # of the characters, in tags
SEPARATORS = ("<|endoftext|>", "<|end_of_text|>", "<|endofdoc|>", "</s>", "<s>", "<eos>", "[EOS]", "<doc>", "</doc>")
_TAG = re.compile(r"</?[a-zA-Z][^<>\n]{0,200}>")
_ENTITY = re.compile(r"&(?:[a-z]{2,8}|#\d{2,5});")
# a line of only signs, such as ***** or =====
_RULE = re.compile(r"^([^\w\s])\1{2,}$", re.MULTILINE)


@dataclass
class Clues:
    """Counts in the text that was read."""

    chars: int = 0
    lines: int = 0
    blank_lines: int = 0
    decomposed: int = 0  # characters that composition would save
    special_tokens: Counter[str] = field(default_factory=Counter)
    separators: Counter[str] = field(default_factory=Counter)
    markup_chars: int = 0
    entities: int = 0
    rules: Counter[str] = field(default_factory=Counter)
    plain_text: bool = False  # some of it is not from records
    json_lines: int = 0  # of plain text
    tab_lines: int = 0  # of blocks whose lines have the same number of tabs
    characters: CharacterCounts = field(default_factory=CharacterCounts)

    def add(self, text: str) -> None:
        self.chars += len(text)
        self.decomposed += len(text) - len(_NFC.normalized(text))
        for token in SPECIAL_TOKENS:
            self.special_tokens[token] += text.count(token)
        for separator in SEPARATORS:
            self.separators[separator] += text.count(separator)
        self.characters.add(text)
        if "<" in text:
            self.markup_chars += sum(len(tag) for tag in _TAG.findall(text) if tag not in SEPARATORS)
        if "&" in text:
            self.entities += len(_ENTITY.findall(text))

    def add_plain(self, text: str) -> None:
        self.plain_text = True
        self.add(text)
        rows = text.removesuffix("\n").split("\n")
        self.lines += len(rows)
        self.blank_lines += sum(not row or row.isspace() for row in rows)
        self.rules.update(match.group() for match in _RULE.finditer(text))
        self.json_lines += sum(row.startswith('{"') and row.rstrip().endswith("}") for row in rows)
        if "\t" in text:
            tabs = {row.count("\t") for row in rows if row and not row.isspace()}
            self.tab_lines += len(rows) if len(tabs) == 1 and 0 not in tabs else 0


_NFC = ReadingRules()


def read_clues(corpus: Corpus) -> Clues:
    """Read the beginning of the files, spread over the corpus; files that cannot be read are passed over."""
    clues = Clues()
    raw = corpus.with_rules(replace(corpus.rules, documents="blank", normalize="none"))
    step = max(1, len(corpus.sources) * MAX_CHARS_OF_A_FILE // MAX_CHARS)
    for source in corpus.sources[::step]:
        if clues.chars >= MAX_CHARS:
            break
        try:
            _read(raw, source, clues)
        except InputError:  # reported by whoever reads all of it
            continue
    return clues


def _read(corpus: Corpus, source: Source, clues: Clues) -> None:
    end = clues.chars + MAX_CHARS_OF_A_FILE
    for _, raw in corpus.raw_parts([source]):
        if isinstance(raw, bytes):
            clues.add_plain(raw.decode())
        else:
            clues.add("\n".join(raw[0]))
        if clues.chars >= end:
            break


def findings(clues: Clues, rules: ReadingRules, num_documents: int) -> list[Finding]:
    """What the clues mean for training."""
    return [
        *_about_documents(clues, rules, num_documents),
        *_about_characters(clues, rules),
        *_about_records(clues),
    ]


def _about_documents(clues: Clues, rules: ReadingRules, num_documents: int) -> list[Finding]:
    found = []
    separator, count = clues.separators.most_common(1)[0] if clues.separators else ("", 0)
    if count and rules.documents != separator:
        what = f"{separator} stands {count:,} times in the text and is read as words"
        found.append(Finding("separators", what, f"--documents '{separator}', if it ends a document"))
    elif clues.plain_text and rules.documents == "blank":
        rule, times = clues.rules.most_common(1)[0] if clues.rules else ("", 0)
        if times > 1 and times > clues.blank_lines:
            what = f"lines of only {rule[:8]} stand {times:,} times"
            found.append(Finding("separators", what, f"--documents '{rule}'"))
        elif num_documents == 1 and clues.lines >= MIN_UNDIVIDED_LINES and not clues.blank_lines:
            what = "no blank line separates documents: "
            what += f"{clues.lines:,} lines are one document, and sequences run across them"
            found.append(Finding("one document", what, "--documents line, if the lines are unrelated"))
    return found


def _about_records(clues: Clues) -> list[Finding]:
    """Records in files that are read as plain text, whose names and signs would be learned as words."""
    if clues.lines and 2 * clues.json_lines > clues.lines:
        what = f"{clues.json_lines:,} of {clues.lines:,} lines of plain text are JSON objects"
        return [Finding("records in plain text", what, "a name that ends in .jsonl, and --text-field")]
    if clues.lines > 1 and clues.lines - clues.blank_lines == clues.tab_lines:
        what = f"each of {clues.tab_lines:,} lines of plain text has the same number of tabs"
        return [Finding("records in plain text", what, "a name that ends in .tsv, and --text-field")]
    return []


def _about_characters(clues: Clues, rules: ReadingRules) -> list[Finding]:
    found = []
    if clues.decomposed > 0:
        what = f"{clues.decomposed:,} accents are decomposed, separate from their letters"
        if rules.normalize == "nfc":
            found.append(Finding("decomposed accents", f"{what}; they are composed on reading", "", severe=False))
        else:
            found.append(Finding("decomposed accents", what, "--normalize nfc"))
    tokens = {token: count for token, count in clues.special_tokens.items() if count}
    if tokens:
        what = ", ".join(f"{token} {count:,} times" for token, count in tokens.items()) + ", read as ordinary text"
        remedy = "remove them, or replace them by line feeds"
        found.append(Finding("special tokens in the text", what, remedy, severe=False))
    if clues.chars and clues.markup_chars / clues.chars >= MIN_MARKUP_SHARE:
        share = clues.markup_chars / clues.chars
        found.append(Finding("markup", f"{share:.0%} of the text is tags such as <p>", "extract the text"))
    elif clues.entities > 20 and clues.entities * 200 > clues.chars:
        found.append(Finding("markup", f"{clues.entities:,} HTML entities such as &amp;", "decode them"))
    return found


def quick_findings(corpus: Corpus, num_documents: int) -> Sequence[Finding]:
    """What can be said at little cost: the cheap part of ``python -m fastbert.inspect``."""
    clues = read_clues(corpus)
    return [
        *findings(clues, corpus.rules, num_documents),
        *characters.findings(clues.characters),
        *forms.findings(corpus),
    ]
