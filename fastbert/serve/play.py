"""The page to play with a model."""

from typing import Any

PAGES: dict[str, Any] = {}
VIEWS: tuple[Any, ...] = ()
