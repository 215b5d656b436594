"""An ONNX file as OpenVINO's two files: NAME.xml, the graph, and NAME.bin, the weights."""

import importlib.util
from pathlib import Path

from fastbert.system.errors import InputError


def check(path: Path) -> None:
    """Refuse what can be refused before the model is loaded.

    Raises:
        InputError: the package is missing; a name that OpenVINO does not take.
    """
    if importlib.util.find_spec("openvino") is None:
        raise InputError("--to openvino: the package openvino is missing. Try: pip install 'fastbert[openvino]'")
    if path.suffix != ".xml":
        raise InputError(f"{path}: OpenVINO's graph is a file .xml. Try: {path.with_suffix('.xml')}")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such directory. Try: create it, or another path")


def convert(onnx_file: Path, path: Path) -> None:
    """Write ``path`` and, beside it, its weights in float32."""
    import openvino

    model = openvino.convert_model(str(onnx_file))
    openvino.save_model(model, str(onnx_file.with_suffix(".xml")), compress_to_fp16=False)
    for suffix in (".bin", ".xml"):  # the weights first: without them the graph is useless
        onnx_file.with_suffix(suffix).replace(path.with_suffix(suffix))
