"""python -m fastbert.serve: each answer is the library's, and what is wrong is refused in one line."""

import base64

import numpy as np
import pytest

import fastbert
from fastbert.serve.queue import QueueSizes
from fastbert.serve.service import Limits

TASKS = {"classes", "pairs", "tags", "answers"}  # of conftest.py
TEXTS = ["o gato preto dorme.", "a menina feliz come pão, e o rei", "azul", ""]


def ask(client, path, status=200, headers=None, **body):
    answer = client.post(path, json=body, headers=headers)
    assert answer.status_code == status, answer.text
    if status != 200:
        message = answer.json()["error"]["message"]
        assert "\n" not in message and message
        return message
    return answer.json()


# ---- answers ----
def test_embeddings(client, served_folder):
    expected = fastbert.load(served_folder / "plain", precision="fp32").embed(TEXTS)
    found = ask(client, "/v1/embeddings", input=TEXTS, model="plain")
    assert [row["index"] for row in found["data"]] == [0, 1, 2, 3] and found["model"] == "plain"
    np.testing.assert_allclose([row["embedding"] for row in found["data"]], expected, atol=1e-6)
    coded = ask(client, "/v1/embeddings", input=TEXTS[0], encoding_format="base64")["data"][0]["embedding"]
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(coded), "<f4"), expected[0], atol=1e-6)
    assert found["truncated"] == 0 and found["usage"]["total_tokens"] == 7 + 11 + 3 + 2
    assert ask(client, "/v1/embeddings", input=["o gato " * 300, "o"])["truncated"] == 1


def test_masks(client, served_folder):
    bert = fastbert.load(served_folder / "plain")
    one, two = "o [MASK] dorme", "o [MASK] come [MASK]"
    found = ask(client, "/fill-mask", texts=[one, two], top_k=3)["results"]
    assert [len(masks) for masks in found] == [1, 2]
    for given, expected in zip(found, bert.fill_mask([one, two], top_k=3), strict=True):
        expected = [expected] if isinstance(expected[0], dict) else expected
        assert [[g["token_str"] for g in mask] for mask in given] == [[g["token_str"] for g in m] for m in expected]
        assert given[0][0]["score"] == pytest.approx(expected[0][0]["score"], rel=1e-4)
    joint = ask(client, "/fill-mask", texts=two, method="beam", top_k=2, candidates=["gato", "rei", "menina"])[
        "results"
    ]
    expected = bert.fill_mask(two, method="beam", top_k=2, candidates=["gato", "rei", "menina"])
    assert [f["token_strs"] for f in joint[0]] == [f["token_strs"] for f in expected]


def test_scores(client, served_folder):
    bert = fastbert.load(served_folder / "plain")
    found = ask(client, "/score", texts=TEXTS[:3])["results"]
    for given, expected in zip(found, bert.score(TEXTS[:3], per_token=True), strict=True):
        assert given["score"] == pytest.approx(expected.score, rel=1e-4)
        assert [(t["token"], (t["start"], t["end"])) for t in given["tokens"]] == [
            *zip(expected.tokens, map(tuple, expected.offsets), strict=True)
        ]


def test_tasks(client, served_folder):
    classes, pairs, tags, answers = (
        fastbert.load(served_folder / name) for name in ("classes", "pairs", "tags", "answers")
    )
    found = ask(client, "/classify", texts=TEXTS[:2], model="classes")["results"]
    assert [f["label"] for f in found] == [f["label"] for f in classes.classify(TEXTS[:2])]
    assert found[0]["scores"] == pytest.approx(classes.classify(TEXTS[0])["scores"], rel=1e-4)
    assert ask(client, "/classify", texts=["o " * 600, "o"], model="classes")["truncated"] == 1
    found = ask(client, "/classify", texts=TEXTS[0], pairs=TEXTS[1], model="pairs")["results"]
    assert found[0]["scores"] == pytest.approx(pairs.classify(TEXTS[0], TEXTS[1])["scores"], rel=1e-4)
    (found,) = ask(client, "/tag", texts=TEXTS[1], model="tags")["results"]
    assert [(e["entity"], e["start"], e["end"]) for e in found] == [
        (e["entity"], e["start"], e["end"]) for e in tags.tag(TEXTS[1])
    ]
    found = ask(client, "/answer", question=["o gato"], context=TEXTS[1], model="answers", top_k=2)["results"]
    assert [a["answer"] for a in found[0]] == [a["answer"] for a in answers.answer("o gato", TEXTS[1], top_k=2)]
    found = ask(client, "/similarity", first=TEXTS[:2], second=TEXTS[1:3])["results"]
    plain = fastbert.load(served_folder / "plain", precision="fp32")
    assert found == pytest.approx(plain.similarity(TEXTS[:2], TEXTS[1:3]), abs=1e-5)


def test_many_clients_get_their_own_answers(client, served_folder):
    from concurrent.futures import ThreadPoolExecutor

    rng = np.random.default_rng(0)
    asked = [[" ".join(rng.choice(["gato", "rei", "pão", "azul"], n))] for n in rng.integers(1, 60, 40)]
    expected = fastbert.load(served_folder / "plain", precision="fp32").embed([texts[0] for texts in asked])
    before = client.app.state.service.queue.batches
    with ThreadPoolExecutor(16) as threads:
        found = [*threads.map(lambda texts: ask(client, "/v1/embeddings", input=texts)["data"][0]["embedding"], asked)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert client.app.state.service.queue.batches - before < len(asked)  # some were computed together


def test_openai_client(client):
    openai = pytest.importorskip("openai")
    own = openai.OpenAI(api_key="x", base_url="http://127.0.0.1:8000/v1", http_client=client)
    answer = own.embeddings.create(model="plain", input=TEXTS[:2])
    assert len(answer.data[1].embedding) == 128 and own.models.list().data[0].id == "plain"


# ---- refusals ----
@pytest.mark.parametrize(
    ("path", "body", "status", "named"),
    [
        ("/v1/embeddings", {}, 422, "input"),
        ("/v1/embeddings", {"input": 3}, 422, "input"),
        ("/v1/embeddings", {"input": ["a", 3]}, 422, "input"),
        ("/v1/embeddings", {"input": []}, 422, "input"),
        ("/v1/embeddings", {"input": "a", "model": "../plain"}, 404, "../plain"),
        ("/v1/embeddings", {"input": "a", "dimensions": 7}, 422, "dimensions"),
        ("/v1/embeddings", {"input": "a", "colour": 7}, 422, "colour"),
        ("/fill-mask", {"texts": "sem máscara"}, 422, "[MASK]"),
        ("/fill-mask", {"texts": "[MASK]", "top_k": 0}, 422, "top_k"),
        ("/fill-mask", {"texts": "[MASK]", "method": "magic"}, 422, "method"),
        ("/fill-mask", {"texts": "[MASK] " + "o " * 600}, 422, "tokens"),
        ("/score", {"texts": "o [MASK]"}, 422, "[MASK]"),
        ("/classify", {"texts": "a"}, 422, "head"),
        ("/classify", {"texts": ["a", "o"], "pairs": ["a"]}, 422, "pairs"),
        ("/classify", {"texts": "a", "model": "pairs"}, 422, "pairs"),
        ("/tag", {"texts": "a", "model": "classes"}, 422, "classification"),
        ("/answer", {"question": ["a", "o"], "context": ["a"], "model": "answers"}, 422, "contexts"),
        ("/similarity", {"first": ["a"], "second": []}, 422, "second"),
        ("/nowhere", {}, 404, "docs"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused_in_one_line(client, path, body, status, named):
    assert named in ask(client, path, status, **body)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'"a"', b"\xff\xfe", b'{"input": "\\ud800"}', b"{" * 5000])
def test_a_body_that_is_no_request(client, raw):
    answer = client.post("/v1/embeddings", content=raw)
    assert answer.status_code == 422 and "\n" not in answer.json()["error"]["message"]


def test_one_wrong_text_does_not_spoil_the_others(make_client):
    """Requests that were computed together."""
    from concurrent.futures import ThreadPoolExecutor

    client = make_client(sizes=QueueSizes(batch_ms=50))
    client.app.state.service.queue._last_requests = 4
    bodies = [{"texts": text} for text in ("o [MASK]", "sem", "a [MASK] azul", "[MASK] rei")]
    with ThreadPoolExecutor(4) as threads:
        codes = [*threads.map(lambda body: client.post("/fill-mask", json=body).status_code, bodies)]
    assert codes == [200, 422, 200, 200]


def test_limits(make_client):
    client = make_client(limits=Limits(body_bytes=2000, texts=3, tokens=100))
    assert "2,000" in ask(client, "/v1/embeddings", 413, input="a" * 3000)
    streamed = client.post("/v1/embeddings", content=iter([b'{"input": "', b"a" * 3000, b'"}']))
    assert streamed.status_code == 413
    assert "texts" in ask(client, "/v1/embeddings", 413, input=["a"] * 4)
    assert "tokens" in ask(client, "/score", 413, texts="o gato preto dorme na cama azul e a menina")
    ask(client, "/v1/embeddings", input=["a"] * 3)


def test_a_key(make_client):
    client = make_client(api_key="segredo")
    ask(client, "/v1/embeddings", 401, input="a")
    ask(client, "/v1/embeddings", 401, input="a", headers={"Authorization": "Bearer segred"})
    ask(client, "/v1/embeddings", input="a", headers={"Authorization": "Bearer segredo"})
    assert client.get("/health").status_code == 200 and client.get("/metrics").status_code == 401
    assert client.post("/key", json={"key": "não"}).status_code == 401
    assert client.post("/key", json={"key": "segredo"}).status_code == 204
    ask(client, "/v1/embeddings", input="a")  # by the cookie


def test_pages_of_other_sites_are_not_answered(client):
    ask(client, "/v1/embeddings", 403, input="a", headers={"Host": "evil.example:8000"})
    ask(client, "/v1/embeddings", 403, input="a", headers={"Origin": "http://evil.example"})
    ask(client, "/v1/embeddings", input="a", headers={"Origin": "http://127.0.0.1:8000"})


@pytest.mark.parametrize(
    "path", ["/../plain/config.json", "/plain/config.json", "/%2e%2e/config.json", "//etc/passwd", "/v1/models/../x"]
)
def test_no_file_can_be_reached(client, path):
    assert client.get(path).status_code == 404


# ---- what it says about itself ----
def test_description_lists_every_address(client):
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    for path, methods in document["paths"].items():
        if "post" in methods:
            example = methods["post"]["requestBody"]["content"]["application/json"]["example"]
            assert client.post(path, json=example).status_code in (200, 422)
            name = methods["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
            assert set(example) <= set(document["components"]["schemas"][name]["properties"])
        else:
            assert client.get(path).status_code == 200


def test_metrics(make_client):
    client = make_client()
    ask(client, "/v1/embeddings", input=["a", "o gato"])
    ask(client, "/v1/embeddings", 422)
    text = client.get("/metrics").text
    assert 'fastbert_requests_total{path="/v1/embeddings",status="200"} 1' in text
    assert 'fastbert_requests_total{path="/v1/embeddings",status="422"} 1' in text
    assert "fastbert_tokens_total 7" in text and "fastbert_waiting_requests 0" in text
    assert all(line.startswith("#") or len(line.split(" ")) == 2 for line in text.splitlines())


def test_health(client):
    assert client.get("/health").json()["models"][0] == "plain"
    assert {model["id"] for model in client.get("/v1/models").json()["data"]} == {"plain", *TASKS}
