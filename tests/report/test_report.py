"""python -m fastbert.report: one page about a run, right in its figures and looked at in a real browser."""

import json
import re

import numpy as np
import pytest

import fastbert
from fastbert.bert import Bert
from fastbert.report import ReportOptions, build, main, read_run
from fastbert.report.charts import Series, line_chart, log_ticks, thin, ticks
from fastbert.report.model_views import attention, tokenization, word_map
from fastbert.report.numbers import Numbers
from fastbert.report.wording import WORDS
from fastbert.system.errors import InputError

LINES = [
    f"{who} {does} {what} na {where} com alegria"
    for who in ("o gato", "a moça", "o velho", "a rainha")
    for does in ("compra", "vende", "procura", "esconde")
    for what in ("queijo", "um livro", "flores", "o relógio")
    for where in ("casa", "rua", "escola", "praça")
]
HOSTILE = "</script><script>window.broken=1</script><img src=http://example.com/x onerror=window.broken=1>"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run directory as training leaves it, with weights that were never trained: the page cannot tell."""
    import torch

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("report") / "run-a"
    path.mkdir()
    tokenizer = fastbert.Tokenizer.train(["\n".join(LINES)], vocab_size=120, min_frequency=1, lowercase=False)
    config = fastbert.BertConfig.preset("tiny", arch="modern", vocab_size=len(tokenizer))
    fastbert.BertForPreTraining(config).save_pretrained(path)
    tokenizer.save(path, token_type_ids=False)
    (path / "run.json").write_text(json.dumps(described()), encoding="utf-8")
    rows = []
    for step in range(10, 210, 10):
        seen = {"step": step, "tokens": 2000 * step}
        rows.append({"kind": "train", **seen, "loss": 8 - step / 100, "gradient_norm": 1 + 1 / step,
                     "learning_rate_factor": 1 - step / 200, "training_s": step / 10})  # fmt: skip
        if step % 50 == 0:
            loss = 7.5 - step / 100
            rows.append({"kind": "heldout", **seen, "loss": loss, "perplexity": np.exp(loss), "accuracy": step / 1000})
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def described():
    from dataclasses import asdict

    from fastbert.training.options import TrainOptions

    return {
        "command": ["python", "-m", "fastbert.train", "--title", HOSTILE],
        "options": asdict(TrainOptions(steps=200, mask_rate=0.2)),
        "versions": {"python": "3", "torch": "2"},
        "hardware": {"cpu": "a <fast> one", "threads": 2},
        "result": {"loss": 5.5, "perplexity": 244.692, "accuracy": 0.2, "masked_tokens": 900, "steps": 200},
        "probes": {
            "by_frequency": [{"name": "1–100", "tokens": 50, "accuracy": 0.25, "loss": 4.0}],
            "by_part": [{"name": "whole", "tokens": 40, "accuracy": 0.3, "loss": 3.5}],
            "pairs": [{"name": "two words exchanged", "pairs": 40, "preferred": 0.75}],
        },
        "examples": [
            {"text": "o velho [MASK] na casa", "word": "esconde", "guesses": [["esconde", 0.5], ["vende", 0.25]]},
            {"text": f"a [MASK] {HOSTILE}", "word": "moça", "guesses": [["rua", 0.5]]},
        ],
    }


def other_run(run, tmp_path, **changes):
    """The same run under another name, with other options and figures."""
    path = tmp_path / "run-b"
    path.mkdir()
    description = json.loads((run / "run.json").read_text(encoding="utf-8"))
    description["options"] |= changes
    description["result"] |= {"perplexity": 120.0}
    (path / "run.json").write_text(json.dumps(description), encoding="utf-8")
    (path / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text())
    return path


# ---- what it says ----
def test_the_command_writes_one_page(run, tmp_path, capsys):
    assert main(ReportOptions(runs=[str(run)])) == 0
    html = (run / "report.html").read_text(encoding="utf-8")
    assert "report.html" in capsys.readouterr().out and not list(run.glob(".report*"))
    for name in ("curves", "knows", "guesses", "pieces", "attention", "map", "machine"):
        assert f'<section id="{name}">' in html and WORDS["en"][name] in html
    for figure in ("245", "20.0%", "5.500", "400 k"):
        assert figure in html
    assert "25.0%" in html and "75% of 40" in html and "a &lt;fast&gt; one" in html
    assert re.search(r"class=strong><dt>--mask-rate</dt><dd>0.2<", html)
    assert not re.search(r"class=strong><dt>--seed<", html)
    # the only address of elsewhere is the name of SVG, which is never fetched
    assert set(re.findall(r"(?:src|href)=[\"']?([^\"' >]*)", html.replace(page_escaped(HOSTILE), ""))) == {"data:,"}


def page_escaped(text):
    from fastbert.system.html_page import escape

    return escape(text)


def test_portuguese_has_every_word_and_its_own_numbers(run, tmp_path):
    assert WORDS["en"].keys() == WORDS["pt"].keys()
    for name, text in WORDS["en"].items():
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", WORDS["pt"][name])), name
    output = tmp_path / "r.html"
    assert main(ReportOptions(runs=[str(run)], output=str(output), language="pt", text="a rainha vende flores")) == 0
    html = output.read_text(encoding="utf-8")
    assert '<html lang="pt-BR">' in html and WORDS["pt"]["attention"] in html and "5,500" in html and "20,0%" in html
    assert "<b>rainha</b>" in html


def test_several_runs_are_compared(run, tmp_path):
    second = other_run(run, tmp_path, batch_tokens=4096)
    html = build([read_run(run), read_run(second)], None)
    assert '<section id="compare">' in html and "<th>--batch-tokens</th>" in html and "<td>4096</td>" in html
    assert "<td>245</td>" in html and "<td>120</td>" in html and "<th>--seed</th>" not in html
    assert html.count('class="legend"') == 1 and "--s2" in html


def test_a_run_that_has_not_finished(run, tmp_path, capsys):
    path = other_run(run, tmp_path)
    description = json.loads((path / "run.json").read_text(encoding="utf-8"))
    for name in ("result", "probes", "examples"):
        del description[name]
    (path / "run.json").write_text(json.dumps(description), encoding="utf-8")
    (path / "metrics.jsonl").unlink()
    assert main(ReportOptions(runs=[str(path)])) == 0
    html = (path / "report.html").read_text(encoding="utf-8")
    assert WORDS["en"]["unfinished"] in html and WORDS["en"]["no_curves"] in html and "could not be read" in html
    assert "note: " in capsys.readouterr().err


def test_bad_runs_are_refused(run, tmp_path):
    (tmp_path / "empty").mkdir()
    damaged = other_run(run, tmp_path)
    (damaged / "metrics.jsonl").write_text('{"kind": "train"\n')
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "run.json").write_text("{")
    for path, expected in (
        (tmp_path / "nowhere", "no such directory"),
        (tmp_path / "empty", r"run\.json: missing"),
        (broken, r"run\.json: is damaged"),
        (damaged, r"metrics\.jsonl, line 1: is damaged"),
    ):
        with pytest.raises(InputError, match=expected):
            main(ReportOptions(runs=[str(path)]))
        assert not (path / "report.html").exists()
    with pytest.raises(InputError, match="is a directory"):
        main(ReportOptions(runs=[str(run)], output=str(tmp_path)))
    with pytest.raises(InputError, match="--text"):
        main(ReportOptions(runs=[str(run)], text=" "))


# ---- what it shows of the model ----
def test_tokens_attention_and_map_are_the_models(run):
    bert = fastbert.load(run)
    text = "o gato compra queijo na rua"
    pieces = tokenization(bert, text)
    assert [p.id for p in pieces] == list(bert.tokenizer.encode(text).ids)
    assert [p.special for p in pieces] == [True, *[False] * (len(pieces) - 2), True]
    import base64

    maps = attention(bert, text)
    tokens, weights = bert.attention(text)
    stored = np.frombuffer(base64.b64decode(maps["weights"]), np.uint8).reshape(weights.shape) / 255
    assert maps["tokens"] == list(tokens) and np.abs(stored - weights).max() <= 0.5 / 255 + 1e-6
    cut = attention(bert, " ".join(LINES[:20]))
    assert 30 < len(cut["tokens"]) <= 40
    found = word_map(bert, run)
    table = bert.model.embeddings.word.weight.detach().numpy()
    vectors = np.stack([table[bert.tokenizer.encode(w, add_special_tokens=False).ids[0]] for w in found.words])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    centred = unit - unit.mean(axis=0)
    # no other plane holds more of the variance
    eigenvalues = np.linalg.eigvalsh(centred.T @ centred)[::-1]
    assert (found.positions**2).sum() == pytest.approx(eigenvalues[:2].sum(), rel=1e-4)
    assert found.explained == pytest.approx(eigenvalues[:2].sum() / eigenvalues.sum(), rel=1e-4)


def test_charts():
    assert ticks(0, 10, 4) == [0, 2.5, 5, 7.5, 10] and ticks(3.1, 3.9, 4) == [3.2, 3.4, 3.6, 3.8]
    points = [(float(i), float(i)) for i in range(10_000)]
    assert len(thin(points)) <= 401 and thin(points)[-1] == points[-1]
    assert line_chart("t", [Series("a", [])], format_y=str) == ""
    for points in ([(0.0, 1.0), (1.0, 1.0)], [(0.0, 5.0)], [(1.0, 1e-9), (2.0, 1e9)]):
        svg = line_chart("t <b>", [Series("a", points, dots=True)], format_y=lambda v: f"{v:g}")
        assert "nan" not in svg and "inf" not in svg and "t &lt;b&gt;" in svg
    assert [round(10**t, 6) for t in log_ticks(2.69, 3.04)] == [500, 600, 700, 800, 900, 1000]
    assert [round(10**t) for t in log_ticks(0.5, 3.2)] == [10, 100, 1000]
    skipped = line_chart("t", [Series("a", [(0, 0.0), (1, 10.0), (2, 100.0)])], format_y=str, logarithmic=True)
    assert skipped.count("L") == 1  # 0 has no logarithm


def test_numbers():
    english, portuguese = Numbers("en"), Numbers("pt")
    assert [english.big(n) for n in (999, 1000, 408_619, 1_500_000, 3.2e9)] == ["999", "1 k", "409 k", "1.5 M", "3.2 G"]
    assert [english.short(n) for n in (3.14159, 54.13, 1035.4)] == ["3.14", "54.1", "1,035"]
    assert portuguese.short(1035.4) == "1.035" and portuguese.share(0.327) == "32,7%"
    assert english.clock(3725) == "1:02:05" and english.clock(65) == "1:05" and english.clock(None) == ""


# ---- in a browser ----
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 900), (380, 800)], ids=["wide", "narrow"])
def test_the_page_in_a_browser(run, tmp_path, open_page, size, scheme):
    """No complaint, no request, nothing wider than the window, text that stands out from its ground."""
    bert = fastbert.load(run)
    assert isinstance(bert, Bert)
    path = tmp_path / "report.html"
    path.write_text(build([read_run(run)], bert, text=f"o gato {HOSTILE}"), encoding="utf-8")
    opened = open_page(path, size=size, scheme=scheme)
    page = opened.page
    page.screenshot(path=tmp_path / "report.png", full_page=True)
    assert (tmp_path / "report.png").stat().st_size > 50_000
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert page.evaluate("window.broken") is None
    assert page.locator("figure.chart svg:visible").count() == 6
    assert page.locator("svg.map:visible").count() == 1
    assert page.locator("#overview canvas").count() == 4
    # the selected head is drawn, and says what it looks at
    page.locator("#overview button").first.click()
    assert page.inner_text("#which") == "Layer 1 · Head 1"
    cell = page.locator("#matrix rect.cell").first
    cell.scroll_into_view_if_needed()
    cell.hover()
    assert re.fullmatch(r"“.+” gives “.+” \d+% of its attention\.", page.inner_text("#reading"))
    assert contrast(page, "body", "p.lead") > 4.5 and contrast(page, "body", "h1") > 7
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith("data:")] == []


def contrast(page, ground, text):
    """WCAG's ratio of an element's colour and a ground."""
    script = "([s, p]) => getComputedStyle(document.querySelector(s))[p]"
    colours = [page.evaluate(script, [ground, "backgroundColor"]), page.evaluate(script, [text, "color"])]

    def luminance(colour):
        parts = [int(n) / 255 for n in re.findall(r"\d+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted(map(luminance, colours))
    return (high + 0.05) / (low + 0.05)
