"""python -m fastbert.export to other programs; --to hub to a server on the loopback address."""

import base64
import http.server
import json
import threading

import numpy as np
import pytest

import fastbert
from fastbert.inference.embedding import EmbeddingSettings
from fastbert.text.tokenizer_files import TokenizerOptions
from support import SPECIAL, WORDS, command, make_bert


@pytest.fixture
def model(tmp_path):
    make_bert([*SPECIAL, *WORDS]).save(tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("---\ntags:\n- fastbert\n---\n# card\n")
    (tmp_path / "model" / "secret.txt").write_text("not to be uploaded")
    return tmp_path / "model"


def test_sentence_transformers_directory(model, tmp_path):
    arguments = ("model", "st", "--to", "sentence-transformers")
    command("fastbert.export", *arguments, cwd=tmp_path)
    kinds = [m["type"].rpartition(".")[2] for m in json.loads((tmp_path / "st" / "modules.json").read_text())]
    assert kinds == ["Transformer", "Pooling", "Normalize"]
    texts = ["o gato preto", "a menina feliz come"]
    np.testing.assert_allclose(
        fastbert.load(tmp_path / "st").embed(texts), fastbert.load(model).embed(texts), atol=1e-6
    )
    again = command("fastbert.export", *arguments, code=2, cwd=tmp_path)
    assert "st: is not empty" in again.stderr


def test_openvino(model, tmp_path):
    openvino = pytest.importorskip("openvino")
    command("fastbert.export", "model", "bert.xml", "--to", "openvino", "--output", "embedding", cwd=tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*bert*")) == ["bert.bin", "bert.xml"]
    compiled = openvino.compile_model(str(tmp_path / "bert.xml"), "CPU")
    bert = fastbert.load(model, precision="fp32")
    for text in ("o gato preto", "a menina feliz come pão e o rei dorme"):
        ids = np.array([bert.tokenizer.encode(text).ids])
        found = compiled([ids, np.ones_like(ids), np.zeros_like(ids)])[0][0]
        assert found @ bert.embed(text) > 0.99999


# tensors that llama.cpp asks for, by the names of its BERT
GGUF_LAYER = ("attn_q", "attn_k", "attn_v", "attn_output", "attn_output_norm", "ffn_up", "ffn_down",
              "layer_output_norm")  # fmt: skip


@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_gguf(model, tmp_path, dtype):
    gguf = pytest.importorskip("gguf")
    arguments = ("model", "bert.gguf", "--to", "gguf", "--dtype", dtype)
    command("fastbert.export", *arguments, cwd=tmp_path)
    reader, bert = gguf.GGUFReader(tmp_path / "bert.gguf"), fastbert.load(model)
    config = bert.model.config
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.architecture"] == fields["tokenizer.ggml.model"] == "bert"
    assert fields["bert.context_length"] == config.max_position_embeddings and fields["bert.pooling_type"] == 1
    assert (fields["bert.block_count"], fields["bert.attention.causal"]) == (config.num_hidden_layers, False)
    assert fields["tokenizer.ggml.tokens"][:6] == [*SPECIAL, "\u2581o"]
    assert fields["tokenizer.ggml.token_type"][:6] == [3] * 5 + [1]
    assert fields["tokenizer.ggml.seperator_token_id"] == bert.tokenizer.sep_id
    found = {tensor.name: tensor for tensor in reader.tensors}
    layers = {f"blk.{i}.{name}" for i in range(config.num_hidden_layers) for name in GGUF_LAYER}
    expected = {f"{name}.{kind}" for name in {*layers, "token_embd_norm"} for kind in ("weight", "bias")}
    assert found.keys() == expected | {"token_embd.weight", "position_embd.weight", "token_types.weight"}
    weight = bert.model.encoder.layers[1].attention.qkv.weight.detach().numpy()
    shown = found["blk.1.attn_k.weight"].data
    assert shown.dtype == (np.float32 if dtype == "f32" else np.float16)
    np.testing.assert_allclose(shown, weight[len(weight) // 3 : 2 * len(weight) // 3], rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_llama_cpp_gives_the_same_vectors(model, tmp_path):
    llama_cpp = pytest.importorskip("llama_cpp")
    command("fastbert.export", "model", "bert.gguf", "--to", "gguf", cwd=tmp_path)
    llama = llama_cpp.Llama(str(tmp_path / "bert.gguf"), embedding=True, verbose=False)
    bert = fastbert.load(model, precision="fp32")
    for text in ("o gato preto", "A Menina feliz come pao e o rei dorme"):
        vector = np.array(llama.embed(text, normalize=True))
        assert vector @ bert.embed(text) > 0.9999


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"arch": "modern"}, "modern"),
        ({"arch": "roformer"}, "roformer"),
        ({"lowercase": False}, "capitals"),
        ({"pooling": "max"}, "max"),
        ({"prompt": "query: "}, "prompt"),
    ],
)  # fmt: skip
def test_gguf_refuses_what_llama_cpp_would_compute_otherwise(tmp_path, changes, named):
    pytest.importorskip("gguf")
    settings = {name: value for name, value in changes.items() if name in ("pooling", "prompt")}
    make_bert(
        [*SPECIAL, *WORDS], changes.get("arch", "classic"), EmbeddingSettings(**settings),
        tokenizer_options=TokenizerOptions(lowercase=changes.get("lowercase", True)),
    ).save(tmp_path / "model")  # fmt: skip
    done = command("fastbert.export", "model", "bert.gguf", "--to", "gguf", code=2, cwd=tmp_path)
    assert named in done.stderr and "--to onnx" in done.stderr
    assert done.stderr.count("\n") == 1 and not list(tmp_path.glob("*gguf*"))


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
        (["x.onnx", "--dtype", "f16"], {}, "--dtype"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(model, tmp_path, monkeypatch, arguments, environment, named):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: environment.get("HF_TOKEN"))
    done = command("fastbert.export", "model", *arguments, code=2, cwd=tmp_path, **environment)
    assert named in done.stderr and done.stderr.count("\n") == 1
