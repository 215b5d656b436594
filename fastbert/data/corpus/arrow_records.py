"""Records of Parquet files, and of folders written by ``datasets``: Arrow files and the names of their classes."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastbert.data.corpus.compression import ByteStream
from fastbert.system.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 1024


def is_datasets_folder(path: str) -> bool:
    """Whether ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk`` wrote this folder."""
    return any((Path(path) / name).is_file() for name in ("state.json", "dataset_dict.json"))


def folder_records(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ``(where, record)`` of a folder of ``datasets``.

    Raises:
        InputError: a folder of several splits, a file that is missing or damaged, no pyarrow.
    """
    folder = Path(path)
    try:
        if (folder / "dataset_dict.json").is_file():
            splits = json.loads((folder / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
            raise InputError(f"{path}: holds the splits {', '.join(splits)}. Try: {folder / str(splits[0])}")
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        names = [file["filename"] for file in state["_data_files"]]
        if state.get("_indices_files") or any(Path(name).name != name for name in names):
            raise InputError(f"{path}: is a selection of other files. Try: dataset.flatten_indices() before saving it")
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a folder of datasets ({error!r}). Try: save it again") from None
    arrow = _pyarrow(path)
    number = 0
    for name in names:
        try:
            with arrow.memory_map(str(folder / name)) as file, arrow.ipc.open_stream(file) as stream:
                for record in _named(stream.schema, stream):
                    number += 1
                    yield f"{path}: row {number}", record
        except (arrow.ArrowException, OSError) as error:
            raise InputError(f"{folder / name}: is damaged ({_one_line(error)}). Try: save it again") from None


def parquet_records(stream: ByteStream) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ``(where, record)`` of a Parquet file.

    Raises:
        InputError: a damaged file, no pyarrow.
    """
    arrow = _pyarrow(stream.name)
    import pyarrow.parquet

    number = 0
    try:
        with stream.seekable() as file, pyarrow.parquet.ParquetFile(file, pre_buffer=False) as parquet:
            for record in _named(parquet.schema_arrow, parquet.iter_batches(BATCH_ROWS)):
                number += 1
                yield f"{stream.name}: row {number}", record
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{stream.name}: after row {number}: not a Parquet file, or damaged ({_one_line(error)}). "
            "Try: get the file again"
        ) from None


def _pyarrow(name: str) -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError:
        raise InputError(f'{name}: reading it requires pyarrow. Try: pip install "fastbert[data]"') from None
    return pyarrow


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def _named(schema: "pa.Schema", batches: "Iterable[pa.RecordBatch]") -> Iterator[dict[str, Any]]:
    """The rows, integers of a ClassLabel as its names."""
    name_of = _class_names(schema)
    for batch in batches:
        for record in batch.to_pylist():
            yield {field: name_of[field](value) if field in name_of else value for field, value in record.items()}


def _class_names(schema: "pa.Schema") -> dict[str, Callable[[Any], Any]]:
    """Field → what gives the names of its values, from what ``datasets`` writes into the schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        found = {field: _names(feature) for field, feature in features.items()}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}

    def namer(names: list[str]) -> Callable[[Any], Any]:
        def name_of(value: Any) -> Any:
            if isinstance(value, list):
                return [name_of(item) for item in value]
            return names[value] if isinstance(value, int) and 0 <= value < len(names) else value

        return name_of

    return {field: namer(names) for field, names in found.items() if names}


def _names(feature: Any) -> list[str]:
    """The names of a ClassLabel, or of a list of them."""
    if isinstance(feature, list):
        return _names(feature[0])
    if not isinstance(feature, dict):
        return []
    return list(feature["names"]) if feature.get("_type") == "ClassLabel" else _names(feature.get("feature"))
