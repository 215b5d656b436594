"""The page to play with a model: a form for each thing that it can do; :mod:`.views` answers them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from fastbert.report.build import DEFAULT_TEXTS
from fastbert.serve import api
from fastbert.serve.frame import HEADERS, header, language_of, page, style
from fastbert.serve.wording import WORDS
from fastbert.system.errors import InputError
from fastbert.system.html_page import PageLanguage, escape

if TYPE_CHECKING:
    from fastbert.bert import Bert

Words = dict[str, str]


def abilities(bert: "Bert") -> list[str]:
    """The sections for a model, its own task first."""
    tasks = {"classification": "classify", "regression": "classify", "tagging": "tag", "qa": "answer"}
    found = [tasks[bert.task_model.settings.task]] if bert.task_model is not None else []
    if not any(name.startswith("head.") for name in bert.model.fresh):
        found += ["fill", "natural"]
    found += ["similar", "attention_play"]
    return [*found, "generate"] if "fill" in found else found


# ---- forms ----
def area(name: str, label: str, value: str = "", rows: int = 2) -> str:
    return (
        f'<p><label>{escape(label)}<textarea name="{name}" rows="{rows}" spellcheck="false">{escape(value)}</textarea>'
        "</label></p>"
    )


def line(name: str, label: str, value: str = "") -> str:
    return f'<p><label>{escape(label)}<input name="{name}" value="{escape(value)}" autocomplete="off"></label></p>'


def fields(name: str, words: Words, language: PageLanguage, bert: "Bert") -> str:
    """The inputs of a section."""
    if name == "fill":
        options = f'<p class="check"><label><input type="checkbox" name="joint"> {escape(words["joint"])}</label></p>'
        return area("text", words["text"], words["example_mask"]) + options + line("candidates", words["candidates"])
    if name == "natural":
        return area("lines", words["texts"], words["example_natural"], 3)
    if name == "similar":
        return area("lines", words["texts"], words["example_similar"], 4)
    if name == "attention_play":
        return area("text", words["text"], DEFAULT_TEXTS[language])
    if name == "generate":
        number = '<input name="tokens" type="number" min="1" max="64" value="16">'
        prompt = area("text", words["text"], words["example_generate"])
        return f"{prompt}<p><label>{escape(words['length'])}{number}</label></p>"
    if name == "answer":
        return line("text", words["question"]) + area("second", words["context"], "", 5)
    assert bert.task_model is not None
    if name == "classify" and bert.task_model.settings.pairs:
        return area("text", words["first_text"]) + area("second", words["second_text"])
    return area("lines", words["texts"], DEFAULT_TEXTS[language], 3)


def section(name: str, words: Words, language: PageLanguage, bert: "Bert") -> str:
    about = words.get("attention_text" if name == "attention_play" else f"{name}_text", "")
    return (
        f'<section id="{name}"><h2>{escape(words[name])}</h2><p class="soft">{escape(about)}</p>'
        f'<form data-view="{name}">{fields(name, words, language, bert)}<button>{escape(words["go"])}</button></form>'
        f'<div class="result" aria-live="polite"></div></section>'
    )


def model_choice(names: list[str], chosen: str, words: Words, language: str) -> str:
    if len(names) < 2:
        return ""
    options = "".join(f"<option{' selected' if n == chosen else ''}>{escape(n)}</option>" for n in names)
    return (
        f'<form class="choice" method="get"><input type="hidden" name="lang" value="{language}">'
        f'<label>{escape(words["model"])} <select name="model">{options}</select></label> '
        f"<button>{escape(words['choose'])}</button></form>"
    )


# ---- pages ----
async def play(request: Request) -> Response:
    """The page of one model, by default the first."""
    language = language_of(request)
    words, service = WORDS[language], request.app.state.service
    if not service.models.names and service.models.runs:
        return RedirectResponse(f"/watch?lang={language}")
    try:
        name, bert = await service.bert(request.query_params.get("model"))
    except InputError as error:
        choice = model_choice(service.models.names, "", words, language)
        return page(request, "play", "", f'{choice}<p class="problem">{escape(error)}</p>')
    listed = abilities(bert)
    links = "".join(f'<a href="#{each}">{escape(words[each])}</a>' for each in listed)
    sections = "".join(section(each, words, language, bert) for each in listed)
    choice = model_choice(service.models.names, name, words, language)
    content = f'{choice}<nav class="sections" data-model="{escape(name)}">{links}</nav>{sections}'
    return page(request, "play", words["play_lead"].format(name=name), content)


async def docs(request: Request) -> Response:
    language = language_of(request)
    server = str(request.base_url).rstrip("/")
    html = api.page(language, WORDS[language], header(request, "api"), style(), server)
    return Response(html, media_type="text/html", headers=HEADERS)


PAGES: dict[str, Callable[[Request], Any]] = {"/": play, "/docs": docs}
