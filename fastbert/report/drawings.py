"""Tokens as boxes, and the word map."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastbert.system.html_page import escape

if TYPE_CHECKING:
    from fastbert.report.model_views import Piece, WordMap

LETTER = 0.56  # width of an average letter, in font sizes


def token_boxes(pieces: "Sequence[Piece]", unknown: str) -> str:
    """Tokens in reading order, each with its id."""
    boxes = []
    for piece in pieces:
        kind = "special" if piece.special else "unknown" if piece.unknown else "joined" if piece.continues else ""
        title = f' title="{escape(unknown)}"' if piece.unknown else ""
        text = piece.token.removeprefix("##") if piece.continues else piece.token
        boxes.append(f'<span class="piece {kind}"{title}><b>{escape(text)}</b><i>{piece.id}</i></span>')
    return f'<p class="pieces">{"".join(boxes)}</p>'


def map_drawing(found: "WordMap", *, wide: bool) -> str:
    """Words at their positions, frequent ones larger; of two that overlap, the rarer becomes a dot."""
    width, height = (1000, 620) if wide else (360, 460)
    largest, smallest = (21.0, 12.5) if wide else (14.0, 10.5)
    margin = 44 if wide else 26
    low, high = found.positions.min(axis=0), found.positions.max(axis=0)
    span = (high - low).clip(1e-9)
    taken: list[tuple[float, float, float, float]] = []
    shown, dots = [], []
    count = len(found.words)
    for rank, (word, place) in enumerate(zip(found.words, found.positions, strict=True)):
        across, up = (place - low) / span
        x, y = margin + across * (width - 2 * margin), height - 16 - up * (height - 36)
        size = largest - (largest - smallest) * (rank / max(count - 1, 1)) ** 0.5
        half = len(word) * size * LETTER / 2
        x = min(max(x, half + 2), width - half - 2)
        box = (x - half - 2, y - size * 0.8, x + half + 2, y + size * 0.28)
        if any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
            dots.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5"><title>{escape(word)}</title></circle>')
            continue
        taken.append(box)
        shown.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:.1f}">{escape(word)}</text>')
    return (
        f'<svg class="map {"wide" if wide else "narrow"}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(", ".join(found.words[:12]))} …">{"".join(dots)}{"".join(shown)}</svg>'
    )
