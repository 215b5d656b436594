"""``python -m fastbert.export MODEL model.onnx``: a trained model for other programs."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastbert.system.cli import Positional, run
from fastbert.system.errors import InputError


@dataclass(frozen=True)
class ExportOptions:
    """Write a model as an ONNX file that takes any batch and length (needs: pip install 'fastbert[onnx]').

    Inputs: input_ids, attention_mask and, for BERT and RoFormer, token_type_ids, int64 (batch, length).
    """

    model: Positional[str]
    """Directory of the model: a trained run or a Hugging Face directory."""
    path: Positional[str]
    """File to write; a directory for sentence-transformers; OWNER/NAME for the hub."""
    output: Literal["logits", "hidden", "embedding"] = "logits"
    """What it gives: logits of the head (of the task if it is fine-tuned, else over the vocabulary), hidden states
    (batch, length, width), or one embedding a text (batch, width), pooled as the model's directory says."""
    to: Literal["onnx", "sentence-transformers", "hub"] = "onnx"
    """onnx; a sentence-transformers directory; or hub, an upload to Hugging Face as a private repository (needs: pip
    install 'fastbert[hub]', and a token in HF_TOKEN or from `hf auth login`)."""
    public: bool = False
    """hub: make the repository public."""


def main(options: ExportOptions) -> int:
    if options.public and options.to != "hub":
        raise InputError(f"--public: goes with --to hub, not with {options.to}. Try: leave it out")
    if options.to != "onnx" and options.output != "logits":
        raise InputError(f"--output {options.output}: goes with --to onnx, not with {options.to}. Try: leave it out")
    from fastbert.bert import load

    if options.to == "hub":
        from fastbert.inference import hub_upload

        address = hub_upload.upload(load(options.model), Path(options.model), options.path, public=options.public)
        print(f"{address}: uploaded")
        return 0
    if options.to == "sentence-transformers":
        write_sentence_transformers(options)
    else:
        load(options.model).to_onnx(options.path, options.output)
    print(f"{options.path}: written")
    return 0


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
