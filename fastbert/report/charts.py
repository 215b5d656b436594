"""Charts as inline SVG, written by hand.

matplotlib draws ``curves.png``. It cannot draw these: the page's style sheet sets their colours (dark mode is one CSS
rule), their text is selectable text in the page's font, and lines have titles for screen readers.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastbert.system.html_page import escape

WIDTH, HEIGHT = 340, 190
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 8, 24
COLOURS = 6  # --s1 … --s6 of page.css


@dataclass(frozen=True)
class Series:
    """One line of a chart."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int = 0  # index of a colour
    faint: bool = False  # thin and pale, behind the others
    dots: bool = False


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    format_y: Callable[[float], str],
    format_x: Callable[[float], str] = "{:g}".format,
    logarithmic: bool = False,
    from_zero: bool = False,
    note: str = "",
) -> str:
    """A figure with title, last value of each line, and lines over a grid; empty if there is nothing to draw."""
    drawn = [s for s in series if len(s.points) > 1 or (s.points and s.dots)]
    if not drawn:
        return ""
    scale = math.log10 if logarithmic else float
    xs = [x for s in drawn for x, _ in s.points]
    ys = [scale(y) for s in drawn for _, y in s.points if y > 0 or not logarithmic]
    x_low, x_high = 0.0, max(xs) or 1.0
    y_low, y_high = (min(0.0, min(ys)) if from_zero else min(ys)), max(ys)
    margin = (y_high - y_low) * 0.06 or abs(y_high) * 0.1 or 1.0
    y_low, y_high = (y_low if from_zero else y_low - margin), y_high + margin

    def position(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)
        return across, TOP + (y_high - y) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    parts = [_grid(y_low, y_high, position, format_y, logarithmic), _x_axis(x_high, position, format_x)]
    for s in sorted(drawn, key=lambda s: not s.faint):
        points = [position(x, scale(y)) for x, y in thin(s.points) if y > 0 or not logarithmic]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        colour = f"var(--s{s.colour % COLOURS + 1})"
        kind = "faint" if s.faint else "line"
        parts.append(f'<path class="{kind}" d="{path}" style="stroke:{colour}"><title>{escape(s.name)}</title></path>')
        shown = points if s.dots and len(points) <= 40 else points[-1:]
        if not s.faint:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.4" style="fill:{colour}"/>' for x, y in shown]
    newest = "".join(
        f'<strong style="color:var(--s{s.colour % COLOURS + 1})">{escape(format_y(s.points[-1][1]))}</strong>'
        for s in drawn
        if not s.faint
    )
    spoken = ", ".join(f"{s.name} {format_y(s.points[-1][1])}" for s in drawn)
    small = f'<span class="soft small">{escape(note)}</span>' if note else ""
    return (
        f'<figure class="chart"><figcaption><span>{escape(title)} {small}</span><span class="newest">{newest}</span>'
        f'</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}: {escape(spoken)}">'
        f"{''.join(parts)}</svg></figure>"
    )


def _grid(y_low: float, y_high: float, position, format_y: Callable[[float], str], logarithmic: bool) -> str:
    parts = []
    for value in log_ticks(y_low, y_high) if logarithmic else ticks(y_low, y_high, 4):
        _, y = position(0.0, value)
        shown = format_y(10**value if logarithmic else value)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="y" x="{LEFT - 6}" y="{y + 3.5:.1f}">{escape(shown)}</text>')
    return "".join(parts)


def _x_axis(x_high: float, position, format_x: Callable[[float], str]) -> str:
    parts = []
    for value in ticks(0.0, x_high, 4):
        x, _ = position(value, 0.0)
        anchor = "start" if value == 0 else "end" if x > WIDTH - RIGHT - 12 else "middle"
        shown = escape(f"{format_x(value)} M" if value else "0")
        parts.append(f'<text class="x" x="{x:.1f}" y="{HEIGHT - 8}" style="text-anchor:{anchor}">{shown}</text>')
    return "".join(parts)


def ticks(low: float, high: float, count: int) -> list[float]:
    """About ``count`` round numbers within low … high."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Logarithms of round numbers within low … high: 1, 2, 5 of each power, or those of a narrower range."""
    for digits in ((1,), (1, 2, 5), (1, 2, 3, 4, 5, 6, 7, 8, 9)):
        powers = range(math.floor(low), math.ceil(high) + 1)
        found = [math.log10(d) + p for p in powers for d in digits if low <= math.log10(d) + p <= high]
        if len(found) >= 3:
            return found[:: math.ceil(len(found) / 6)]
    return [math.log10(value) for value in ticks(10**low, 10**high, 4)]


def thin(points: Sequence[tuple[float, float]], most: int = 400) -> list[tuple[float, float]]:
    """At most about ``most`` points, including the last."""
    if len(points) <= most:
        return list(points)
    step = len(points) / most
    kept = [points[int(i * step)] for i in range(most)]
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def bars(rows: Sequence[tuple[str, float, str]], *, chance: float | None = None) -> str:
    """Bars of (label, share of 1, text after the bar); ``chance`` is marked on each."""
    mark = f'<i class="chance" style="left:{100 * chance:.1f}%"></i>' if chance is not None else ""
    parts = []
    for label, share, shown in rows:
        bar = f'<span class="bar"><b style="width:{100 * min(max(share, 0.0), 1.0):.1f}%"></b>{mark}</span>'
        parts.append(f"<dt>{escape(label)}</dt><dd>{bar}<span>{escape(shown)}</span></dd>")
    return f'<dl class="bars">{"".join(parts)}</dl>'
