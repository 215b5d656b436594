"""A survey as text, as JSON and as a page."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fastbert.inspect.advice import Suggestion
from fastbert.inspect.findings import Finding
from fastbert.inspect.survey import Survey
from fastbert.inspect.vocabulary import Spelling
from fastbert.system import html_page

_STYLE = "td:first-child { white-space: nowrap; } td { vertical-align: top; padding: 0.2em 1em 0.2em 0; }"


@dataclass(frozen=True)
class Report:
    """Everything that is shown."""

    data: Sequence[str]
    found: Survey
    spelling: Spelling
    findings: Sequence[Finding]
    suggestions: Sequence[Suggestion]

    def figures(self) -> list[tuple[str, str]]:
        """(name, value) of each figure, as text."""
        found, spelling = self.found, self.spelling
        lines = found.lines
        about = "about " if lines.estimated else ""
        formats = ", ".join(f"{name} ({count:,})" for name, count in found.formats.most_common())
        longest = "; ".join(f"{size:,} bytes: {name}, document {number:,}" for size, name, number in found.longest[:3])
        kind = "trained on it" if spelling.trained else "as given"
        return [
            ("files", f"{found.num_files:,} read ({formats}), {found.num_problems:,} not"),
            (
                "text",
                f"{found.num_bytes:,} bytes of UTF-8, {found.num_documents:,} documents, {found.num_lines:,} lines",
            ),
            ("words", f"{found.num_words:,}, {len(found.word_counts):,} distinct; {spelling.alphabet:,} characters"),
            ("scripts", ", ".join(f"{name} {share:.1%}" for name, share in spelling.scripts.items()) or "none"),
            ("tokens", f"{spelling.tokens:,} in {spelling.vocab_size:,} pieces ({kind})"),
            ("[UNK]", f"{spelling.unknown_share:.2%} of the tokens"),
            ("repeated lines", f"{about}{lines.duplicate_share():.1%}, nearly {lines.near_duplicate_share():.1%}"),
            ("repeated documents", f"{lines.totals.exact_documents:,}, nearly {lines.totals.near_documents:,}"),
            ("longest documents", longest or "none"),
        ]

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self.figures())
        rows = [f"{name:<{width}}  {value}" for name, value in self.figures()]
        rows += ["", "findings:" if self.findings else "findings: none"]
        rows += [f"  {'!' if finding.severe else '·'} {finding}" for finding in self.findings]
        rows += ["", "suggested options of python -m fastbert.train:"]
        rows += [f"  {one.option} {one.value:<8} {one.reason}" for one in self.suggestions]
        return "\n".join(rows)

    def record(self) -> dict[str, Any]:
        """The content of ``--json``."""
        found, spelling, lines = self.found, self.spelling, self.found.lines
        return {
            "data": list(self.data),
            "files": {
                "read": found.num_files,
                "formats": dict(found.formats),
                "problems": found.problems,
                "num_problems": found.num_problems,
                "left_out": dict(found.left_out),
            },
            "bytes": found.num_bytes,
            "documents": found.num_documents,
            "lines": found.num_lines,
            "words": found.num_words,
            "distinct_words": len(found.word_counts),
            "tokens": spelling.tokens,
            "vocab_size": spelling.vocab_size,
            "unknown": {
                "tokens": spelling.unknown,
                "share": spelling.unknown_share,
                "causes": dict(spelling.causes),
                "characters": dict(spelling.missing.most_common(50)),
            },
            "words_over_the_limit": spelling.long_words,
            "alphabet": spelling.alphabet,
            "scripts": spelling.scripts,
            "repetition": {
                "estimated": lines.estimated,
                "duplicate_lines": lines.duplicate_share(),
                "near_duplicate_lines": lines.near_duplicate_share(),
                "duplicate_documents": lines.totals.exact_documents,
                "near_duplicate_documents": lines.totals.near_documents,
                "boilerplate": [asdict(line) for line in lines.boilerplate()],
                "heldout_overlap": lines.overlap_share(),
            },
            "longest_documents": [
                {"bytes": size, "file": name, "document": number} for size, name, number in found.longest
            ],
            "findings": [asdict(finding) for finding in self.findings],
            "suggestions": [asdict(one) for one in self.suggestions],
        }

    def page(self) -> str:
        """A self-contained page."""
        escape = html_page.escape
        figures = "".join(f"<tr><td>{escape(name)}<td>{escape(value)}" for name, value in self.figures())
        findings = "".join(f"<tr><td>{escape(f.name)}<td>{escape(f.what)}<td>{escape(f.remedy)}" for f in self.findings)
        options = "".join(
            f"<tr><td><code>{escape(one.option)} {escape(one.value)}</code><td>{escape(one.reason)}"
            for one in self.suggestions
        )
        body = (
            f"<main><h1>{escape(', '.join(self.data))}</h1><table>{figures}</table>"
            f"<h2>Findings</h2><table>{findings or '<tr><td>none'}</table>"
            f"<h2>Suggested options</h2><table>{options}</table></main>"
        )
        return html_page.page("Inspection of a text", body, style=_STYLE)
