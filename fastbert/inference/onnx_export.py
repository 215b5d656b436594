"""A model as an ONNX file, for ONNX Runtime and other engines.

Inputs as Hugging Face's exports have them: ``input_ids``, ``attention_mask`` (1 = real token) and, where the model has
token types, ``token_type_ids``, all int64 (batch, length), both free. Output: ``logits`` (batch, length, V),
``last_hidden_state`` (batch, length, D), or ``sentence_embedding`` (batch, D) pooled as ``bert.embed`` pools.

Legend: B sequences, L padded length, D hidden_size, V vocabulary.
"""

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastbert.inference.embedding import EmbeddingSettings
from fastbert.model import BertForPreTraining
from fastbert.system.atomic_write import written_whole
from fastbert.system.errors import InputError

Output = Literal["logits", "hidden", "embedding"]
NAMES = {"logits": "logits", "hidden": "last_hidden_state", "embedding": "sentence_embedding"}
OPSET = 18


class _Padded(nn.Module):
    """The model on padded inputs: packing has shapes that depend on the data."""

    def __init__(self, model: BertForPreTraining, output: Output, settings: EmbeddingSettings):
        super().__init__()
        self.model, self.output, self.settings = model, output, settings

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        model = self.model
        position_ids = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        hidden = model.embeddings(input_ids, position_ids, token_type_ids)
        hidden = model.encoder(hidden, position_ids, attention_mask=attention_mask)  # (B, L, D)
        if self.output == "logits":
            return model.decode(hidden)
        return hidden if self.output == "hidden" else self._pooled(hidden, attention_mask)

    def _pooled(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        real = (attention_mask != 0).unsqueeze(-1)
        if self.settings.pooling == "cls":
            vectors = hidden[:, 0]
        elif self.settings.pooling == "max":
            vectors = hidden.masked_fill(~real, torch.finfo(hidden.dtype).min).amax(1)
        else:
            vectors = (hidden * real).sum(1) / real.sum(1).clamp(min=1)
        return F.normalize(vectors, dim=-1) if self.settings.normalize else vectors


def export(
    source: BertForPreTraining, path: Path, output: Output = "logits", settings: EmbeddingSettings | None = None
) -> None:
    """Write ``path`` through a temporary name; ``settings``: pooling of an "embedding", default mean.

    Raises:
        InputError: unknown output; a missing package; a file that cannot be written.
    """
    if output not in get_args(Output):
        raise InputError(f"output={output!r}: expected one of {', '.join(get_args(Output))}")
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"ONNX export needs the package {error.name}. Try: pip install 'fastbert[onnx]'") from None
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such directory. Try: create it, or another path")
    settings = settings or EmbeddingSettings()
    if settings.unsupported and output == "embedding":
        raise InputError(f"this sentence-transformers model has {settings.unsupported}, which is not supported")
    # a copy in plain PyTorch on the CPU: other engines run its ops, not our kernels
    model = BertForPreTraining(source.config, impl="reference").eval()
    model.load_state_dict(source.state_dict())
    wrapped = _Padded(model, output, settings).eval()
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if source.config.type_vocab_size else [])]
    # a tensor for each input: the exporter merges inputs that share one
    example = tuple(torch.ones((2, 7), dtype=torch.int64) for _ in names)
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=source.config.max_position_embeddings)}
    with written_whole(path) as temporary, _quiet(), torch.no_grad():
        program = torch.onnx.export(
            wrapped,
            example,
            input_names=names,
            output_names=[NAMES[output]],
            dynamic_shapes=tuple(sizes for _ in names),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
        )
        assert program is not None
        program.save(temporary, external_data=False)


@contextlib.contextmanager
def _quiet():
    """Silence the exporter's progress and warnings that are not ours to fix."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
