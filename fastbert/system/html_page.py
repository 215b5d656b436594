"""One self-contained HTML page: style, script and data inside, no request to anywhere, readable in light and dark.

Everything that comes from data is escaped here: text by :func:`escape`, a script's data by :func:`data_block`.
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
# the page may run its own script and style and nothing else; a stray link in somebody's data cannot call home
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def escape(value: object) -> str:
    """Text for HTML, in an element or in a quoted attribute."""
    return html.escape(str(value), quote=True)


def data_block(name: str, data: Any) -> str:
    """Data for the page's script, as ``JSON.parse(document.getElementById(name).textContent)`` reads it."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    # "</script>" and "<!--" in a text must not end the block
    safe = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return f'<script type="application/json" id="{escape(name)}">{safe}</script>'


def page(title: str, body: str, *, language: PageLanguage = "en", style: str = "", script: str = "") -> str:
    """A whole page.

    Args:
        title: plain text.
        body: HTML, its data already escaped.
        language: of the page.
        style, script: added to the common style; ``script`` runs when the body is there.
    """
    common = asset("fastbert.system", "html_page.css")
    code = f"<script>\n{script}\n</script>" if script else ""
    return (
        f'<!doctype html>\n<html lang="{LANGUAGE_TAGS[language]}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{common}\n{style}</style>\n</head>\n<body>\n{body}\n{code}\n"
        "</body>\n</html>\n"
    )


def asset(package: str, name: str) -> str:
    """A style or script that lies beside the code."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def write(path: str | Path, text: str) -> Path:
    """Write a file through a temporary name.

    Raises:
        InputError: it cannot be written there.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}): free some space, or choose another place"
        ) from None
    return path
