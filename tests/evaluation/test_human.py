"""fastbert.evaluation.human and `evaluate human`: a blind sheet that works in a browser; figures that are the
ratings'."""

import csv
import io
import json
import math
import random
from html.parser import HTMLParser

import numpy as np
import pytest

from fastbert.evaluate import main
from fastbert.evaluation.human import CRITERIA, Rating, make_sheet, read_answers, read_key, summarize
from fastbert.evaluation.human_answers import Key
from fastbert.evaluation.human_wording import WORDS
from fastbert.system.errors import InputError

HOSTILE = "</script><script>window.broken=1</script><img src=http://example.com/x onerror=window.broken=1> & \"'"
SYSTEMS = {
    "alpha": ["um gato dorme", "dois gatos comem", HOSTILE, "=2+2"],
    "beta": ["um cão dorme", "dois cães comem", "três cães latem", "quatro cães"],
}
SOURCES = ["gato?", "gatos?", HOSTILE, "quatro?"]


def answers_of(sheet, rater, value):
    """A file as the page saves it; ``value`` of (item, criterion)."""
    given = {i.id: {c: value(i, c) for c in sheet.criteria} for i in sheet.items}
    return {"format": "fastbert answers 1", "sheet": sheet.id, "rater": rater, "answers": given}


@pytest.fixture
def sheet(tmp_path):
    made = make_sheet(SYSTEMS, SOURCES, language="pt", title="Notas <b>", seed=3)
    made.write(tmp_path / "sheet")
    return made


# ---- the sheet ----
def test_the_sheet_is_blind_shuffled_and_whole(sheet, tmp_path):
    texts = [item.text for item in sheet.items]
    assert sorted(texts) == sorted(SYSTEMS["alpha"] + SYSTEMS["beta"])
    assert [item.system for item in sheet.items] != ["alpha", "beta"] * 4
    for item in sheet.items:
        assert SYSTEMS[item.system][item.input] == item.text and SOURCES[item.input] == item.source
    assert len({item.id for item in sheet.items}) == 8
    for name in ("sheet.html", "sheet.csv"):
        shown = (tmp_path / "sheet" / name).read_text(encoding="utf-8")
        assert "alpha" not in shown and "beta" not in shown
    key = read_key(tmp_path / "sheet")
    assert key.items == {item.id: (item.system, item.input) for item in sheet.items}
    again, other = make_sheet(SYSTEMS, SOURCES, seed=3), make_sheet(SYSTEMS, SOURCES, seed=4)
    assert [i.id for i in again.items] == [i.id for i in sheet.items]
    assert again.id == sheet.id != other.id and [i.text for i in other.items] != texts


def test_a_sample_takes_all_systems_of_its_inputs():
    made = make_sheet(SYSTEMS, sample=2)
    inputs = {item.input for item in made.items}
    assert len(inputs) == 2 and len(made.items) == 4
    assert {(i.system, i.input) for i in made.items} == {(s, n) for s in SYSTEMS for n in inputs}


def test_the_html_is_escaped_and_asks_the_network_for_nothing(sheet, tmp_path):
    text = (tmp_path / "sheet" / "sheet.html").read_text(encoding="utf-8")

    tags = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            tags.append((tag, dict(attributes)))

    Reader().feed(text)
    assert [a.get("type") for t, a in tags if t == "script"] == ["application/json", None]
    assert not any(a.get("src") or a.get("href", "data:,") != "data:," for _, a in tags)
    assert "<title>Notas &lt;b&gt;</title>" in text and "default-src 'none'" in text


def test_the_csv_is_for_a_spreadsheet(sheet, tmp_path):
    data = (tmp_path / "sheet" / "sheet.csv").read_text(encoding="utf-8")
    assert data.startswith("\ufeff")
    rows = list(csv.DictReader(io.StringIO(data[1:])))
    assert list(rows[0]) == ["sheet", "item", "source", "text", *CRITERIA, "comment"]
    assert [row["item"] for row in rows] == [item.id for item in sheet.items]
    assert "'=2+2" in [row["text"] for row in rows]


def test_bad_systems_are_refused(tmp_path, sheet):
    for arguments, options, expected in (
        (({},), {}, "no system"),
        (({"a": ["x"], "b": ["x", "y"]},), {}, "b has 2 texts and a 1"),
        (({"a": ["x"]}, ["x", "y"]), {}, "the inputs has 2 texts and a 1"),
        (({"a": []},), {}, "a has no text"),
        (({"a": ["x", " "]},), {}, "text 2 of a is empty"),
        (({"a": ["x"]},), {"criteria": ["fluency", "fluency"]}, "each once"),
        (({"a": ["x"]},), {"criteria": ["item"]}, "criterion 'item'"),
        (({"a": ["x"]},), {"points": 10}, "points=10"),
        (({"a": ["x"]},), {"sample": 2}, "sample=2"),
    ):
        with pytest.raises(InputError, match=expected):
            make_sheet(*arguments, **options)
    with pytest.raises(InputError, match=r"key\.json: exists"):
        sheet.write(tmp_path / "sheet")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="below"):
        sheet.write(tmp_path / "file" / "below")


# ---- in a browser ----
def test_a_rater_with_a_keyboard(sheet, tmp_path, open_page):
    """Rates everything with keys, survives a reload, saves a file, and the file is scored."""
    opened = open_page(tmp_path / "sheet" / "sheet.html")
    page = opened.page
    assert page.inner_text("h1") == "Notas <b>"
    page.keyboard.press("3")
    page.click("#save")
    assert WORDS["pt"]["need_name"] in page.inner_text("#message")
    page.fill("#name", "Ana")
    page.click("#text")
    expected = {}
    for number, item in enumerate(sheet.items):
        assert page.inner_text("#text") == item.text and page.inner_text("#source") == item.source
        if number == 0:  # one criterion is rated already
            keys = ["4", "5", "1"]
            expected[item.id] = dict(zip(CRITERIA, [3, 4, 5, 1], strict=True))
        else:
            keys = [str(1 + (number + n) % 5) for n in range(4)]
            expected[item.id] = dict(zip(CRITERIA, map(int, keys), strict=True))
        for key in keys:
            page.keyboard.press(key)
        if number == 4:
            page.reload()
            assert page.inner_text("#text") == item.text and "5 de 8" in page.inner_text("#rated")
        page.keyboard.press("Enter")
    page.fill("#comment", "bom <i>")
    expected[sheet.items[-1].id]["comment"] = "bom <i>"
    assert WORDS["pt"]["finished"] in page.inner_text("#message")
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(tmp_path / "ana.json")
    saved = json.loads((tmp_path / "ana.json").read_text(encoding="utf-8"))
    assert (saved["sheet"], saved["rater"], saved["answers"]) == (sheet.id, "Ana", expected)
    key = read_key(tmp_path / "sheet")
    assert len(read_answers([tmp_path / "ana.json"], key)) == 32
    assert page.evaluate("window.broken") is None
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith(("data:", "blob:"))] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 900), (380, 800)], ids=["wide", "narrow"])
def test_the_sheet_fits_the_window(sheet, tmp_path, open_page, size, scheme):
    opened = open_page(tmp_path / "sheet" / "sheet.html", size=size, scheme=scheme)
    page = opened.page
    page.screenshot(path=tmp_path / "sheet.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, ground.removeprefix("rgb(").removesuffix(")").split(","))) > 3 * 128
    assert light == (scheme == "light") and opened.complaints == []


def test_answers_can_be_loaded_again(sheet, tmp_path, open_page):
    (tmp_path / "ana.json").write_text(json.dumps(answers_of(sheet, "Ana", lambda i, c: 2)), encoding="utf-8")
    (tmp_path / "other.json").write_text('{"sheet": "another", "answers": {}}')
    page = open_page(tmp_path / "sheet" / "sheet.html").page
    page.set_input_files("#file", tmp_path / "other.json")
    page.get_by_text(WORDS["pt"]["other_sheet"]).wait_for()
    page.set_input_files("#file", tmp_path / "ana.json")
    page.get_by_text("8 de 8 avaliados").wait_for()
    assert page.input_value("#name") == "Ana" and page.is_checked("input[name=grammar][value='2']")


# ---- the answers ----
def test_commands_make_and_score(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    draw = random.Random(0)
    for name in ("alpha", "beta"):
        (tmp_path / f"{name}.txt").write_text("".join(f"texto {n} de alguém\n" for n in range(20)), encoding="utf-8")
    made = ["human", "make", "--system", "alpha=alpha.txt", "--system", "beta=beta.txt", "--output", "s"]
    assert main([*made, "--criteria", "fluency", "grammar"]) == 0
    key = read_key("s")
    for rater in ("ana", "bia"):
        given = {
            item: {"fluency": (4 if system == "alpha" else 2) + draw.randint(0, 1), "grammar": draw.randint(1, 5)}
            for item, (system, _) in key.items.items()
        }
        content = {"sheet": key.sheet, "rater": rater, "answers": given}
        (tmp_path / f"{rater}.json").write_text(json.dumps(content), encoding="utf-8")
    capsys.readouterr()
    assert main(["human", "score", "s", "ana.json", "bia.json", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["ratings"] == printed["expected_ratings"] == 2 * 40 * 2
    means = {(m["system"], m["criterion"]): m for m in printed["means"]}
    assert means["alpha", "fluency"]["mean"] > 4 > 3 > means["beta", "fluency"]["mean"]
    verdicts = {d["criterion"]: d["significant"] for d in printed["differences"]}
    assert verdicts["fluency"] and not verdicts["grammar"]
    alphas = {a["criterion"]: a["alpha"] for a in printed["agreements"]}
    assert alphas["fluency"] > 0.6 > 0.4 > abs(alphas["grammar"])
    assert main(["human", "score", "s", "ana.json", "bia.json"]) == 0
    shown = capsys.readouterr().out
    assert "alpha − beta" in shown and "Krippendorff" in shown and "95% intervals" in shown
    assert main(["human", "score", "s", "ana.json", "ana.json"]) == 2
    assert "rater 'ana' has answers in ana.json too" in capsys.readouterr().err


def test_csv_answers_of_a_spreadsheet(sheet, tmp_path):
    key = read_key(tmp_path / "sheet")
    for delimiter in ",;":
        rows = [["item", *CRITERIA], *([i.id, "4", "", "5", " 1 "] for i in sheet.items), ["", "", "", "", ""]]
        path = tmp_path / "bia.csv"
        path.write_text("\ufeff" + "\r\n".join(delimiter.join(row) for row in rows), encoding="utf-8")
        ratings = read_answers([path], key)
        assert len(ratings) == 24 and {r.rater for r in ratings} == {"bia"}
        assert {(r.criterion, r.value) for r in ratings} == {("relevance", 4), ("fluency", 5), ("grammar", 1)}


def test_bad_answers_name_file_and_place(sheet, tmp_path):
    key = read_key(tmp_path / "sheet")
    good, first = answers_of(sheet, "ana", lambda i, c: 3), sheet.items[0].id
    head = "item," + ",".join(CRITERIA)
    for name, content, expected in (
        ("a.json", "{", "a.json, line 1"),
        ("a.json", "[]", "holds no answers"),
        ("a.json", good | {"sheet": "x"}, "answers sheet x"),
        ("a.json", good | {"rater": " "}, "no rater's name"),
        ("a.json", good | {"answers": {"zz": {"fluency": 1}}}, "no item 'zz'"),
        ("a.json", good | {"answers": {first: {"beauty": 1}}}, f"item {first}: unknown criterion 'beauty'"),
        ("a.json", good | {"answers": {first: {"fluency": 6}}}, "fluency is 6"),
        ("a.json", good | {"answers": {first: {"fluency": True}}}, "fluency is True"),
        ("a.json", good | {"answers": {first: 3}}, f"item {first}: expected an object"),
        ("a.json", good | {"answers": {}}, "no ratings"),
        ("a.csv", f"item,fluency\n{first},1\n", "no column relevance, coherence, grammar"),
        ("a.csv", f"{head}\n{first},1,1,1,bom\n", "a.csv: line 2: grammar is 'bom'"),
        ("a.csv", f"{head}\nzz,1,1,1,1\n", "a.csv: line 2: the sheet has no item 'zz'"),
    ):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        with pytest.raises(InputError) as caught:
            read_answers([path], key)
        assert expected in str(caught.value), str(caught.value)
    with pytest.raises(InputError, match=r"nowhere\.json"):
        read_answers([tmp_path / "nowhere.json"], key)
    with pytest.raises(InputError, match=r"a\.json"):
        read_key(tmp_path / "a.json") if (tmp_path / "a.json").write_text("{}") else None


# ---- the figures ----
def table_of(values):
    """values[rater][system][input] → ratings of one criterion, and their key."""
    items = {f"{s}{n}": (s, n) for s in values[0] for n in range(len(values[0][s]))}
    ratings = [
        Rating(f"r{r}", f"{s}{n}", "fluency", value)
        for r, systems in enumerate(values)
        for s, column in systems.items()
        for n, value in enumerate(column)
        if value is not None
    ]
    return ratings, Key("key.json", "x", ("fluency",), 5, items)


def test_alpha_is_krippendorffs():
    """The ordinal example of Krippendorff (2011), Computing Krippendorff's Alpha-Reliability: 0.815."""
    published = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    ]
    summary = summarize(*table_of([{"s": row} for row in published]), resamples=10)
    assert summary.agreements[0].alpha == pytest.approx(0.815, abs=5e-4)


def test_alpha_that_does_not_exist_says_why():
    for values, reason in (
        ([{"s": [1, 2]}], "one rater"),
        ([{"s": [3, 3]}, {"s": [3, 3]}], "the same"),
        ([{"s": [1, None]}, {"s": [None, 2]}], "no text has two"),
    ):
        agreement = summarize(*table_of(values), resamples=10).agreements[0]
        assert math.isnan(agreement.alpha) and reason in agreement.reason


def test_means_and_intervals():
    random = np.random.default_rng(1)
    values = random.integers(1, 6, size=(3, 40))
    summary = summarize(*table_of([{"s": row.tolist()} for row in values]))
    (mean,) = summary.means
    assert mean.mean == pytest.approx(values.mean()) and mean.ratings == 120 and mean.inputs == 40
    # the bootstrap of a mean is near the normal interval
    half = 1.96 * values.mean(axis=0).std() / 40**0.5
    assert mean.low == pytest.approx(values.mean() - half, abs=0.04)
    assert mean.high == pytest.approx(values.mean() + half, abs=0.04)
    assert summarize(*table_of([{"s": row.tolist()} for row in values])).means == summary.means


def test_differences_are_exact_where_they_can_be_counted():
    """Five inputs, all differences 1: of 32 sign patterns 2 are as extreme."""
    ratings, key = table_of([{"a": [3, 4, 5, 3, 4], "b": [2, 3, 4, 2, 3]}])
    (difference,) = summarize(ratings, key).differences
    assert difference.difference == 1 and difference.p == pytest.approx(2 / 32, abs=0.01)
    assert not difference.significant and (difference.low, difference.high) == (1, 1)


def test_holm_corrects_for_several_pairs():
    column = [3, 4, 5, 3, 4, 3, 4, 5, 3, 4]
    ratings, key = table_of([{"a": column, "b": [v - 1 for v in column], "c": [v - 2 for v in column]}])
    differences = summarize(ratings, key).differences
    raw = 2 / 2**10
    assert len(differences) == 3 and all(d.significant for d in differences)
    assert max(d.p for d in differences) >= 2 * raw
    assert all(raw < d.p < 6 * raw + 0.01 for d in differences)


def test_a_half_rated_text_does_not_shift_the_overall_mean():
    items = {"a0": ("a", 0), "a1": ("a", 1)}
    key = Key("key.json", "x", ("fluency", "grammar"), 5, items)
    ratings = [Rating("r", "a0", "fluency", 5), Rating("r", "a0", "grammar", 3), Rating("r", "a1", "fluency", 1)]
    means = {m.criterion: (m.mean, m.inputs) for m in summarize(ratings, key, resamples=10).means}
    assert means == {"fluency": (3, 2), "grammar": (3, 1), "overall": (4, 1)}
