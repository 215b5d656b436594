"""What the pages share: heading, links between them, language, style and script."""

from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse

from fastbert.serve.wording import WORDS
from fastbert.system import html_page
from fastbert.system.html_page import escape

HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
           "Referrer-Policy": "no-referrer"}  # fmt: skip


def language_of(request: Request) -> html_page.PageLanguage:
    """Of the address, else of the browser."""
    asked = request.query_params.get("lang") or request.headers.get("accept-language", "")
    return "pt" if asked.strip().lower().startswith("pt") else "en"


def link(path: str, request: Request, **changes: Any) -> str:
    """An address of this server with the parameters of this one, changed."""
    kept = [(name, value) for name, value in request.query_params.multi_items() if name not in changes]
    return escape(f"{path}?{urlencode([*kept, *changes.items()])}")


def style() -> str:
    return html_page.asset("fastbert.report", "report.css") + html_page.asset("fastbert.serve", "page.css")


def header(request: Request, here: str) -> str:
    """Links to the pages and languages; ``here`` is the name of this one."""
    language = language_of(request)
    words = WORDS[language]
    models = request.app.state.service.models
    pages = [("play", "/")] if models.names else []
    pages += [("watch", "/watch")] if models.runs else []
    pages += [] if models.only_runs else [("api", "/docs")]
    current = {name: " aria-current=page" if name == here else "" for name, _ in pages}
    links = "".join(
        f'<a href="{path}?lang={language}"{current[name]}>{escape(words[name])}</a>' for name, path in pages
    )
    other: html_page.PageLanguage = "en" if language == "pt" else "pt"
    name = {"en": "English", "pt": "Português"}[other]
    return (
        f'<a class="skip" href="#content">{escape(words["skip"])}</a>'
        f'<nav class="links" aria-label="fastbert"><b>fastbert</b>{links}'
        f'<a class="language" lang="{html_page.LANGUAGE_TAGS[other]}" '
        f'href="{link(request.url.path, request, lang=other)}">{name}</a></nav>'
    )


def page(
    request: Request, here: str, lead: str, content: str, *, script: bool = True, status: int = 200
) -> HTMLResponse:
    """A page of this server."""
    language = language_of(request)
    words = WORDS[language]
    texts = {name: words[name] for name in ("failed", "working", "empty", "lost", "key_wrong")}
    body = (
        f"{header(request, here) if status == 200 else ''}"
        f'<main id="content" tabindex="-1"><h1>{escape(words[here])}</h1><p class="lead soft">{escape(lead)}</p>'
        f"{content}</main>{html_page.data_block('words', texts | {'language': language})}"
    )
    code = html_page.asset("fastbert.report", "report.js") + html_page.asset("fastbert.serve", "page.js")
    html = html_page.page(
        f"fastbert · {words[here]}",
        body,
        language=language,
        style=style(),
        script=code if script else "",
        connects=True,
    )
    return HTMLResponse(html, status, HEADERS)


def key_page(request: Request) -> HTMLResponse:
    """Asks for the key."""
    words = WORDS[language_of(request)]
    content = (
        f'<form data-key><p><label for="key">{escape(words["key_label"])}</label>'
        f'<input id="key" name="key" type="password" autocomplete="current-password" required></p>'
        f'<button>{escape(words["key_go"])}</button><p class="problem" role="alert"></p></form>'
    )
    return page(request, "key", "", content, status=401)
