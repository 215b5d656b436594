"""A model as an ONNX file with int8 weights, made by ONNX Runtime's own tool, and how far its answers are off.

Weights of matrix products and embeddings are stored in 8 bits with a scale for each output; activations are quantized
while the model runs ("dynamic" quantization), so that no texts are needed.
"""

import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastbert.inference.onnx_export import quiet
from fastbert.system.errors import InputError

if TYPE_CHECKING:
    from fastbert.text.encoding import Encoding

Outputs = list[NDArray[np.float32]]  # the first output of each text


def export_int8(
    write: Callable[[Path], None], path: Path, encoded: "Sequence[Encoding]" = ()
) -> tuple[int, int, Outputs, Outputs]:
    """Write ``path``, complete or not at all, from an ordinary ONNX file.

    Args:
        write: writes that file.
        path: of the small one.
        encoded: texts to compare both on.

    Returns:
        The bytes of both files, and the outputs of both for each text.

    Raises:
        InputError: onnxruntime is missing, or a file cannot be written.
    """
    try:
        import onnxruntime
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError:
        raise InputError("--int8: needs the package onnxruntime. Try: pip install 'fastbert[onnx]'") from None
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such directory. Try: create it, or another path")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        whole, small = Path(folder) / "whole" / path.name, Path(folder) / "small" / path.name
        whole.parent.mkdir()
        small.parent.mkdir()
        write(whole)
        external = len([*whole.parent.iterdir()]) > 1
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # weights of 7 bits: without VNNI sums of two products of 8 bits do not fit their 16, and are cut silently
            quantize_dynamic(
                whole,
                small,
                weight_type=QuantType.QInt8,
                per_channel=True,
                reduce_range=True,
                use_external_data_format=external,
            )
        sizes = [sum(file.stat().st_size for file in model.parent.iterdir()) for model in (whole, small)]
        found = [_run(onnxruntime, model, encoded) for model in (whole, small)]
        for file in sorted(small.parent.iterdir(), key=lambda file: file.name == path.name):
            file.replace(path.parent / file.name)
    return sizes[0], sizes[1], found[0], found[1]


def _run(onnxruntime: Any, model: Path, encoded: "Sequence[Encoding]") -> Outputs:
    if not encoded:
        return []
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = {each.name for each in session.get_inputs()}
    found = []
    for text in encoded:
        fields = {"input_ids": text.ids, "attention_mask": [1] * len(text.ids), "token_type_ids": text.type_ids}
        inputs = {name: np.array([values], np.int64) for name, values in fields.items() if name in names}
        found.append(session.run(None, inputs)[0][0])
    return found


def agreement(exact: Outputs, small: Outputs) -> dict[str, float]:
    """Mean and least cosine of the outputs, and the share of equal greatest values."""
    cosines = []
    for a, b in zip(exact, small, strict=True):
        a, b = a.reshape(-1).astype(np.float64), b.reshape(-1).astype(np.float64)
        lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
        cosines.append(float(a @ b) / max(lengths, 1e-12))
    same = [np.array_equal(a.argmax(-1), b.argmax(-1)) for a, b in zip(exact, small, strict=True)]
    return {"mean": float(np.mean(cosines)), "least": min(cosines), "same": float(np.mean(same))}
