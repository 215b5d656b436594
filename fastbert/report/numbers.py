"""Numbers formatted for English or Portuguese."""

from typing import Any


class Numbers:
    """Number formats; None becomes an empty string."""

    def __init__(self, language: str):
        self.portuguese = language == "pt"

    def _local(self, text: str) -> str:
        """1,234.5 → 1.234,5 in Portuguese."""
        return text.translate(str.maketrans(",.", ".,")) if self.portuguese else text

    def plain(self, value: Any, digits: int) -> str:
        return "" if value is None else self._local(f"{value:,.{digits}f}")

    def general(self, value: float) -> str:
        return self._local(f"{value:g}")

    def whole(self, value: Any) -> str:
        return "" if value is None else self._local(f"{value:,.0f}")

    def short(self, value: Any) -> str:
        """At least three significant digits: 54.1, 554, 1,035."""
        if value is None:
            return ""
        return self.plain(value, 0 if value >= 100 else 1 if value >= 10 else 2)

    def share(self, value: Any) -> str:
        return "" if value is None else self._local(f"{value:.1%}")

    def percent(self, value: Any) -> str:
        return "" if value is None else self._local(f"{value:.0%}")

    def big(self, value: Any) -> str:
        """408,619 → 409 k; 1.5 M; 3.2 G."""
        if value is None:
            return ""
        for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if value >= limit * 0.9995:
                scaled = value / limit
                shown = f"{scaled:.0f}" if scaled >= 99.95 else f"{scaled:.1f}".removesuffix(".0")
                return f"{self._local(shown)} {unit}"
        return self._local(f"{value:,.0f}")

    def clock(self, seconds: Any) -> str:
        if seconds is None:
            return ""
        minutes, rest = divmod(max(0, round(seconds)), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

    def ranks(self, name: str) -> str:
        """A range of ranks, such as 101–1,000."""
        return self._local(name)
