"""BERT for pretraining: embeddings, encoder, masked-LM head, and for the classic architecture the NSP head.

Legend: B sequences, L padded length, T packed tokens, D hidden_size, V vocabulary, M masked positions.
Inside, everything is packed; a padded call is packed on entry and unpacked at the end.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastbert import ops
from fastbert.batch import PackedBatch, pack, unpack
from fastbert.config import BertConfig
from fastbert.layers import Embeddings, Encoder
from fastbert.ops.modules import add_norm, project_and_activate
from fastbert.system.errors import InputError
from fastbert.weights import huggingface
from fastbert.weights.initialization import init_neighbor_heads


@dataclass
class PreTrainingOutput:
    """The result of a forward pass. Logits are None unless requested."""

    loss: Tensor | None = None  # (): masked-LM + next-sentence loss
    masked_lm_loss: Tensor | None = None  # (): its first term
    next_sentence_loss: Tensor | None = None  # (): its second term
    prediction_logits: Tensor | None = None  # (B, L, V) padded call, (M, V) or (T, V) packed call
    seq_relationship_logits: Tensor | None = None  # (B, 2), classic only: [B follows A, it does not]


class MaskedLMHead(nn.Module):
    """Dense → GELU → LayerNorm; the decoder is the word embedding, or ``decoder`` if untied, plus a bias of its own."""

    def __init__(self, config: BertConfig, impl: str = "auto"):
        super().__init__()
        width = config.embedding_width
        self.dense = nn.Linear(config.hidden_size, width, bias=config.bias)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps, bias=config.bias)
        self.bias = nn.Parameter(torch.zeros(config.padded_vocab_size))
        self.decoder = None if config.tie_word_embeddings else nn.Embedding(config.padded_vocab_size, width)
        # RoBERTa's and ELECTRA's heads have the exact form, whatever the encoder has
        exact = config.arch in ("roberta", "electra")
        self.approximate, self.impl = "none" if exact else config.gelu_approximate, impl

    def forward(self, hidden: Tensor) -> Tensor:
        """(…, D) → (…, embedding width), ready for the decoder."""
        hidden = project_and_activate(self.dense, hidden, self.approximate, impl=self.impl)
        return add_norm(self.norm, hidden, None, impl=self.impl)


class BertForPreTraining(nn.Module):
    """Every architecture; see :class:`fastbert.config.BertConfig`.

    Reference: Devlin et al., BERT, 2019; Warner et al., ModernBERT, 2024.
    """

    def __init__(self, config: BertConfig, impl: str = "auto"):
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config, impl)
        self.encoder = Encoder(config, impl)
        self.head = MaskedLMHead(config, impl)
        classic = config.arch == "classic"
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size) if classic else None
        self.next_sentence = nn.Linear(config.hidden_size, 2) if classic else None
        self.impl = impl
        self.fresh: list[str] = []  # parameters that from_pretrained found no weights for
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal weights of std ``initializer_range`` and zero biases, as in BERT, and neighbor heads.

        See :mod:`fastbert.weights.initialization`.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=self.config.initializer_range)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        init_neighbor_heads(self.embeddings, self.encoder)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.embeddings.word.weight.device

    @property
    def decoder_weight(self) -> Tensor:
        """(V, embedding width): the word embedding, unless the decoder is untied."""
        return self.embeddings.word.weight if self.head.decoder is None else self.head.decoder.weight

    # ---- forward ----
    def check_length(self, batch: PackedBatch) -> None:
        """Refuse sequences that are longer than the model has positions, with a ValueError."""
        if batch.max_seqlen > self.config.max_position_embeddings:
            raise ValueError(
                f"a sequence has {batch.max_seqlen} tokens and the model {self.config.max_position_embeddings} "
                "positions: truncate the text, or train with a larger --max-length"
            )

    def encode(self, batch: PackedBatch, rows: Tensor | None = None) -> Tensor:
        """Hidden states of a packed batch, (T, D); with distinct ``rows`` (M,) int64 only those, (M, D)."""
        hidden = self._hidden_states(batch.padded_to_multiple(), rows)
        return hidden if rows is not None else hidden[: batch.num_tokens]

    def _hidden_states(
        self, batch: PackedBatch, rows: Tensor | None = None, embedding_table: Tensor | None = None
    ) -> Tensor:
        self.check_length(batch)
        hidden = self.embeddings(
            batch.input_ids, batch.position_ids, batch.token_type_ids, embedding_table=embedding_table
        )
        return self.encoder(hidden, batch.position_ids, batch.cu_seqlens, batch.max_seqlen, rows=rows)

    def decode(self, hidden: Tensor) -> Tensor:
        """Vocabulary logits (…, V) of encoder outputs (…, D)."""
        logits = F.linear(self.head(hidden), self.decoder_weight, self.head.bias)
        return logits[..., : self.config.vocab_size]

    def predict(self, batch: PackedBatch) -> Tensor:
        """Vocabulary logits (M, V) of the rows ``batch.masked_index``; nothing else is computed."""
        assert batch.masked_index is not None
        return self.decode(self.encode(batch, batch.masked_index))

    def label_log_probs(self, batch: PackedBatch) -> Tensor:
        """Log-probability of each of the batch's labels, (M,), without a gradient; the logits are not kept."""
        assert batch.masked_index is not None and batch.labels is not None
        return ops.label_log_probs(
            self.head(self.encode(batch, batch.masked_index)), self.decoder_weight, self.head.bias, batch.labels,
            vocab_size=self.config.vocab_size, impl=self.impl,
        )  # fmt: skip

    def pooled(self, hidden: Tensor, cu_seqlens: Tensor) -> Tensor:
        """tanh(dense(first token)) of each sequence, (B, D); classic only."""
        assert self.pooler is not None
        # an empty sequence has no first token: its row is meaningless
        first = cu_seqlens[:-1].long().clamp(max=max(hidden.shape[0] - 1, 0))
        return torch.tanh(self.pooler(hidden.index_select(0, first)))

    def forward(
        self,
        input_ids: PackedBatch | Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
        *,
        return_logits: bool | None = None,
    ) -> PreTrainingOutput:
        """Encode, predict, and with labels compute the loss.

        Args:
            input_ids: a :class:`PackedBatch`, or padded ids (B, L).
            attention_mask: (B, L), non-zero = real token (padded call).
            token_type_ids: (B, L) segments (padded call).
            labels: (B, L) true tokens, -100 where no loss is taken (padded call).
            next_sentence_label: (B,): 0 B follows A, 1 it does not, -100 unknown (padded call).
            return_logits: whether to compute vocabulary logits; default: only without a loss, or in the padded
                call. Without them, training on the masked-LM loss computes no other row of the last layer, and no
                next-sentence logits.

        Returns:
            :class:`PreTrainingOutput`. In the padded call logits of padding tokens are 0.

        Raises:
            ValueError: shapes that do not agree, or a sequence longer than the model's positions.
        """
        kept = None  # in the packed call
        if isinstance(input_ids, PackedBatch):
            batch = input_ids
        else:
            batch, kept = pack(input_ids, attention_mask, token_type_ids, labels, next_sentence_label)
        if return_logits is None:
            return_logits = kept is not None or (batch.labels is None and batch.next_sentence_label is None)
        padded = batch.padded_to_multiple()
        if self.training and batch.labels is not None and batch.next_sentence_label is None and not return_logits:
            return self._train_on_masked_rows(padded)
        hidden = self._hidden_states(padded)[: batch.num_tokens]
        out = PreTrainingOutput(seq_relationship_logits=self._relationship(hidden, batch))
        if return_logits:
            rows = batch.masked_index if kept is None else None
            out.prediction_logits = self.decode(hidden if rows is None else hidden.index_select(0, rows))
        if batch.next_sentence_label is not None:
            out.next_sentence_loss = self._next_sentence_loss(out.seq_relationship_logits, batch.next_sentence_label)
        if batch.labels is not None:
            assert batch.masked_index is not None
            out.masked_lm_loss = self._masked_lm_loss(
                hidden.index_select(0, batch.masked_index), batch.labels, batch.label_weights
            )
        losses = [x for x in (out.masked_lm_loss, out.next_sentence_loss) if x is not None]
        out.loss = torch.stack(losses).sum() if losses else None
        if kept is not None and out.prediction_logits is not None:
            assert isinstance(input_ids, Tensor)
            out.prediction_logits = unpack(out.prediction_logits, kept, *input_ids.shape)
        return out

    def _train_on_masked_rows(self, batch: PackedBatch) -> PreTrainingOutput:
        """The masked-LM loss alone: after the last attention only the masked rows are computed."""
        assert batch.masked_index is not None and batch.labels is not None
        lookup, projection = None, None
        if self.head.decoder is None:
            lookup, projection = ops.tie_embedding(self.embeddings.word.weight, self.impl)
        hidden = self._hidden_states(batch, batch.masked_index, lookup)
        loss = self._masked_lm_loss(hidden, batch.labels, batch.label_weights, projection)
        return PreTrainingOutput(loss=loss, masked_lm_loss=loss)

    def _masked_lm_loss(
        self,
        hidden: Tensor,
        labels: Tensor,
        row_weights: Tensor | None = None,
        embedding_table: Tensor | None = None,
    ) -> Tensor:
        """Of the masked rows' hidden states (M, D)."""
        return ops.masked_lm_loss(
            self.head(hidden),
            self.decoder_weight if embedding_table is None else embedding_table,
            self.head.bias,
            labels,
            vocab_size=self.config.vocab_size,
            row_weights=row_weights,
            impl=self.impl if row_weights is None else "auto",  # no Triton kernel has row weights
        )

    def _relationship(self, hidden: Tensor, batch: PackedBatch) -> Tensor | None:
        return None if self.next_sentence is None else self.next_sentence(self.pooled(hidden, batch.cu_seqlens))

    def _next_sentence_loss(self, logits: Tensor | None, labels: Tensor) -> Tensor:
        if logits is None:
            raise ValueError(
                "next_sentence_label was given to a model that has no next-sentence head: use the classic architecture"
            )
        total = F.cross_entropy(logits.float(), labels, reduction="sum")
        return total / (labels != -100).sum().clamp(min=1)

    # ---- saving ----
    @classmethod
    def from_pretrained(cls, directory: str | Path, impl: str = "auto") -> "BertForPreTraining":
        """Read a Hugging Face directory (see :class:`fastbert.config.BertConfig`) or a fastbert run.

        Heads that the directory lacks keep random weights; ``model.fresh`` names their parameters.

        Raises:
            InputError: no such directory, an unsupported model, damaged files, shapes that do not fit the config.
        """
        directory = Path(directory)
        config = huggingface.read_config(directory)
        weights = huggingface.read_weights(directory)
        if config.tie_word_embeddings and huggingface.is_untied(weights, config, str(directory)):
            config = config.replace(tie_word_embeddings=False)
        state = huggingface.state_dict_from_hf(weights, config, str(directory))
        last = f"encoder.layers.{config.num_hidden_layers - 1}."
        if not any(name.startswith(last) for name in state):  # before a thousand layers are made to compare with
            raise InputError(f"{directory}: the weights lack {last[:-1]}: not a whole encoder")
        with torch.device("meta"):  # shapes are compared before anything of their size is allocated
            own = cls(config, impl).state_dict()
        for name, tensor in state.items():
            if name in own and own[name].shape != tensor.shape:
                raise InputError(
                    f"{directory}: {name} has shape {tuple(tensor.shape)} and config.json asks for "
                    f"{tuple(own[name].shape)}: config and weights do not belong together"
                )
        if extra := sorted(set(state) - set(own)):
            raise InputError(
                f"{directory}: config.json has no place for {extra[0]}. Try: the config.json of this model"
            )
        fresh = sorted(set(own) - set(state))
        if broken := [name for name in fresh if name.startswith(("embeddings.", "encoder."))]:
            raise InputError(f"{directory}: the weights lack {broken[0]} ({len(broken)} in all): not a whole encoder")
        model = cls(config, impl)
        model.fresh = fresh
        model.load_state_dict(state, strict=False)
        return model.eval()

    def save_pretrained(self, directory: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` in Hugging Face layout.

        Heads that were never trained are left out, so that loading reports them as fresh.
        """
        known = {name: tensor for name, tensor in self.state_dict().items() if name not in self.fresh}
        huggingface.write_model(known, self.config, Path(directory))
