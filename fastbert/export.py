"""``python -m fastbert.export MODEL model.onnx``: a trained model for other programs."""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastbert.system.cli import Positional, run, unset
from fastbert.system.errors import InputError

if TYPE_CHECKING:
    from fastbert.tasks.examples import TextExample
    from fastbert.tasks.model import TaskSettings

MOST_TEXTS = 500  # that two models are compared on


@dataclass(frozen=True)
class ExportOptions:
    """Write a model for ONNX Runtime, OpenVINO, llama.cpp or sentence-transformers, or upload it.

    Of ONNX and OpenVINO the inputs are input_ids, attention_mask and, for BERT and RoFormer, token_type_ids, int64
    (batch, length) of any size. Needs: pip install 'fastbert[onnx]', [openvino], [gguf] or [hub].
    """

    model: Positional[str]
    """Directory of the model: a trained run or a Hugging Face directory."""
    path: Positional[str]
    """File to write (OpenVINO: NAME.xml); a directory for sentence-transformers; OWNER/NAME for the hub."""
    output: Literal["logits", "hidden", "embedding"] = "logits"
    """Of onnx and openvino: logits of the head (of the task if it is fine-tuned, else over the vocabulary), hidden
    states (batch, length, width), or one embedding a text (batch, width), pooled as the model's directory says."""
    to: Literal["onnx", "openvino", "gguf", "sentence-transformers", "hub"] = "onnx"
    """onnx; openvino; gguf, the embeddings of a BERT in llama.cpp; a sentence-transformers directory; or hub, an upload
    to Hugging Face as a private repository (needs a token in HF_TOKEN or from `hf auth login`)."""
    dtype: Literal["f32", "f16"] = "f32"
    """gguf: of the matrices."""
    int8: bool = False
    """onnx: store the weights in 8 bits, by ONNX Runtime's own quantization: a quarter of the size."""
    texts: Annotated[str | None, unset("FILE")] = None
    """int8: compare the small model with the exact one on the first 500 texts of a file; with the labels of a
    fine-tuned model's file also their accuracy."""
    public: bool = False
    """hub: make the repository public."""


def main(options: ExportOptions) -> int:
    if options.public and options.to != "hub":
        raise InputError(f"--public: goes with --to hub, not with {options.to}. Try: leave it out")
    if options.int8 and options.to != "onnx":
        raise InputError(f"--int8: goes with --to onnx, not with {options.to}. Try: leave it out")
    if options.texts and not options.int8:
        raise InputError(f"--texts {options.texts}: goes with --int8. Try: leave it out")
    if options.to not in ("onnx", "openvino") and options.output != "logits":
        raise InputError(f"--output {options.output}: goes with --to onnx, not with {options.to}. Try: leave it out")
    if options.to != "gguf" and options.dtype != "f32":
        raise InputError(f"--dtype {options.dtype}: goes with --to gguf, not with {options.to}. Try: leave it out")
    from fastbert.bert import load

    if options.to == "hub":
        from fastbert.inference import hub_upload

        address = hub_upload.upload(load(options.model), Path(options.model), options.path, public=options.public)
        print(f"{address}: uploaded")
        return 0
    if options.to == "sentence-transformers":
        write_sentence_transformers(options)
    elif options.to == "openvino":
        write_openvino(options)
    elif options.to == "gguf":
        from fastbert.inference import gguf_export

        bert = load(options.model)
        gguf_export.export(bert.model, bert.tokenizer, Path(options.path), bert.embedding, options.dtype)
    elif options.int8:
        write_int8(options)
    else:
        load(options.model).to_onnx(options.path, options.output)
    print(f"{options.path}: written")
    return 0


def write_openvino(options: ExportOptions) -> None:
    from fastbert.bert import load
    from fastbert.inference import openvino_export

    path = Path(options.path)
    openvino_export.check(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        onnx_file = Path(folder) / f"{path.stem}.onnx"
        load(options.model).to_onnx(onnx_file, options.output)
        openvino_export.convert(onnx_file, path)


def write_int8(options: ExportOptions) -> None:
    """Write the small model and print its size and how far it is off."""
    from fastbert.bert import load
    from fastbert.inference.onnx_int8 import agreement, export_int8

    bert = load(options.model)
    head = bert.task_model.settings if bert.task_model is not None and options.output == "logits" else None
    examples = read_texts(options.texts, head) if options.texts else []
    limit = min(bert.model.config.max_position_embeddings, head.max_length if head else 512)
    encoded = [bert.tokenizer.encode(e.text, e.pair, truncation=True, max_length=limit) for e in examples]
    before, after, exact, small = export_int8(
        lambda path: bert.to_onnx(path, options.output), Path(options.path), encoded
    )
    print(f"{before / 1e6:,.1f} MB in 32 bits, {after / 1e6:,.1f} MB in 8")
    if not examples:
        return
    found = agreement(exact, small)
    print(
        f"{len(examples):,} texts: cosine of the outputs {found['mean']:.5f} in the mean, {found['least']:.5f} at least"
    )
    if head is None or head.task != "classification" or head.multi_label:
        return
    print(f"the same class for {found['same']:.1%}")
    if examples[0].label is not None:
        shares = [
            sum(head.labels[int(row.argmax())] == e.label for row, e in zip(rows, examples, strict=True))
            for rows in (exact, small)
        ]
        print(f"accuracy {shares[0] / len(examples):.1%} in 32 bits, {shares[1] / len(examples):.1%} in 8")


def read_texts(path: str, head: "TaskSettings | None") -> "list[TextExample]":
    """The first texts of a file, with their labels if it has them and the model classes."""
    from fastbert.tasks.examples import read_examples

    examples: list[Any]
    try:
        examples = read_examples(path, "classification")
    except InputError:  # without labels, or with others
        examples = read_examples(path, "classification", labelled=False)
    if head is not None and head.pairs is not None and head.pairs != (examples[0].pair is not None):
        raise InputError(f"--texts {path}: the model was fine-tuned on {'pairs' if head.pairs else 'single texts'}")
    return examples[:MOST_TEXTS]


def write_sentence_transformers(options: ExportOptions) -> None:
    """Save the model with how its texts become vectors: as its directory says, else the mean of all tokens."""
    from fastbert.bert import load
    from fastbert.inference.embedding import EmbeddingSettings

    path = Path(options.path)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise InputError(f"{path}: is not empty. Try: another directory")
    bert = load(options.model)
    bert.embedding = bert.embedding or EmbeddingSettings()
    bert.task_model = None  # the head reads no vectors
    bert.save(path)


if __name__ == "__main__":
    sys.exit(run(main, ExportOptions))
