"""The HTTP API: what each address takes and answers, its OpenAPI description, and a page that shows it."""

import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from fastbert import __version__
from fastbert.serve.schemas import (
    AnswerBody,
    ClassifyBody,
    EmbeddingsBody,
    FillMaskBody,
    ScoreBody,
    SimilarityBody,
    TagBody,
    listed,
)
from fastbert.serve.service import Service
from fastbert.serve.work import embedding_limit, lengths, truncated_rows
from fastbert.system import html_page
from fastbert.system.errors import InputError
from fastbert.system.html_page import escape

Record = dict[str, Any]


async def embeddings(service: Service, body: EmbeddingsBody) -> Record:
    texts = listed(body.input)
    if not texts:
        raise InputError("input: is empty. Try: at least one text")
    name, bert = await service.bert(body.model)
    width = (bert.embedding and bert.embedding.dimensions) or bert.model.config.hidden_size
    if body.dimensions not in (None, width):
        raise InputError(f"dimensions: {body.dimensions}, the model has {width}. Try: leave it out")
    vectors = await service.ask(name, "embed", texts)
    counts = np.array(lengths(bert, texts))
    tokens = int(np.minimum(counts, limit := embedding_limit(bert)).sum())
    coded = body.encoding_format == "base64"
    rows = [base64.b64encode(v.astype("<f4").tobytes()).decode("ascii") if coded else v for v in vectors]
    return {
        "object": "list",
        "model": name,
        "data": [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "truncated": int((counts > limit).sum()),  # texts
    }


async def fill_mask(service: Service, body: FillMaskBody) -> Record:
    names = ("top_k", "method", "candidates", "beam", "max_pieces", "passes")
    options = {name: getattr(body, name) for name in names}
    return await _results(service, body.model, "fill", listed(body.texts), **options)


async def score(service: Service, body: ScoreBody) -> Record:
    answer = await _results(service, body.model, "score", listed(body.texts), method=body.method)
    answer["results"] = [
        {
            "text": each.text,
            "score": each.score,
            "pseudo_perplexity": each.pseudo_perplexity if each.log_probs else None,
            "tokens": [
                {"token": token, "start": start, "end": end, "log_prob": log_prob}
                for token, (start, end), log_prob in zip(each.tokens, each.offsets, each.log_probs, strict=True)
            ],
        }
        for each in answer["results"]
    ]
    return answer


async def classify(service: Service, body: ClassifyBody) -> Record:
    texts = listed(body.texts)
    seconds: list[str] | list[None] = [None] * len(texts) if body.pairs is None else listed(body.pairs)
    items = _paired(texts, seconds, "texts", "pairs")
    found = await _results(service, body.model, "classify", items)
    _, bert = await service.bert(body.model)
    return found | {"truncated": truncated_rows(bert, items)}


async def tag(service: Service, body: TagBody) -> Record:
    return await _results(service, body.model, "tag", listed(body.texts))


async def answer(service: Service, body: AnswerBody) -> Record:
    questions = listed(body.question)
    contexts = [body.context] * len(questions) if isinstance(body.context, str) else body.context
    items = _paired(questions, contexts, "questions", "contexts")
    options = {"top_k": body.top_k, "max_answer_tokens": body.max_answer_tokens}
    return await _results(service, body.model, "answer", items, **options)


async def similarity(service: Service, body: SimilarityBody) -> Record:
    items = _paired(listed(body.first), listed(body.second), "first texts", "second texts")
    return await _results(service, body.model, "similarity", items)


async def _results(service: Service, model: str | None, kind: str, items: list[Any], **options: Any) -> Record:
    name = service.models.name_of(model)
    return {"model": name, "results": await service.ask(name, kind, items, **options)}


def _paired(first: list[str], second: Any, one: str, other: str) -> list[tuple[str, Any]]:
    if len(first) != len(second):
        raise InputError(f"{len(first)} {one} and {len(second)} {other}. Try: the same number of each")
    return list(zip(first, second, strict=True))


@dataclass(frozen=True)
class Endpoint:
    """An address of the API."""

    path: str
    body: type[BaseModel]
    answer: Callable[[Service, Any], Awaitable[Record]]
    summary: str
    example: Record


ENDPOINTS = (
    Endpoint("/v1/embeddings", EmbeddingsBody, embeddings, "Vectors of texts, as OpenAI's clients ask for them",
             {"input": ["It rained all day.", "The cat sleeps."]}),
    Endpoint("/fill-mask", FillMaskBody, fill_mask, "Guesses for each [MASK]; for each text a list for each mask",
             {"texts": "She opened the [MASK].", "top_k": 3}),
    Endpoint("/score", ScoreBody, score, "How natural texts are: log-probabilities, token by token",
             {"texts": ["She opened the door.", "Door the opened she."]}),
    Endpoint("/classify", ClassifyBody, classify, "Classes of texts or pairs, or numbers (fine-tuned models)",
             {"texts": ["A fine day."]}),
    Endpoint("/tag", TagBody, tag, "Entities of texts (fine-tuned models)", {"texts": ["Ana lives in Paris."]}),
    Endpoint("/answer", AnswerBody, answer, "Answers found in a text; for each question a list (fine-tuned models)",
             {"question": "Who sleeps?", "context": "The cat sleeps."}),
    Endpoint("/similarity", SimilarityBody, similarity, "Similarity of pairs of texts",
             {"first": ["It rains."], "second": ["Rain falls."]}),
)  # fmt: skip


# ---- description ----
def openapi() -> Record:
    """The API as an OpenAPI 3.1 document."""
    _, schemas = models_json_schema(
        [(endpoint.body, "validation") for endpoint in ENDPOINTS], ref_template="#/components/schemas/{model}"
    )
    problem = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    refusals = {"401": "wrong or missing key", "404": "no such model", "413": "too much for one request",
                "422": "what a body lacks, in one line", "503": "the queue is full: see Retry-After"}  # fmt: skip
    answers = {code: {"description": text, "content": problem} for code, text in refusals.items()}
    paths: Record = {}
    for endpoint in ENDPOINTS:
        content = {"schema": {"$ref": f"#/components/schemas/{endpoint.body.__name__}"}, "example": endpoint.example}
        paths[endpoint.path] = {
            "post": {
                "summary": endpoint.summary,
                "operationId": endpoint.answer.__name__,
                "requestBody": {"required": True, "content": {"application/json": content}},
                "responses": {"200": {"description": "the answers, in the order of the texts"}, **answers},
            }
        }
    for path, summary in (("/v1/models", "Names of the models"), ("/health", "Whether the server answers"),
                          ("/metrics", "Counters in Prometheus' text format")):  # fmt: skip
        paths[path] = {"get": {"summary": summary, "responses": {"200": {"description": summary}}}}
    error = {"message": {"type": "string"}, "type": {"type": "string"}, "code": {"type": "integer"}}
    described = {"type": "object", "properties": {"error": {"type": "object", "properties": error}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "fastbert", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": schemas.get("$defs", {}) | {"Error": described},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def page(language: html_page.PageLanguage, words: dict[str, str], header: str, style: str, server: str) -> str:
    """The same for people, with a command to try for each path of the server's address."""
    sections = []
    for endpoint in ENDPOINTS:
        schema = endpoint.body.model_json_schema()
        fields = "".join(
            f"<tr><th><code>{escape(name)}</code></th><td>{escape(_type(about))}</td>"
            f"<td>{escape(words['required'] if name in schema.get('required', ()) else _default(about))}</td>"
            f"<td class=wide>{escape(about.get('description', ''))}</td></tr>"
            for name, about in schema["properties"].items()
        )
        shown = json.dumps(endpoint.example, ensure_ascii=False)
        sections.append(
            f"<section><h2><code>POST {escape(endpoint.path)}</code></h2><p>{escape(endpoint.summary)}</p>"
            f'<div class="scroll" tabindex=0><table class="fields">{fields}</table></div>'
            f'<p class="mono command">{escape(f"curl {server}{endpoint.path} --json {shown!r}")}</p></section>'
        )
    lead = f'<h1>{escape(words["api"])}</h1><p class="lead soft">{escape(words["api_text"])}</p>'
    body = f'{header}<main id="content" tabindex="-1">{lead}{"".join(sections)}</main>'
    return html_page.page(f"fastbert · {words['api']}", body, language=language, style=style)


def _type(about: Record) -> str:
    options = about.get("anyOf", [about])
    names = []
    for option in options:
        if "anyOf" in option:
            names.append(_type(option))
        elif "enum" in option:
            names.append(" | ".join(map(str, option["enum"])))
        elif option.get("type") == "array":
            names.append(f"[{_type(option['items'])}]")
        elif option.get("type") != "null":
            names.append(str(option.get("type", "")))
    return " | ".join(names)


def _default(about: Record) -> str:
    default = about.get("default")
    return "–" if default is None else str(default)
