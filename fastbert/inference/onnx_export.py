"""A model as an ONNX file, for ONNX Runtime and other engines.

Inputs as Hugging Face's exports have them: ``input_ids``, ``attention_mask`` (1 = real token) and, where the model has
token types, ``token_type_ids``, all int64 (batch, length), both free. Outputs: ``last_hidden_state`` (batch, length,
D); ``sentence_embedding`` (batch, D), pooled as ``bert.embed`` pools; or what the model's head gives: ``logits`` of a
masked-LM (batch, length, V), sequence (batch, C) or token head (batch, length, C), ``start_logits`` and ``end_logits``
(batch, length) of a question-answering head.

Weights over :data:`MAX_BYTES`, which one ONNX file cannot hold, lie in a second file, ``NAME.data``.

Legend: B sequences, L padded length, D hidden_size, V vocabulary, C classes.
"""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from fastbert.inference.embedding import EmbeddingSettings, finished
from fastbert.model import BertForPreTraining
from fastbert.system.errors import InputError

Output = Literal["logits", "hidden", "embedding"]
# (hidden states (B, L, D), attention mask (B, L)) → the outputs of a task's head
Head = Callable[[Tensor, Tensor], tuple[Tensor, ...]]
OPSET = 18
MAX_BYTES = 2_000_000_000  # of weights in one file: protobuf ends at 2 GiB


class _Padded(nn.Module):
    """The model on padded inputs: packing has shapes that depend on the data."""

    def __init__(
        self, model: BertForPreTraining, output: Output, settings: EmbeddingSettings, head: nn.Module | None = None
    ):
        super().__init__()
        self.model, self.output, self.settings, self.head = model, output, settings, head

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Any:
        model = self.model
        position_ids = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        hidden = model.embeddings(input_ids, position_ids, token_type_ids)
        hidden = model.encoder(hidden, position_ids, attention_mask=attention_mask)  # (B, L, D)
        if self.output == "logits":
            return model.decode(hidden) if self.head is None else self.head(hidden, attention_mask)
        return hidden if self.output == "hidden" else self._pooled(hidden, attention_mask)

    def _pooled(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        real = (attention_mask != 0).unsqueeze(-1)
        if self.settings.pooling == "cls":
            vectors = hidden[:, 0]
        elif self.settings.pooling == "max":
            vectors = hidden.masked_fill(~real, torch.finfo(hidden.dtype).min).amax(1)
        else:
            vectors = (hidden * real).sum(1) / real.sum(1).clamp(min=1)
        return finished(vectors, self.settings)


def export(
    source: BertForPreTraining,
    path: Path,
    output: Output = "logits",
    settings: EmbeddingSettings | None = None,
    head: nn.Module | None = None,
    head_outputs: tuple[str, ...] = ("logits",),
) -> None:
    """Write ``path``, complete or not at all, and ``path``.data beside it where the weights need a second file.

    Args:
        source: the encoder; where there is a ``head``, the one it belongs to, from :func:`plain_copy`.
        path: of the file.
        output: what the model gives.
        settings: pooling of an "embedding", default mean.
        head: ``(hidden states, attention mask)`` → the "logits" of a task, in place of the masked LM's.
        head_outputs: their names.

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
    if path.is_dir():
        raise InputError(f"{path}: is a directory. Try: the name of a file, such as {path / 'model.onnx'}")
    settings = settings or EmbeddingSettings()
    if settings.unsupported and output == "embedding":
        raise InputError(f"this sentence-transformers model has {settings.unsupported}, which is not supported")
    wrapped = _Padded(plain_copy(source) if head is None else source, output, settings, head).eval()
    inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if source.config.type_vocab_size else [])]
    names = {"hidden": ("last_hidden_state",), "embedding": ("sentence_embedding",)}.get(output, head_outputs)
    # a tensor for each input: the exporter merges inputs that share one
    example = tuple(torch.ones((2, 7), dtype=torch.int64) for _ in inputs)
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=source.config.max_position_embeddings)}
    external = sum(p.numel() * p.element_size() for p in wrapped.parameters()) > MAX_BYTES
    with _written_whole(path) as temporary, quiet(), torch.no_grad():
        program = torch.onnx.export(
            wrapped,
            example,
            input_names=inputs,
            output_names=list(names),
            dynamic_shapes=tuple(sizes for _ in inputs),
            opset_version=OPSET,
            dynamo=True,
            external_data=external,
        )
        assert program is not None
        program.save(temporary, external_data=external)


def plain_copy(source: BertForPreTraining) -> BertForPreTraining:
    """A copy in plain PyTorch on the CPU: other engines run its ops, not our kernels."""
    model = BertForPreTraining(source.config, impl="reference").eval()
    model.load_state_dict(source.state_dict())
    return model


@contextlib.contextmanager
def _written_whole(path: Path) -> Iterator[Path]:
    """Yield the path of the same name in a temporary directory; what is there in the end is moved beside ``path``.

    The name must be the final one, because an ONNX file names the file of its weights.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        yield Path(folder) / path.name
        # the weights first: without them the model is useless
        for file in sorted(Path(folder).iterdir(), key=lambda file: file.name == path.name):
            file.replace(path.parent / file.name)


@contextlib.contextmanager
def quiet():
    """Silence the exporter's progress and warnings that are not ours to fix."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
