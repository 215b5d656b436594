"""What the page shows of an answer: pieces of HTML with the charts of the report.

Each view takes a body and gives HTML; texts come escaped.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastbert.report.build import attention_data, attention_frame
from fastbert.report.charts import bars
from fastbert.report.drawings import token_boxes
from fastbert.report.numbers import Numbers
from fastbert.serve.schemas import PlayBody
from fastbert.serve.service import Service
from fastbert.serve.wording import WORDS
from fastbert.system.errors import InputError
from fastbert.system.html_page import escape
from fastbert.text.detokenize import detokenize

if TYPE_CHECKING:
    from fastbert.inference.scoring import TextScore

SURPRISE = 9.0  # nats whose colour is the strongest
MOST_LABELS = 12

View = Callable[[Service, PlayBody], Awaitable[str]]


def tools(body: PlayBody) -> tuple[dict[str, str], Numbers]:
    return WORDS[body.language], Numbers(body.language)


async def mask_of(service: Service, body: PlayBody) -> str:
    _, bert = await service.bert(body.model)
    return bert.tokenizer.mask_token


async def fill(service: Service, body: PlayBody) -> str:
    """Bars for each mask, or for the best joint fillings."""
    words, numbers = tools(body)
    mask = await mask_of(service, body)
    if mask not in body.texts[0]:
        raise InputError(words["no_mask"].format(mask=mask))
    candidates = [word.strip() for word in body.candidates.split(",") if word.strip()] or None
    options: dict[str, Any] = {"top_k": 6, "candidates": candidates, "beam": 16, "max_pieces": 1, "passes": 1}
    method = "beam" if body.joint else "independent"
    (found,) = await service.ask(body.model, "fill", body.texts[:1], method=method, **options)
    if body.joint:
        rows = [(" · ".join(f["token_strs"]), f["score"], numbers.share(f["score"])) for f in found]
        return f"<h3>{escape(words['together'])}</h3><p>{escape(found[0]['sequence'])}</p>{bars(rows)}"
    parts = []
    for number, guesses in enumerate(found, start=1):
        title = words["mask_number"].format(number=number) if len(found) > 1 else guesses[0]["sequence"]
        rows = [(str(g["token_str"]), g["score"], numbers.share(g["score"])) for g in guesses]
        parts.append(f"<div><h3>{escape(title)}</h3>{bars(rows)}</div>")
    return f'<div class="probes">{"".join(parts)}</div>'


def word_spans(scored: "TextScore") -> list[tuple[int, int, float]]:
    """(first character, end, log-probability) of the words of a text: tokens that nothing separates, letters only."""
    spans: list[tuple[int, int, float]] = []
    for (start, end), log_prob in zip(scored.offsets, scored.log_probs, strict=True):
        text = scored.text
        if spans and spans[-1][1] == start and text[start - 1].isalnum() and text[start].isalnum():
            spans[-1] = (spans[-1][0], end, spans[-1][2] + log_prob)
        else:
            spans.append((start, end, log_prob))
    return spans


async def natural(service: Service, body: PlayBody) -> str:
    """Each text with its words coloured by surprise."""
    words, numbers = tools(body)
    parts = []
    mask = await mask_of(service, body)
    if any(mask in text for text in body.texts):
        raise InputError(words["has_mask"].format(mask=mask))
    for scored in await service.ask(body.model, "score", body.texts, method="l2r"):
        if not scored.log_probs:
            parts.append(f"<p>{escape(words['nothing'])}</p>")
            continue
        shown, taken = [], 0
        for start, end, log_prob in word_spans(scored):
            share = min(1.0, -log_prob / SURPRISE)
            value = numbers.plain(log_prob, 1)
            shown.append(escape(scored.text[taken:start]))
            shown.append(
                f'<span class="word" style="--share:{share:.2f}" title="{value} {escape(words["nats"])}">'
                f"{escape(scored.text[start:end])}<i>{value}</i></span>"
            )
            taken = end
        shown.append(escape(scored.text[taken:]))
        total = words["total"].format(
            score=numbers.plain(scored.score, 1), perplexity=numbers.short(scored.pseudo_perplexity)
        )
        parts.append(f'<p class="words">{"".join(shown)}</p><p class="soft small">{escape(total)}</p>')
    return "".join(parts)


async def similar(service: Service, body: PlayBody) -> str:
    """A table of cosines."""
    _, numbers = tools(body)
    vectors = np.stack(await service.ask(body.model, "embed", body.texts))
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    cosines = unit @ unit.T
    head = "".join(f"<th scope=col>{number}</th>" for number in range(1, len(body.texts) + 1))
    rows = "".join(
        f"<tr><th scope=row>{number}. {escape(text)}</th>"
        + "".join(f'<td style="--share:{max(0.0, float(c)):.2f}">{numbers.plain(float(c), 2)}</td>' for c in row)
        + "</tr>"
        for number, (text, row) in enumerate(zip(body.texts, cosines, strict=True), start=1)
    )
    return f'<div class="scroll" tabindex=0><table class="cosines"><tr><td></td>{head}</tr>{rows}</table></div>'


async def attention(service: Service, body: PlayBody) -> str:
    """Tokens, and the frame and data of the report's attention maps."""
    from fastbert.report.model_views import MAX_ATTENTION_TOKENS, shortened, tokenization

    words, _ = tools(body)
    _, bert = await service.bert(body.model)
    (maps,) = await service.ask(body.model, "attention", body.texts[:1])
    boxes = token_boxes(tokenization(bert, shortened(bert, body.texts[0], MAX_ATTENTION_TOKENS)), words["unknown"])
    return boxes + attention_frame(words) + attention_data(maps, body.language)


async def generate(service: Service, body: PlayBody) -> str:
    options = {"length": body.length, "seed": body.seed}
    (text,) = await service.ask(body.model, "generate", body.texts[:1], **options)
    return f'<p class="written">{escape(detokenize(text))}</p>'


async def classify(service: Service, body: PlayBody) -> str:
    """Bars of the labels, or numbers."""
    words, numbers = tools(body)
    items = [(body.texts[0], body.second)] if body.second else [(text, None) for text in body.texts]
    parts = []
    for (text, _), found in zip(items, await service.ask(body.model, "classify", items), strict=True):
        if isinstance(found, dict):
            ranked = sorted(found["scores"].items(), key=lambda item: -item[1])[:MOST_LABELS]
            drawn = bars([(label, share, numbers.share(share)) for label, share in ranked])
        else:
            drawn = f"<p>{escape(words['number'])}: <b>{numbers.plain(found, 3)}</b></p>"
        parts.append(f"<div><h3>{escape(text)}</h3>{drawn}</div>")
    return f'<div class="probes">{"".join(parts)}</div>'


def marked(text: str, spans: Sequence[tuple[int, int, str, int]]) -> str:
    """A text with (first character, end, label, colour) marked; what overlaps an earlier span is left out."""
    parts, taken = [], 0
    for start, end, label, colour in sorted(spans):
        if start < taken:
            continue
        parts.append(escape(text[taken:start]))
        small = f"<i>{escape(label)}</i>" if label else ""
        parts.append(f'<span class="span" style="--c:var(--s{colour % 6 + 1})">{escape(text[start:end])}{small}</span>')
        taken = end
    return f'<p class="words">{"".join(parts)}{escape(text[taken:])}</p>'


async def tag(service: Service, body: PlayBody) -> str:
    """Each text with its entities coloured by kind."""
    words, numbers = tools(body)
    found = await service.ask(body.model, "tag", body.texts)
    colours = {kind: i for i, kind in enumerate(dict.fromkeys(e["entity"] for each in found for e in each))}
    parts = []
    for text, entities in zip(body.texts, found, strict=True):
        spans = [
            (e["start"], e["end"], f"{e['entity']} {numbers.percent(e['score'])}", colours[e["entity"]])
            for e in entities
        ]
        none = "" if spans else f'<p class="soft small">{escape(words["no_entities"])}</p>'
        parts.append(marked(text, spans) + none)
    return "".join(parts)


async def answer(service: Service, body: PlayBody) -> str:
    """The best answers, and the text with the first one marked."""
    words, numbers = tools(body)
    if not body.second.strip():
        raise InputError(f"{words['context']}: is empty")
    items = [(body.texts[0], body.second)]
    (found,) = await service.ask(body.model, "answer", items, top_k=3, max_answer_tokens=None)
    rows = [(a["answer"] or words["no_answer"], a["score"], numbers.share(a["score"])) for a in found]
    best = found[0]
    spans = [(best["start"], best["end"], "", 0)] if best["answer"] else []
    return bars(rows) + marked(body.second, spans)


_VIEWS: dict[str, View] = {
    "fill": fill, "natural": natural, "similar": similar, "attention_play": attention, "generate": generate,
    "classify": classify, "tag": tag, "answer": answer,
}  # fmt: skip
VIEWS = {f"/play/{name}": view for name, view in _VIEWS.items()}
