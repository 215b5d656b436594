"""Where the model of a sentence-transformers directory lies: old ones keep it in a folder of its own."""

import json
from pathlib import Path

from fastbert.system.errors import InputError
from fastbert.system.json_files import Fields

_REMEDY = "copy the file again from its source"


def listed_modules(directory: Path) -> list[tuple[str, str]] | None:
    """(kind, folder) of each module in ``modules.json``; None if there is no such file.

    Raises:
        InputError: a damaged file, or a folder outside of the directory.
    """
    path = directory / "modules.json"
    if not path.is_file():
        return None
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: no valid JSON ({str(error)[:100]}): {_REMEDY}") from None
    if not isinstance(modules, list):
        raise InputError(f"{path}: holds {type(modules).__name__} where a list is expected: {_REMEDY}")
    found = []
    for module in modules:
        fields = Fields(module, str(path), _REMEDY)
        folder = fields.text("path", "")
        if Path(folder).name != folder:
            raise InputError(f"{path}: the folder {folder!r} leaves the directory: do not use this model")
        found.append((fields.text("type").rpartition(".")[2], folder))
    return found


def model_folder(directory: Path) -> Path:
    """The folder of the Transformer module, or the directory itself."""
    folder = dict(listed_modules(directory) or []).get("Transformer", "")
    return directory / folder if folder and (directory / folder).is_dir() else directory
