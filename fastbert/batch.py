"""The batch that a model computes on: packed sequences, no padding.

Legend: B sequences, L padded length, T packed tokens, M masked positions.
Padded ``(B, L)`` tensors with an attention mask are converted by :func:`pack` and :func:`unpack`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

MIN_PADDED_TOKENS = 256  # a smaller batch would grow too much


def row_multiple(rows: int) -> int:
    """The multiple to round a number of rows up to: 8, 16 or 32, which adds at most 1/32 to 256 rows or more.

    oneDNN compiles and keeps code for every new number of rows: rounded up, there are few.
    """
    return next((multiple for multiple in (32, 16) if rows >= 32 * multiple), 8)


def inference_tokens(device: torch.device) -> int:
    """Tokens of an inference batch: on a CPU what its caches hold, on a GPU what keeps it busy."""
    return 2048 if device.type == "cpu" else 65_536


@dataclass(frozen=True)
class PackedBatch:
    """B sequences laid end to end; sequence b is rows ``cu_seqlens[b]:cu_seqlens[b + 1]``."""

    input_ids: Tensor  # (T,) int64
    position_ids: Tensor  # (T,) int64, from 0 in every sequence
    token_type_ids: Tensor  # (T,) int64, 0 or 1
    cu_seqlens: Tensor  # (B + 1,) int32, cumulative lengths
    max_seqlen: int  # longest sequence of the batch, in tokens
    masked_index: Tensor | None = None  # (M,) int64, rows of the T with a loss
    labels: Tensor | None = None  # (M,) int64, the true tokens there
    next_sentence_label: Tensor | None = None  # (B,) int64: 0 B follows A, 1 it does not, -100 unknown
    label_weights: Tensor | None = None  # (M,) float32, of each label in the loss; None: all weigh 1

    @property
    def num_tokens(self) -> int:
        return self.input_ids.shape[0]

    @property
    def num_sequences(self) -> int:
        return self.cu_seqlens.shape[0] - 1

    def padded_to_multiple(self, multiple: int | None = None) -> "PackedBatch":
        """The same batch with T and M padded to a multiple: sequences of zeros at the end, and rows without a label.

        The loss does not change, nor do the first T rows of hidden states. Small batches stay as they are, and so do
        those on a GPU, where nothing is compiled per shape. The default multiple is :func:`row_multiple` of each.
        """
        if self.num_tokens < MIN_PADDED_TOKENS or self.input_ids.device.type != "cpu":
            return self
        rows = self.num_tokens, 0 if self.masked_index is None else len(self.masked_index)
        return self.padded_to(*(n + -n % (multiple or row_multiple(n)) for n in rows))

    def padded_to(
        self, num_tokens: int, num_masked: int, num_sequences: int | None = None, max_seqlen: int | None = None
    ) -> "PackedBatch":
        """The same batch, on the CPU, with T = ``num_tokens`` and, as far as there are rows, M = ``num_masked``.

        The loss does not change, nor do the first rows of hidden states.

        Args:
            num_sequences: B, of which the last may be empty; None: as many as there are.
            max_seqlen: of the result, to which padding goes too; None: that of the batch.
        """
        longest = max_seqlen or self.max_seqlen
        tokens = num_tokens - self.num_tokens
        masked = 0 if self.masked_index is None else num_masked - len(self.masked_index)
        if not (tokens or masked or num_sequences is not None):
            return self
        full, rest = divmod(tokens, longest)
        lengths = torch.tensor([longest] * full + [rest] * bool(rest), dtype=torch.int64)
        pad = torch.nn.functional.pad
        padded: dict[str, Tensor | None] = {
            name: pad(getattr(self, name), (0, tokens)) for name in ("input_ids", "position_ids", "token_type_ids")
        }
        empty = 0 if num_sequences is None else num_sequences - self.num_sequences - len(lengths)
        assert min(tokens, masked, empty) >= 0, "the batch is larger than what it should be padded to"
        ends = (self.num_tokens + pad(lengths, (0, empty)).cumsum(0)).to(self.cu_seqlens)
        padded["cu_seqlens"] = torch.cat([self.cu_seqlens, ends])
        if self.next_sentence_label is not None:
            padded["next_sentence_label"] = pad(self.next_sentence_label, (0, len(ends)), value=-100)
        if self.masked_index is not None:
            # the last layer needs distinct rows: take unmasked ones, padding first
            spare = torch.ones(num_tokens, dtype=torch.bool, device=self.masked_index.device)
            spare[self.masked_index] = False
            added = spare.nonzero().squeeze(1)[-masked:] if masked else self.masked_index[:0]
            padded["masked_index"] = torch.cat([self.masked_index, added])
            for name, value in (("labels", -100), ("label_weights", 0)):
                if (tensor := getattr(self, name)) is not None:
                    padded[name] = pad(tensor, (0, len(added)), value=value)
        return replace(self, max_seqlen=longest, **padded)  # type: ignore[arg-type]

    def to(self, device: torch.device | str, non_blocking: bool = True) -> "PackedBatch":
        """The same batch on another device; to a GPU as one copy from pinned memory, which nobody waits for."""
        if torch.device(device).type == "cuda" and self.input_ids.device.type == "cpu":
            return _to_cuda(self, device)
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in moved.items():
            if isinstance(value, Tensor):
                moved[name] = value.to(device, non_blocking=non_blocking)
        return PackedBatch(**moved)


def _to_cuda(batch: PackedBatch, device: torch.device | str) -> PackedBatch:
    tensors = tensors_of(batch)
    return replace(batch, **from_block(to_block(tensors).to(device, non_blocking=True), tensors))  # type: ignore[arg-type]


def tensors_of(batch: PackedBatch) -> dict[str, Tensor]:
    """The tensors of a batch, by name."""
    given = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return {name: value for name, value in given.items() if isinstance(value, Tensor)}


def to_block(tensors: Mapping[str, Tensor]) -> Tensor:
    """Tensors (n,) of the CPU in one pinned block of 4-byte numbers: one copy to a GPU, which nobody waits for."""
    starts, total = _starts(tensors)
    block = torch.empty(total, dtype=torch.int32, pin_memory=True)
    for name, value in tensors.items():
        place = block[starts[name] : starts[name] + value.numel()]
        (place.view(torch.float32) if value.is_floating_point() else place).copy_(value)
    return block


def from_block(block: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in a block, on its device; the integers of 8 bytes are widened there.

    Args:
        block: what :func:`to_block` made of ``like``, or of tensors of those shapes.
    """
    starts, _ = _starts(like)
    wide, there = block.long(), {}
    for name, value in like.items():
        source = wide if value.dtype == torch.int64 else block
        found = source[starts[name] : starts[name] + value.numel()]
        there[name] = found.view(torch.float32) if value.is_floating_point() else found
    return there


def _starts(tensors: Mapping[str, Tensor]) -> tuple[dict[str, int], int]:
    """Where each tensor begins in a block, and the block's length."""
    starts, total = {}, 0
    for name, value in tensors.items():
        starts[name] = total
        total += -(-value.numel() // 4) * 4  # kernels read 16 bytes at a time
    return starts, total


def concatenate(batches: Sequence[PackedBatch]) -> PackedBatch:
    """The sequences of several batches in one; all have the same optional parts."""
    tokens = np.cumsum([0, *(batch.num_tokens for batch in batches)]).tolist()
    first = batches[0]
    joined: dict[str, Tensor | None] = {}
    for name in (f.name for f in fields(PackedBatch) if f.name not in ("cu_seqlens", "max_seqlen", "masked_index")):
        parts = [getattr(batch, name) for batch in batches]
        joined[name] = None if parts[0] is None else torch.cat(parts)
    if first.masked_index is not None:
        rows = [batch.masked_index + start for batch, start in zip(batches, tokens, strict=False)]  # type: ignore[operator]
        joined["masked_index"] = torch.cat(rows)
    ends = [batch.cu_seqlens[1:] + start for batch, start in zip(batches, tokens, strict=False)]
    return PackedBatch(
        **joined,  # type: ignore[arg-type]
        cu_seqlens=torch.cat([first.cu_seqlens[:1], *ends]),
        max_seqlen=max(batch.max_seqlen for batch in batches),
    )


def pack(
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    labels: Tensor | None = None,
    next_sentence_label: Tensor | None = None,
) -> tuple[PackedBatch, Tensor]:
    """Drop the padding of a batch.

    Args:
        input_ids: (B, L) token ids.
        attention_mask: (B, L), non-zero where the token is real; None: all are. Holes and left padding are allowed:
            a token's position is its column, as in Hugging Face's models.
        token_type_ids: (B, L) segment of each token; None: 0.
        labels: (B, L) true tokens, -100 where no loss is taken, as at padding.
        next_sentence_label: (B,), see :class:`PackedBatch`.

    Returns:
        ``(batch, kept)``: the :class:`PackedBatch` and ``kept`` (T,) int64, the flat ``row * L + column`` of each
        packed token, which :func:`unpack` needs.

    Raises:
        ValueError: shapes do not agree.
    """
    if input_ids.ndim != 2:
        raise ValueError(f"input_ids has shape {tuple(input_ids.shape)}: expected (batch, length)")
    same_shape = {"attention_mask": attention_mask, "token_type_ids": token_type_ids, "labels": labels}
    for name, value in same_shape.items():
        if value is not None and value.shape != input_ids.shape:
            raise ValueError(f"{name} has shape {tuple(value.shape)}: expected {tuple(input_ids.shape)}, as input_ids")
    rows, length = input_ids.shape
    device = input_ids.device
    if attention_mask is None:
        kept = torch.arange(rows * length, device=device)
        lengths = torch.full((rows,), length, device=device)
    else:
        real = attention_mask != 0
        kept = real.flatten().nonzero().squeeze(1)
        lengths = real.sum(1)
    flat_types = torch.zeros_like(kept) if token_type_ids is None else token_type_ids.flatten()[kept].long()
    masked_index, masked_labels = None, None
    if labels is not None:
        flat_labels = labels.flatten()[kept]
        masked_index = (flat_labels != -100).nonzero().squeeze(1)
        masked_labels = flat_labels[masked_index]
    batch = PackedBatch(
        input_ids=input_ids.flatten()[kept].long(),
        position_ids=kept % max(length, 1),
        token_type_ids=flat_types,
        cu_seqlens=torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32),
        max_seqlen=int(lengths.max()) if rows else 0,
        masked_index=masked_index,
        labels=masked_labels,
        next_sentence_label=next_sentence_label,
    )
    return batch, kept


def pack_rows(
    rows: Sequence[ArrayLike], masked_index: ArrayLike | None = None, token_type_ids: Sequence[ArrayLike] | None = None
) -> PackedBatch:
    """Lay B lists of token ids end to end.

    Args:
        rows: at least one, each of at least one id.
        masked_index: (M,) rows of the T packed tokens that predictions are wanted for.
        token_type_ids: as ``rows``; None: 0.
    """
    arrays = [np.asarray(row, np.int64) for row in rows]
    lengths = np.array([len(row) for row in arrays])
    bounds = np.concatenate([[0], lengths.cumsum()])
    flat = torch.from_numpy(np.concatenate(arrays))
    types = torch.zeros_like(flat)
    if token_type_ids is not None:
        types = torch.from_numpy(np.concatenate([np.asarray(row, np.int64) for row in token_type_ids]))
    return PackedBatch(
        input_ids=flat,
        position_ids=torch.from_numpy(np.arange(bounds[-1]) - bounds[:-1].repeat(lengths)),
        token_type_ids=types,
        cu_seqlens=torch.from_numpy(bounds.astype(np.int32)),
        max_seqlen=int(lengths.max()),
        masked_index=None if masked_index is None else torch.from_numpy(np.asarray(masked_index, np.int64)),
    )


def by_token_budget(
    lengths: Sequence[int], max_tokens: int, num_masked: Sequence[int] | None = None, max_masked: int = 0
) -> Iterator[slice]:
    """Split consecutive sequences into batches of at most ``max_tokens`` tokens and ``max_masked`` masked rows.

    A sequence over the budget makes a batch of its own.

    Args:
        lengths: tokens of each sequence, in order.
        max_tokens: of a batch.
        num_masked: masked rows of each sequence; None: no limit on them.
        max_masked: masked rows of a batch.
    """
    begin = tokens = masked = 0
    for end, length in enumerate(lengths):
        more = 0 if num_masked is None else num_masked[end]
        if end > begin and (tokens + length > max_tokens or (num_masked is not None and masked + more > max_masked)):
            yield slice(begin, end)
            begin, tokens, masked = end, 0, 0
        tokens, masked = tokens + length, masked + more
    if begin < len(lengths):
        yield slice(begin, len(lengths))


def unpack(packed: Tensor, kept: Tensor, rows: int, length: int) -> Tensor:
    """Undo :func:`pack`: packed rows (T, …) → (rows, length, …), zeros at padding."""
    padded = packed.new_zeros((rows * length, *packed.shape[1:]))
    return padded.index_copy(0, kept, packed).view(rows, length, *packed.shape[1:])
