"""The report, section by section."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import MISSING, fields
from functools import partial
from typing import TYPE_CHECKING, Any

from fastbert import __version__
from fastbert.report.charts import COLOURS, Series, bars, line_chart
from fastbert.report.drawings import map_drawing, token_boxes
from fastbert.report.numbers import Numbers
from fastbert.report.runs import RunRecord
from fastbert.report.wording import WORDS
from fastbert.system import html_page
from fastbert.system.html_page import escape
from fastbert.system.option_checks import flag
from fastbert.text.detokenize import detokenize
from fastbert.training.options import TrainOptions

if TYPE_CHECKING:
    from fastbert.bert import Bert

DEFAULT_TEXTS = {"en": "The old man opened the door of the house and left without a word.",
                 "pt": "O velho abriu a porta da casa e saiu sem dizer palavra."}  # fmt: skip
UNRELATED_OPTIONS = ("output", "resume", "stop_after")  # that do not affect what was trained


def build(
    runs: Sequence[RunRecord],
    bert: "Bert | None",
    *,
    language: html_page.PageLanguage = "en",
    text: str | None = None,
    problem: str = "",
) -> str:
    """The page as HTML.

    Args:
        runs: one or more; the sections about the model show the first.
        bert: the first run's model; None omits those sections.
        language: of titles and labels.
        text: for the tokens and the attention; default: an example of the run, or a sentence.
        problem: why there is no model.
    """
    return _Report(runs, bert, language, text, problem).html()


def live_sections(runs: Sequence[RunRecord], language: html_page.PageLanguage) -> str:
    """The sections about figures, curves and filled masks, for a page that shows runs as they go on."""
    report = _Report(runs, None, language, None, "")
    several = len(runs) > 1
    sections = [report.key_figures(), report.comparison() if several else "", report.curves()]
    sections += [report.probes(), report.examples()]
    return "\n".join(filter(None, sections))


def attention_frame(words: dict[str, str]) -> str:
    """What the page's script draws attention maps into."""
    return (
        f'<div class="attention"><div id="overview" role="group" aria-label="{escape(words["attention"])}"></div>'
        f'<div id="detail"><p id="which"></p><div id="matrix"></div>'
        '<p id="reading" class="soft small" aria-live="polite"></p></div></div>'
    )


def attention_data(maps: dict[str, Any], language: html_page.PageLanguage) -> str:
    """What it draws, as a data block; ``maps`` as :func:`.model_views.attention` gives them."""
    words = {name: WORDS[language][name] for name in ("looks_at", "layer", "head", "average")}
    return html_page.data_block("maps", maps | {"words": words, "language": html_page.LANGUAGE_TAGS[language]})


class _Report:
    def __init__(
        self,
        runs: Sequence[RunRecord],
        bert: "Bert | None",
        language: html_page.PageLanguage,
        text: str | None,
        problem: str,
    ):
        self.runs, self.bert, self.language, self.problem = list(runs), bert, language, problem
        self.first = self.runs[0]
        self.words = WORDS[language]
        self.numbers = Numbers(language)
        self.text = text or self._example_text()

    def html(self) -> str:
        several = len(self.runs) > 1
        title = self.words["title"].format(names=", ".join(run.name for run in self.runs))
        sections = [self.key_figures(), self.comparison() if several else "", self.curves(), self.probes()]
        sections += [self.examples()]
        data = ""
        if self.bert is not None:
            from fastbert.report.model_views import attention

            maps = attention(self.bert, self.text)
            sections += [self.tokens(), self.section("attention", attention_frame(self.words)), self.embedding_map()]
            data = attention_data(maps, self.language)
        elif self.problem:
            sections.append(f'<p class="soft">{escape(self.words["no_model"].format(reason=self.problem))}</p>')
        sections.append(self.machine())
        lead = self.words["lead_several" if several else "lead"]
        body = (
            f'<header class="top"><h1>{escape(title)}</h1><p class="lead soft">{escape(lead)}</p></header>\n<main>\n'
            + "\n".join(filter(None, sections))
            + f'\n<footer class="soft small">{escape(self.words["made"].format(version=__version__))}</footer>\n</main>'
        )
        return html_page.page(
            title,
            body + data,
            language=self.language,
            style=html_page.asset("fastbert.report", "report.css"),
            script=html_page.asset("fastbert.report", "report.js") if data else "",
        )

    def _example_text(self) -> str:
        """The first example without its mask: a sentence that the model has not seen."""
        for example in self.first.description.get("examples") or []:
            if isinstance(example, dict) and isinstance(example.get("text"), str):
                return detokenize(example["text"].replace("[MASK]", str(example.get("word", "")), 1))
        data = self.first.options.get("data") or []
        return DEFAULT_TEXTS[
            "en" if "bundled:en" in data or (self.language == "en" and "bundled:pt" not in data) else "pt"
        ]

    def section(self, name: str, content: str, **values: Any) -> str:
        """A titled section; its text is ``words["<name>_text"]``."""
        if not content:
            return ""
        template = self.words.get(f"{name}_text", "")
        if len(self.runs) > 1:
            template = self.words.get(f"{name}_several_text", template)
        text = escape(template.format(**values))
        of = f' <span class="soft">{escape(self.first.name)}</span>' if len(self.runs) > 1 and name in OF_FIRST else ""
        return (
            f'<section id="{name}"><h2>{escape(self.words[name])}{of}</h2>'
            f"{f'<p class=soft>{text}</p>' if text else ''}{content}</section>"
        )

    # ---- figures ----
    def key_figures(self) -> str:
        run, numbers = self.first, self.numbers
        if len(self.runs) > 1:
            return ""
        result = run.result
        shown = [
            ("perplexity", numbers.short(result.get("perplexity"))),
            ("accuracy", numbers.share(result.get("accuracy"))),
            ("loss", numbers.plain(result.get("loss"), 3)),
            ("tokens_seen", numbers.big(run.tokens)),
            ("time", numbers.clock(run.training_s)),
            ("parameters", numbers.big(self._parameters())),
        ]
        cells = "".join(f"<div><dt>{escape(self.words[n])}</dt><dd>{escape(v)}</dd></div>" for n, v in shown if v)
        unfinished = "" if result else f'<p class="soft">{escape(self.words["unfinished"])}</p>'
        return f'<dl class="key">{cells}</dl>{unfinished}'

    def _parameters(self) -> int | None:
        return sum(p.numel() for p in self.bert.model.parameters()) if self.bert is not None else None

    def curves(self) -> str:
        numbers, words = self.numbers, self.words
        several = len(self.runs) > 1

        def lines(points: Callable[[RunRecord], list], dots: bool = False) -> list[Series]:
            return [Series(run.name, points(run), i, dots=dots) for i, run in enumerate(self.runs)]

        loss = lines(lambda r: r.points(r.heldout, "loss"), dots=True)
        # the training loss of several runs would be hard to read
        pale = [] if several else [Series(words["training"], self.first.smoothed_loss(), 0, faint=True)]
        charts: list[tuple[str, str, list[Series], dict[str, Any]]] = [
            ("loss", words["loss_note"], pale + loss, {"format_y": lambda v: numbers.plain(v, 2)}),
            ("perplexity", "", lines(lambda r: r.points(r.heldout, "perplexity"), dots=True),
             {"format_y": numbers.short, "logarithmic": True}),
            ("accuracy", "", lines(lambda r: r.points(r.heldout, "accuracy"), dots=True),
             {"format_y": numbers.share, "from_zero": True}),
            ("next_sentence", "", lines(lambda r: r.points(r.heldout, "next_sentence_accuracy"), dots=True),
             {"format_y": numbers.share, "from_zero": True}),
            ("throughput", words["throughput_note"], lines(RunRecord.throughput),
             {"format_y": numbers.big, "from_zero": True}),
            ("learning_rate", words["learning_rate_note"], lines(lambda r: r.points(r.train, "learning_rate_factor")),
             {"format_y": numbers.percent, "from_zero": True}),
            ("gradient", "", lines(lambda r: r.points(r.train, "gradient_norm")),
             {"format_y": lambda v: numbers.plain(v, 2), "from_zero": True}),
        ]  # fmt: skip
        drawn = "".join(
            line_chart(words[name], series, format_x=numbers.general, note=note, **how)
            for name, note, series, how in charts
        )
        if not drawn:
            return (
                f'<section id="curves"><h2>{escape(words["curves"])}</h2><p>{escape(words["no_curves"])}</p></section>'
            )
        return self.section("curves", f'{self.legend()}<div class="charts">{drawn}</div>')

    def legend(self) -> str:
        if len(self.runs) < 2:
            return ""
        items = "".join(
            f'<li><i style="background:var(--s{i % COLOURS + 1})"></i>{escape(run.name)}</li>'
            for i, run in enumerate(self.runs)
        )
        return f'<ul class="legend">{items}</ul>'

    def probes(self) -> str:
        found = self.first.description.get("probes") or {}
        numbers, words = self.numbers, self.words
        groups = []
        for name in ("by_frequency", "by_part"):
            rows = [(words.get(b["name"], numbers.ranks(b["name"])), b["accuracy"], numbers.share(b["accuracy"]))
                    for b in found.get(name) or []]  # fmt: skip
            if rows:
                groups.append(f"<div><h3>{escape(words[name])}</h3>{bars(rows)}</div>")
        rows = []
        for pair in found.get("pairs") or []:
            shown = f"{numbers.percent(pair['preferred'])} {words['of']} {pair['pairs']}"
            rows.append((words.get(pair["name"], pair["name"]), pair["preferred"], shown))
        if rows:
            groups.append(f"<div><h3>{escape(words['pairs'])}</h3>{bars(rows, chance=0.5)}</div>")
        return self.section("knows", f'<div class="probes">{"".join(groups)}</div>' if groups else "")

    def examples(self) -> str:
        rows = []
        for example in self.first.description.get("examples") or []:
            guesses = [(str(token), float(share)) for token, share in example["guesses"]]
            right = bool(guesses) and guesses[0][0] == example["word"]
            # the masked word, highlighted
            before, _, after = detokenize(example["text"]).partition("[MASK]")
            word = f'<mark class="{"right" if right else "wrong"}">{escape(example["word"])}</mark>'
            predictions = bars([(token, share, self.numbers.percent(share)) for token, share in guesses])
            rows.append(f"<li><p>{escape(before)}{word}{escape(after)}</p>{predictions}</li>")
        return self.section("guesses", f'<ul class="guesses">{"".join(rows)}</ul>' if rows else "")

    # ---- the model ----
    def tokens(self) -> str:
        from fastbert.report.model_views import tokenization

        assert self.bert is not None
        return self.section("pieces", token_boxes(tokenization(self.bert, self.text), self.words["unknown"]))

    def embedding_map(self) -> str:
        from fastbert.report.model_views import word_map

        assert self.bert is not None
        found = word_map(self.bert, self.first.path)
        if found is None:
            return ""
        drawn = map_drawing(found, wide=True) + map_drawing(found, wide=False)
        return self.section("map", drawn, count=len(found.words), share=self.numbers.percent(found.explained))

    # ---- settings ----
    def comparison(self) -> str:
        numbers, words = self.numbers, self.words
        columns: list[tuple[str, Callable[[RunRecord], str]]] = [
            (words["perplexity"], lambda r: numbers.short(r.result.get("perplexity"))),
            (words["accuracy"], lambda r: numbers.share(r.result.get("accuracy"))),
            (words["loss"], lambda r: numbers.plain(r.result.get("loss"), 3)),
            (words["steps"], lambda r: numbers.whole(r.result.get("steps"))),
            (words["tokens_seen"], lambda r: numbers.big(r.tokens)),
            (words["time"], lambda r: numbers.clock(r.training_s)),
        ]
        names = dict.fromkeys(name for run in self.runs for name in run.options)
        for name in names:
            values = [run.options.get(name) for run in self.runs]
            if name not in UNRELATED_OPTIONS and any(value != values[0] for value in values):
                columns.append((flag(name), partial(_setting, name)))
        head = "".join(f"<th>{escape(title)}</th>" for title, _ in columns)
        rows = "".join(
            f'<tr><th><i style="background:var(--s{i % COLOURS + 1})"></i>{escape(run.name)}</th>'
            + "".join(f"<td>{escape(value(run) or '–')}</td>" for _, value in columns)
            + "</tr>"
            for i, run in enumerate(self.runs)
        )
        table = f"<table><tr><th>{escape(words['run'])}</th>{head}</tr>{rows}</table>"
        return self.section("compare", f'<div class="scroll" tabindex="0">{table}</div>')

    def machine(self) -> str:
        words, description = self.words, self.first.description
        versions = dict(description.get("versions") or {})
        for name, key in (("started", "started"), ("commit", "git_commit")):
            if description.get(key):
                versions[words[name]] = description[key]
        groups = {
            words["hardware"]: description.get("hardware") or {},
            words["versions"]: versions,
            words["architecture"]: description.get("model") or {},
        }
        blocks = "".join(
            f"<div><h3>{escape(name)}</h3>{_pairs(values)}</div>" for name, values in groups.items() if values
        )
        settings = {flag(name): value for name, value in self.first.options.items()}
        given = description.get("options") or {}
        strong = {flag(name) for name, value in given.items() if _given(name, value)}
        command = " ".join(map(str, description.get("command") or []))
        shown = f'<p class="mono command">{escape(command)}</p>' if command else ""
        return self.section(
            "machine",
            f'{shown}<div class="settings">{blocks}</div><h3>{escape(words["settings"])}</h3>'
            f'<p class="soft small">{escape(words["settings_text"])}</p>'
            f'<div class="many">{_pairs(settings, strong)}</div>',
        )


OF_FIRST = ("knows", "guesses", "pieces", "attention", "map", "machine")


def _pairs(values: dict[str, Any], strong: Collection[str] = ()) -> str:
    parts = []
    for name, value in values.items():
        kind = " class=strong" if name in strong else ""
        parts.append(f"<div{kind}><dt>{escape(name)}</dt><dd>{escape(_shown(value))}</dd></div>")
    return f'<dl class="pairs">{"".join(parts)}</dl>'


def _setting(name: str, run: RunRecord) -> str:
    return _shown(run.options.get(name))


def _shown(value: Any) -> str:
    if value is None or value is False:
        return "–"
    if value is True:
        return "✓"
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _given(name: str, value: Any) -> bool:
    """Whether an option differs from its default."""
    for option in fields(TrainOptions):
        if option.name == name and name not in UNRELATED_OPTIONS:
            default = option.default_factory() if option.default_factory is not MISSING else option.default
            return value != default
    return False
