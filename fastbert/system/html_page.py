"""Self-contained HTML pages: inline style, script and data, no network requests, light and dark mode.

All data is escaped here: text by :func:`escape`, the data of scripts by :func:`data_block`.
"""

import html
import json
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from fastbert.system.atomic_write import written_whole
from fastbert.system.errors import InputError

PageLanguage = Literal["en", "pt"]
LANGUAGE_TAGS = {"en": "en", "pt": "pt-BR"}
# only inline script and style; links in the data cannot send requests
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def escape(value: object) -> str:
    """Escape text for an HTML element or a quoted attribute."""
    return html.escape(str(value), quote=True)


def data_block(name: str, data: Any) -> str:
    """Data for the script of the page: ``JSON.parse(document.getElementById(name).textContent)``."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    # "</script>" and "<!--" in the data must not end the block
    safe = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return f'<script type="application/json" id="{escape(name)}">{safe}</script>'


def page(
    title: str,
    body: str,
    *,
    language: PageLanguage = "en",
    style: str = "",
    script: str = "",
    connects: bool = False,
) -> str:
    """Return a complete page.

    Args:
        title: plain text.
        body: HTML with escaped data.
        language: of the page.
        style, script: added to the common style; ``script`` runs after the body is parsed.
        connects: the script may ask the server that the page comes from, and nobody else.
    """
    common = asset("fastbert.system", "html_page.css")
    policy = POLICY + ("; connect-src 'self'" if connects else "")
    code = f"<script>\n{script}\n</script>" if script else ""
    return (
        f'<!doctype html>\n<html lang="{LANGUAGE_TAGS[language]}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{common}\n{style}</style>\n</head>\n<body>\n{body}\n{code}\n"
        "</body>\n</html>\n"
    )


def asset(package: str, name: str) -> str:
    """A style sheet or script from a package."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def write(path: str | Path, text: str) -> Path:
    """Write a file atomically.

    Raises:
        InputError: it cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}). Try: free some space, or another path"
        ) from None
    return path
