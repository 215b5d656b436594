"""python -m fastbert.export --to sentence-transformers and --to hub, the latter to a server on the loopback address."""

import base64
import http.server
import json
import threading

import numpy as np
import pytest

import fastbert
from support import SPECIAL, WORDS, command, make_bert


@pytest.fixture
def model(tmp_path):
    make_bert([*SPECIAL, *WORDS]).save(tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("---\ntags:\n- fastbert\n---\n# card\n")
    (tmp_path / "model" / "secret.txt").write_text("not to be uploaded")
    return tmp_path / "model"


def test_sentence_transformers_directory(model, tmp_path):
    arguments = ("model", "st", "--to", "sentence-transformers")
    assert command("fastbert.export", *arguments, cwd=tmp_path).returncode == 0
    kinds = [m["type"].rpartition(".")[2] for m in json.loads((tmp_path / "st" / "modules.json").read_text())]
    assert kinds == ["Transformer", "Pooling", "Normalize"]
    texts = ["o gato preto", "a menina feliz come"]
    np.testing.assert_allclose(
        fastbert.load(tmp_path / "st").embed(texts), fastbert.load(model).embed(texts), atol=1e-6
    )
    again = command("fastbert.export", *arguments, cwd=tmp_path)
    assert again.returncode == 2 and "st: is not empty" in again.stderr


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as an upload needs; files are kept in ``server.files``."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        if self.path == "/api/repos/create":
            self.server.made = json.loads(body)
            answer = {"url": f"{self.server.address}/me/bert"}
        elif "/preupload/" in self.path:
            how = {"uploadMode": "regular", "shouldIgnore": False}
            answer = {"files": [{"path": f["path"]} | how for f in json.loads(body)["files"]]}
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            answer = {"commitUrl": f"{self.server.address}/me/bert/commit/1", "commitOid": "1"}
        else:
            answer = {"errors": [], "warnings": []}
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        self.send_error(404)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    pytest.importorskip("huggingface_hub")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.address = f"http://127.0.0.1:{server.server_port}"
    server.files, server.asked, server.made = {}, [], None
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_upload(model, tmp_path, hub):
    environment = {"HF_ENDPOINT": hub.address, "HF_TOKEN": "hf_test"}
    done = command("fastbert.export", "model", "me/bert", "--to", "hub", cwd=tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    assert f"{hub.address}/me/bert" in done.stdout and "private" in (*hub.made, hub.made.get("visibility"))
    assert {"config.json", "model.safetensors", "vocab.txt", "tokenizer.json", "README.md"} <= hub.files.keys()
    assert "secret.txt" not in hub.files and b"# card" in hub.files["README.md"]
    assert {token for _, token in hub.asked} == {"Bearer hf_test"}
    for name, content in hub.files.items():
        (tmp_path / name).write_bytes(content)
    mask = "o [MASK] dorme"
    assert fastbert.load(tmp_path).fill_mask(mask) == fastbert.load(model).fill_mask(mask)


@pytest.mark.parametrize(
    ("arguments", "environment", "named"),
    [
        (["me/bert", "--to", "hub"], {}, "HF_TOKEN"),
        (["bert", "--to", "hub"], {"HF_TOKEN": "x"}, "OWNER/NAME"),
        (["me/bert", "--to", "hub"], {"HF_TOKEN": "x", "HF_ENDPOINT": "http://127.0.0.1:9"}, "me/bert"),
        (["me/bert", "--public"], {}, "--public"),
        (["x", "--to", "sentence-transformers", "--output", "hidden"], {}, "--output"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(model, tmp_path, monkeypatch, arguments, environment, named):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: environment.get("HF_TOKEN"))
    done = command("fastbert.export", "model", *arguments, cwd=tmp_path, **environment)
    assert done.returncode == 2 and named in done.stderr and done.stderr.count("\n") == 1
