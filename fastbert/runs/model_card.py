"""``README.md`` of a trained model: a model card in Hugging Face's format, written from what the run recorded.

The last line holds a checksum of the rest. A card that a person has edited no longer matches it and is left alone.

Reference: Mitchell et al., Model Cards for Model Reporting, 2019.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastbert.system.atomic_write import written_whole

NAME = "README.md"
_MARK = "<!-- written by fastbert; edit it freely, it is then left alone. sha256 "
LANGUAGES = {"bundled:en": "en", "bundled:pt": "pt"}
PIPELINES = {"classification": "text-classification", "regression": "text-classification",
             "tagging": "token-classification", "qa": "question-answering"}  # fmt: skip
CLASSES = {"classification": "SequenceClassification", "regression": "SequenceClassification",
           "tagging": "TokenClassification", "qa": "QuestionAnswering"}  # fmt: skip

Record = Mapping[str, Any]


def write_card(directory: Path, text: str) -> bool:
    """Write a card, unless there is one that fastbert did not write or a person has edited; whether it was written."""
    path = directory / NAME
    if path.exists() and not _is_ours(path.read_bytes()):
        return False
    with written_whole(path) as temporary:
        temporary.write_text(f"{text}\n{_MARK}{_digest(text)} -->\n", encoding="utf-8", newline="\n")
    return True


def _is_ours(content: bytes) -> bool:
    text, mark, digest = content.decode("utf-8", errors="replace").rpartition(f"\n{_MARK}")
    return bool(mark) and digest == f"{_digest(text)} -->\n"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# ---- cards ----
def run_card(name: str, description: Record, parameters: int) -> str:
    """Of a pretraining: ``description`` is ``run.json``, ``parameters`` the number of the model's weights."""
    options, result = description.get("used_options") or {}, description.get("result") or {}
    model = description.get("model") or {}
    data = [_name_of(source) for source in options.get("data") or []]
    measured = {
        "loss": result.get("loss"),
        "perplexity": result.get("perplexity"),
        "accuracy": result.get("accuracy"),
        "next_sentence_accuracy": result.get("next_sentence_accuracy"),
    }
    front = _front(
        name, "transformers", "fill-mask", [str(options.get("arch", "")), str(options.get("objective", ""))], measured,
        languages=sorted({LANGUAGES[source] for source in data if source in LANGUAGES}), task="fill-mask",
    )  # fmt: skip
    start = f", starting from the weights of {_name_of(options['init'])}" if options.get("init") else ""
    sizes = {
        "architecture": options.get("arch"),
        "parameters": f"{parameters:,}",
        "layers": model.get("num_hidden_layers"),
        "width": model.get("hidden_size"),
        "attention heads": model.get("num_attention_heads"),
        "vocabulary": f"{model.get('vocab_size', 0):,} pieces, {'un' if options.get('lowercase') else ''}cased",
        "longest text": f"{model.get('max_position_embeddings')} tokens",
    }
    names = ("objective", "mask_rate", "mask_unit", "minutes", "batch_tokens", "max_length", "optimizer", "seed")
    settings = {key: options.get(key) for key in names}
    settings |= {"steps": result.get("steps"), "tokens seen": f"{result.get('tokens', 0):,}"}
    held = options.get("heldout_fraction")
    source = f"{', '.join(data) or 'a text'}; {held:.0%} of it was held out" if held else ", ".join(data)
    usage = (
        'from transformers import pipeline\n\nfill = pipeline("fill-mask", "DIRECTORY")\n'
        'print(fill("… [MASK] …"))\n\nimport fastbert\n\nbert = fastbert.load("DIRECTORY")\n'
        'print(bert.fill_mask("… [MASK] …", top_k=3))\nprint(bert.score(["one sentence", "another"]))'
    )
    limits = (
        "Trained on the text above alone: it repeats that text's language, subjects and prejudices, and may repeat "
        "passages of it. It fills masks and gives features; it is no assistant, and what it writes is not checked for "
        "truth. The figures are those of held-out text of the same source; other text is harder."
    )
    return _card(front, name, f"A BERT trained with fastbert{start}.", source, sizes, settings,
                 _figures(measured, "held-out text"), usage, limits, description)  # fmt: skip


def finetuned_card(name: str, record: Record) -> str:
    """Of a fine-tuned model: ``record`` is ``finetune.json``."""
    options, settings, summary = record["options"], record["settings"], record["summary"]
    task = settings["task"]
    which = "test" if "test" in summary else "eval"
    measured = {measure: each["mean"] for measure, each in summary[which].items()}
    examples = ", ".join(f"{count:,} {part}" for part, count in record["examples"].items())
    front = _front(name, "transformers", PIPELINES[task], [task], measured, task=PIPELINES[task])
    sizes = {
        "task": f"{task}{' of pairs' if settings.get('pairs') else ''}",
        "labels": ", ".join(settings["labels"]) or "–",
        "pretrained model": _name_of(options["model"]),
        "longest row": f"{settings['max_length']} tokens",
    }
    recipe = {
        key: record["recipe"].get(key) for key in ("epochs", "batch_size", "optimizer", "learning_rate", "measure")
    }
    call = {"qa": 'bert.answer("question", "context")', "tagging": 'bert.tag("a text")'}.get(
        task, f'bert.classify("a text"{", " + chr(34) + "another" + chr(34) if settings.get("pairs") else ""})'
    )
    usage = (
        f"from transformers import AutoModelFor{CLASSES[task]}\n\n"
        f'model = AutoModelFor{CLASSES[task]}.from_pretrained("DIRECTORY")\n\n'
        f'import fastbert\n\nbert = fastbert.load("DIRECTORY")\nprint({call})'
    )
    chosen = "" if which == "test" else " The same examples chose the checkpoint, so they flatter it a little."
    limits = (
        f"It answers for texts like its training examples, and gives a label or an answer for any other too, with a "
        f"share that is no measure of doubt there.{chosen}"
    )
    source = f"{', '.join(_name_of(options[k]) for k in ('train', 'eval', 'test') if options.get(k))}: {examples}"
    return _card(front, name, "Fine-tuned with fastbert.", source, sizes, recipe,
                 _figures(measured, which), usage, limits, record)  # fmt: skip


def embedding_card(name: str, model: str, data: str, options: Record, dimensions: int) -> str:
    """Of an encoder fine-tuned to embed texts."""
    tags = ["sentence-transformers", "feature-extraction"]
    front = _front(name, "sentence-transformers", "sentence-similarity", tags, {}, task="sentence-similarity")
    sizes = {"pretrained model": _name_of(model), "dimensions": dimensions, "pooling": options["pooling"]}
    kept = {key: options[key] for key in ("epochs", "batch_size", "learning_rate", "temperature", "seed")}
    usage = (
        "from sentence_transformers import SentenceTransformer\n\n"
        'vectors = SentenceTransformer("DIRECTORY").encode(["one text", "another"])\n\n'
        'import fastbert\n\nvectors = fastbert.load("DIRECTORY").embed(["one text", "another"])'
    )
    limits = "Vectors are near where the training pairs belonged together; for other kinds of texts, measure first."
    return _card(front, name, "Texts as vectors, fine-tuned with fastbert.", _name_of(data), sizes, kept, "", usage,
                 limits, {})  # fmt: skip


# ---- parts ----
def _front(
    name: str,
    library: str,
    pipeline: str,
    tags: list[str],
    measured: Mapping[str, Any],
    *,
    task: str,
    languages: list[str] | None = None,
) -> str:
    """The YAML front matter; strings are quoted as JSON, which YAML reads."""
    lines = ["---", f"library_name: {library}", f"pipeline_tag: {pipeline}"]
    if languages:
        lines += ["language:", *(f"- {language}" for language in languages)]
    lines += ["tags:", "- fastbert", *(f"- {json.dumps(tag)}" for tag in tags if tag)]
    if pipeline == "fill-mask":
        lines.append('mask_token: "[MASK]"')
    known = {key: value for key, value in measured.items() if isinstance(value, (int, float))}
    if known:
        lines += ["model-index:", f"- name: {json.dumps(name, ensure_ascii=False)}", "  results:", "  - task:",
                  f"      type: {task}", "    dataset:", "      type: held-out", "      name: held-out examples",
                  "    metrics:"]  # fmt: skip
        for key, value in known.items():
            lines += [f"    - type: {key}", f"      value: {value:.6g}"]
    return "\n".join([*lines, "---"])


def _card(
    front: str, name: str, lead: str, data: str, sizes: Record, settings: Record, figures: str, usage: str, limits: str,
    record: Record,
) -> str:  # fmt: skip
    hardware = record.get("hardware") or {}
    machine = f"{hardware.get('cpu', '')}{', ' + ', '.join(hardware['cuda']) if hardware.get('cuda') else ''}"
    versions = ", ".join(f"{package} {version}" for package, version in (record.get("versions") or {}).items())
    made = f"\nMade on {machine} with {versions}.\n" if versions else ""
    sections = {
        "Data": f"{data}.",
        "Model": _table(sizes),
        "Settings": f"{_table(settings)}\n{made}",
        "Results": figures,
        "Use": f"`DIRECTORY` is where this file lies.\n```python\n{usage}\n```",
        "Limits": limits,
    }
    body = "\n\n".join(f"## {title}\n{text.rstrip()}" for title, text in sections.items() if text)
    return f"{front}\n# {name}\n{lead}\n\n{body}\n"


def _table(rows: Record) -> str:
    shown = [f"| {key.replace('_', ' ')} | {_cell(value)} |" for key, value in rows.items() if value not in (None, "")]
    return "\n".join(["| | |", "|---|---|", *shown])


def _figures(measured: Record, where: str) -> str:
    rows = {key: f"{value:.4g}" for key, value in measured.items() if isinstance(value, (int, float))}
    return f"On {where}:\n\n{_table(rows)}" if rows else ""


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _name_of(source: str) -> str:
    """A data set or model without the folders of the machine it was on."""
    return source if source.startswith("bundled:") else Path(source).name or source
