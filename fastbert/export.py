"""``python -m fastbert.export MODEL model.onnx``: a trained model as an ONNX file."""

import sys
from dataclasses import dataclass
from typing import Literal

from fastbert.system.cli import Positional, run


@dataclass(frozen=True)
class ExportOptions:
    """Write a model as an ONNX file that takes any batch and length (needs: pip install 'fastbert[onnx]').

    Inputs: input_ids, attention_mask and, for BERT and RoFormer, token_type_ids, int64 (batch, length).
    """

    model: Positional[str]
    """Directory of the model: a trained run or a Hugging Face directory."""
    path: Positional[str]
    """File to write."""
    output: Literal["logits", "hidden", "embedding"] = "logits"
    """What it gives: logits of the head (of the task if it is fine-tuned, else over the vocabulary), hidden states
    (batch, length, width), or one embedding a text (batch, width), pooled as the model's directory says."""


def main(options: ExportOptions) -> int:
    from fastbert.bert import load

    load(options.model).to_onnx(options.path, options.output)
    print(f"{options.path}: written")
    return 0


if __name__ == "__main__":
    sys.exit(run(main, ExportOptions))
