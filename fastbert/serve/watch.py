"""The page to watch runs."""

from typing import Any

PAGES: dict[str, Any] = {}
