"""The pages: what a view shows is what the library says, in both languages, and looked at in a real browser."""

import json
import re

import pytest

import fastbert
from fastbert.serve.wording import WORDS

HOSTILE = "<img src=x onerror=window.broken=1> o gato"


def view(client, name, status=200, **body):
    answer = client.post(f"/play/{name}", json=body)
    assert answer.status_code == status, answer.text
    return answer.text


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """Two runs in progress: one has evaluated, the other not."""
    folder = tmp_path_factory.mktemp("runs")
    for name, steps in (("001", 200), ("002", 400)):
        path = folder / name
        path.mkdir()
        (path / "run.json").write_text(json.dumps({"options": {"steps": steps, "seed": 0}}))
        rows = [
            {"kind": "train", "step": s, "tokens": 1000 * s, "loss": 8 - s / 100, "training_s": s / 10}
            for s in range(10, 110, 10)
        ]
        rows.append({"kind": "heldout", "step": 100, "tokens": 100_000, "loss": 7.25, "accuracy": 0.125})
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


# ---- views ----
def test_views_show_what_the_library_says(client, served_folder):
    bert = fastbert.load(served_folder / "plain", precision="fp32")
    best = bert.fill_mask("o [MASK] dorme", top_k=1)[0]
    html = view(client, "fill", texts=["o [MASK] dorme"])
    assert f"<dt>{best['token_str']}</dt>" in html and f"{best['score']:.1%}" in html
    joint = view(client, "fill", texts=["o [MASK] come [MASK]"], joint=True, candidates="gato, rei")
    assert set(re.findall(r"<dt>(.*?)</dt>", joint)) == {"gato · gato", "gato · rei", "rei · gato", "rei · rei"}
    scored = bert.score("o gato dorme", per_token=True)
    html = view(client, "natural", texts=["o gato dorme"], language="pt")
    shown = re.findall(r"<i>(.*?)</i>", html)
    assert shown == [f"{x:.1f}".replace(".", ",") for x in scored.log_probs]
    html = view(client, "similar", texts=["o gato", "a menina"])
    cosine = float((bert.embed("o gato") * bert.embed("a menina")).sum())
    assert html.count("<td style") == 4 and f">{cosine:.2f}</td>" in html
    maps = json.loads(re.search(r'id="maps">(.*?)</script>', view(client, "attention_play", texts=["o gato"]))[1])
    assert maps["tokens"] == ["[CLS]", "o", "gato", "[SEP]"] and maps["layers"] == 2
    assert "era uma" not in view(client, "generate", texts=["o gato"], length=3)
    written = [view(client, "generate", texts=["o gato"], length=6, seed=seed) for seed in (0, 0, 1)]
    assert written[0] == written[1] != written[2]


def test_views_of_fine_tuned_models(client, served_folder):
    classes = fastbert.load(served_folder / "classes").classify("o gato")
    html = view(client, "classify", texts=["o gato"], model="classes")
    assert re.findall(r"<dt>(.*?)</dt>", html) == sorted(classes["scores"], key=lambda k: -classes["scores"][k])
    assert "sim" in view(client, "classify", texts=["o gato"], second="a menina", model="pairs")
    entities = fastbert.load(served_folder / "tags").tag("o gato e a menina")
    html = view(client, "tag", texts=["o gato e a menina"], model="tags")
    assert html.count('class="span"') == len(entities)
    html = view(client, "answer", texts=["o gato"], second="a menina feliz come", model="answers")
    answers = fastbert.load(served_folder / "answers").answer("o gato", "a menina feliz come", top_k=3)
    assert html.count("<dt>") == len(answers)
    assert "contexto" not in view(client, "answer", 422, texts=["o gato"], model="answers")


def test_masks_are_asked_for_in_the_language_of_the_page(client):
    for language in ("en", "pt"):
        for name, text, key in (("fill", "o gato", "no_mask"), ("natural", "o [MASK]", "has_mask")):
            message = json.loads(view(client, name, 422, texts=[text], language=language))["error"]["message"]
            assert message == WORDS[language][key].format(mask="[MASK]")


def test_texts_are_escaped(client):
    for name in ("natural", "similar", "attention_play"):
        assert "<img" not in view(client, name, texts=[HOSTILE])
    assert "<img" not in view(client, "fill", texts=[f"{HOSTILE} [MASK]"])
    assert "<img" not in view(client, "tag", texts=[HOSTILE], model="tags")
    assert "<img" not in client.get("/", params={"model": HOSTILE}).text


def test_every_word_in_both_languages(client):
    assert WORDS["en"].keys() == WORDS["pt"].keys()
    for name, text in WORDS["en"].items():
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", WORDS["pt"][name])), name
    page = client.get("/", headers={"Accept-Language": "pt-BR,pt;q=0.9"}).text
    assert '<html lang="pt-BR">' in page and WORDS["pt"]["fill"] in page
    assert WORDS["en"]["fill"] in client.get("/?lang=en").text


def test_sections_follow_the_model(client):
    def sections(name):
        return re.findall(r'<section id="(\w+)">', client.get("/", params={"model": name}).text)

    assert sections("plain") == ["fill", "natural", "similar", "attention_play", "generate"]
    assert sections("tags") == ["tag", "similar", "attention_play"]


def test_pages_need_the_key_and_ask_for_it(make_client):
    client = make_client(api_key="segredo")
    page = client.get("/", headers={"Accept": "text/html"})
    assert page.status_code == 401 and "data-key" in page.text and "<section" not in page.text
    client.post("/key", json={"key": "segredo"})
    assert "<section" in client.get("/", headers={"Accept": "text/html"}).text


# ---- watch ----
def events_of(run_folder, query, count, between):
    """The first events of a stream, ``between(i)`` called after each; starlette's client would wait for its end."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    from starlette.requests import Request

    from fastbert.serve.app import make_app
    from fastbert.serve.models import Models, find
    from fastbert.serve.service import Service
    from fastbert.serve.watch import events

    async def main():
        app = make_app(Service(Models(find(run_folder), only_runs=True)))
        scope = {"type": "http", "query_string": query.encode(), "headers": [], "app": app, "method": "GET"}
        response = await events(Request(scope))
        found = []
        async for text in response.body_iterator:
            name, data = re.match(r"event: (\w+)\ndata: (.*)\n\n", text).groups()
            found.append((name, json.loads(data)))
            between(len(found))
            if len(found) == count:
                return found

    with ThreadPoolExecutor(1) as thread:  # a browser's event loop may run in this one
        return thread.submit(asyncio.run, main()).result(30)


def test_events_show_the_runs_and_what_is_added(run_folder):
    def more(count):
        if count == 2:
            row = {"kind": "heldout", "step": 110, "tokens": 110_000, "loss": 6.125, "accuracy": 0.25}
            with (run_folder / "001" / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n" + '{"kind": "train", "st')  # a line that is being written
            samples = [{"text": "o gato [MASK] .", "word": "dorme", "guesses": [["come", 0.375]]}]
            (run_folder / "001" / "samples.jsonl").write_text(json.dumps({"step": 110, "examples": samples}) + "\n")

    first, state, second, _ = events_of(run_folder, "run=001&run=002&run=../secret&lang=en", 4, more)
    assert first[0] == "sections" and "7.25" in first[1] and "<th>--steps</th>" in first[1]
    assert "6.12" not in first[1] and second[0] == "sections" and "6.12" in second[1]
    assert "dorme" not in first[1] and "dorme" in second[1] and "38%" in second[1]
    assert state[0] == "state" and "001: step 100 · 0:10 left" in state[1] and "002" in state[1]


def test_watching_loads_no_model_and_offers_the_runs(run_folder):
    from starlette.testclient import TestClient

    from fastbert.serve.app import make_app
    from fastbert.serve.models import Models, find
    from fastbert.serve.service import Service

    client = TestClient(make_app(Service(Models(find(run_folder), only_runs=True))), base_url="http://localhost:1")
    answer = client.get("/")
    assert answer.url.path == "/watch" and answer.text.count('name="run"') == 2
    assert client.post("/v1/embeddings", json={"input": "a"}).status_code == 404


# ---- in a browser ----
@pytest.fixture(scope="module")
def address(served_folder, run_folder, serving):
    """A real server with a model and two runs."""
    from fastbert.serve.app import make_app
    from fastbert.serve.models import Models, find
    from fastbert.serve.service import Service

    served = [*find(served_folder / "plain"), *find(run_folder)]
    with serving(make_app(Service(Models(served)))) as (port, _):
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(("language", "size", "scheme"), [("en", (390, 844), "light"), ("pt", (1280, 900), "dark")])
def test_play_in_a_browser(address, browser, language, size, scheme):
    """Every section works by keyboard, nothing overflows, no complaint, contrast by axe where it is installed."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    page = context.new_page()
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(f"{address}/?lang={language}")
    page.locator("#generate input").fill("1")
    texts = {"fill": "o [MASK] dorme na [MASK]", "natural": "o gato dorme\nna gato azul", "generate": "o gato",
             "similar": "o gato\na menina\no rei", "attention_play": "o gato preto dorme na cama"}  # fmt: skip
    for name, text in texts.items():
        field = page.locator(f"#{name} textarea")
        field.fill(text)
        field.press("Control+Enter")
        page.wait_for_selector(f"#{name} .result :is(.bars, .words, .cosines, #matrix svg, .written)")
    assert page.locator("#fill .bars").count() == 2 and page.locator("#overview button").count() == 4
    assert len(page.locator(".written").text_content().split()) <= 3  # two words and the one that was added
    page.locator("#fill textarea").fill("sem")
    page.locator("#fill button").click()
    page.wait_for_selector("#fill .problem")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert all(url.startswith((address, "data:")) for url in requests)
    assert [c for c in complaints if "422" not in c] == []
    check_contrast(page)
    context.close()


def test_watch_in_a_browser(address, browser):
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(f"{address}/watch?run=001&run=002&lang=en")
    page.wait_for_selector("#curves .chart")
    assert "001" in page.locator("#state").text_content() and page.locator("#compare tr").count() == 3
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth") and complaints == []
    check_contrast(page)
    context.close()


def check_contrast(page):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page).response["violations"]
    assert not found, [(v["id"], [n["html"][:90] for n in v["nodes"]][:4]) for v in found]
