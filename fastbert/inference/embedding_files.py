"""The settings files of a sentence-transformers directory: each field is honoured, harmless, or named as unsupported.

What is unsupported is refused when vectors are asked for, since the encoder may serve other uses.

Reference: Reimers & Gurevych, Sentence-BERT, 2019.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastbert.inference.embedding import EmbeddingSettings
from fastbert.system.atomic_write import written_whole
from fastbert.system.errors import InputError
from fastbert.system.json_files import Fields, read_object, shown
from fastbert.system.model_folder import listed_modules, model_folder

REMEDY = "copy the file again from its source"
MODULES = ("Transformer", "Pooling", "Normalize")
# of every module: the tensors' names between modules
_LINKS = {"module_input_name": None, "module_output_name": None}
_POOLING = {"pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max", "pooling_mode_mean_tokens": "mean"}
_POOLING_FIELDS = frozenset({"word_embedding_dimension", "embedding_dimension", "pooling_mode", "include_prompt"})
# files of the Transformer module: one name for each family, in old versions
_TRANSFORMER_FILES = tuple(
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "xlm-roberta", "electra")
)
# the values that are what we compute, of the files of the Transformer module and of the whole
_ONLY: dict[str, tuple[object, ...]] = {
    "transformer_task": ("feature-extraction",),
    "module_output_name": ("token_embeddings",),
    "model_args": ({},),
    "tokenizer_args": ({},),
    "processing_kwargs": ({},),
    "config_args": ({},),
    "model_type": ("SentenceTransformer",),
}
_HARMLESS = frozenset({"__version__", "model_name_or_path", "unpad_inputs", "cache_dir", "backend", "model_kwargs"})


def read_settings(directory: Path) -> EmbeddingSettings | None:
    """Read ``modules.json`` of a sentence-transformers directory and what it points to; None if there is no such file.

    Raises:
        InputError: damaged files.
    """
    modules = listed_modules(directory)
    if modules is None:
        return None
    unsupported = [f"a module {kind} (modules.json)" for kind, _ in modules if kind not in MODULES]
    places = dict(modules)
    pooling: Any = "mean"
    include_prompt = True
    if "Pooling" in places:
        pooling, include_prompt, reasons = _read_pooling(directory / places["Pooling"] / "config.json")
        unsupported += reasons
    order = [kind for kind, _ in modules if kind in MODULES]
    if order != [kind for kind in MODULES if kind in places]:
        unsupported.append(f"the modules {', '.join(order)} in this order (modules.json)")
    inner = model_folder(directory)
    length, lowercase, reasons = _read_transformer(inner)
    unsupported += reasons
    prompt, prompts, similarity, dimensions, reasons = _read_whole(directory / "config_sentence_transformers.json")
    unsupported += reasons
    if prompt and not include_prompt:
        unsupported.append("a prompt that pooling leaves out (include_prompt, 1_Pooling/config.json)")
    return EmbeddingSettings(
        pooling,
        normalize="Normalize" in places,
        max_length=length,
        unsupported=unsupported[0] if unsupported else "",
        lowercase=lowercase,
        prompt=prompt,
        similarity=similarity,
        prompts=prompts,
        dimensions=dimensions,
        normalized_whole=dimensions is not None and "Normalize" in places,
    )


def _read_pooling(path: Path) -> tuple[str, bool, list[str]]:
    """The pooling, in the old form (a flag for each kind) or the new one (a name), and what is unsupported."""
    fields = Fields(read_object(path, REMEDY), str(path), REMEDY)
    if "pooling_mode" in fields:
        mode = fields.values["pooling_mode"]
        modes = [mode] if isinstance(mode, str) else list(mode) if isinstance(mode, list) else []
    else:
        flags = [name for name in fields.values if name.startswith("pooling_mode_") and fields.flag(name, False)]
        modes = [_POOLING.get(name, name) for name in flags]
    place = f"({path.parent.name}/{path.name})"
    reasons = [
        f"the field {name} {place}"
        for name, value in fields.values.items()
        if name not in _POOLING_FIELDS and not name.startswith("pooling_mode_") and value is not None
    ]
    if len(modes) == 1 and modes[0] in _POOLING.values():
        return modes[0], fields.flag("include_prompt", True), reasons
    return "mean", True, [f"pooling {'+'.join(map(str, modes)) or 'of no kind'} {place}", *reasons]


def _read_transformer(folder: Path) -> tuple[int | None, bool, list[str]]:
    """Maximum tokens of a text, whether it is lowercased before the tokenizer, and what is unsupported.

    The maximum stands in its own file, in newer versions where transformers keeps it.
    """
    lowercase, length, reasons = False, None, []
    for name in _TRANSFORMER_FILES:
        if not (path := folder / name).is_file():
            continue
        fields = Fields(read_object(path, REMEDY), str(path), REMEDY)
        lowercase = fields.flag("do_lower_case", False)
        length = _length(fields, "max_seq_length")
        known = ("max_seq_length", "do_lower_case", "modality_config")
        reasons = _unsupported({k: v for k, v in fields.values.items() if k not in known}, name)
        modality = fields.values.get("modality_config")
        if modality is not None and modality != {
            "text": {"method": "forward", "method_output_name": "last_hidden_state"}
        }:
            reasons.append(f"modality_config {shown(modality)} ({name})")
        break
    if length is None and (path := folder / "tokenizer_config.json").is_file():
        length = _length(Fields(read_object(path, REMEDY), str(path), REMEDY), "model_max_length")
    return length, lowercase, reasons


def _length(fields: Fields, name: str) -> int | None:
    length = fields.number(name, 0.0)
    return int(length) if 2 <= length < 2**31 else None


def _read_whole(path: Path) -> tuple[str, dict[str, str], str, int | None, list[str]]:
    """The prompt before every text, all prompts, the similarity, the dimensions kept, and what is unsupported."""
    if not path.is_file():
        return "", {}, "cosine", None, []
    fields = Fields(read_object(path, REMEDY), str(path), REMEDY)
    prompts, name = fields.inner("prompts", {}), fields.text("default_prompt_name", "")
    if name and name not in prompts:
        raise fields.refuse("default_prompt_name", "the name of one of its prompts")
    known = ("prompts", "default_prompt_name", "similarity_fn_name", "truncate_dim")
    reasons = _unsupported({k: v for k, v in fields.values.items() if k not in known}, path.name)
    texts = {each: prompts.text(each, "") for each in prompts.values}
    cut = fields.values.get("truncate_dim")
    dimensions = None if cut is None else fields.integer("truncate_dim", low=1)
    return texts[name] if name else "", texts, fields.text("similarity_fn_name", "cosine"), dimensions, reasons


def _unsupported(values: Mapping[str, Any], file: str) -> list[str]:
    return [
        f"{name} {shown(value)} ({file})"
        for name, value in values.items()
        if value is not None and name not in _HARMLESS and (name not in _ONLY or value not in _ONLY[name])
    ]


def write_settings(directory: Path, settings: EmbeddingSettings, hidden_size: int, max_length: int) -> None:
    """Make a saved model a sentence-transformers directory."""

    def write(name: str, content: object) -> None:
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    if settings.unsupported:
        raise InputError(f"this sentence-transformers model has {settings.unsupported}, which cannot be written")
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling")]
    if settings.normalize:
        kinds.append(("Normalize", "2_Normalize"))
        (directory / "2_Normalize").mkdir(exist_ok=True)
        write("2_Normalize/config.json", {})
    write(
        "1_Pooling/config.json",
        {
            "word_embedding_dimension": hidden_size,
            "pooling_mode_cls_token": settings.pooling == "cls",
            "pooling_mode_mean_tokens": settings.pooling == "mean",
            "pooling_mode_max_tokens": settings.pooling == "max",
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
    )
    length = settings.max_length or max_length
    write("sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": settings.lowercase})
    whole: dict[str, object] = {"similarity_fn_name": settings.similarity}
    if settings.dimensions is not None:
        whole["truncate_dim"] = settings.dimensions
    prompts = dict(settings.prompts)
    if settings.prompt:
        name = next((name for name, text in prompts.items() if text == settings.prompt), "default")
        prompts[name] = settings.prompt
        whole["default_prompt_name"] = name
    if prompts:
        whole["prompts"] = prompts
    write("config_sentence_transformers.json", whole)
    # last: without it the directory is an ordinary model
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(kinds)
    ]
    write("modules.json", modules)
