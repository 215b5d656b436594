"""Use a trained model from Python: ``bert = fastbert.load(directory)``.

Legend: B sequences, T packed tokens, V vocabulary, M masks.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastbert.errors import InputError

if TYPE_CHECKING:
    from fastbert.batch import PackedBatch
    from fastbert.model import BertForPreTraining
    from fastbert.text import Tokenizer


def load(directory: str | Path, *, device: str | None = None, impl: str = "auto") -> "Bert":
    """Load a trained run or a directory downloaded from Hugging Face (BERT or ModernBERT).

    A run that was stopped before its end is read from its newest checkpoint.

    Raises:
        InputError: no such directory, or one that holds no usable model or vocabulary.
    """
    from fastbert import checkpoint
    from fastbert.model import BertForPreTraining
    from fastbert.text import Tokenizer

    directory = Path(directory)
    weights = directory
    if not (directory / "config.json").is_file() and (steps := checkpoint.list_steps(directory)):
        weights = checkpoint.folder(directory) / f"step-{steps[-1]}"
    model = BertForPreTraining.from_pretrained(weights, impl=impl)
    tokenizer = Tokenizer.load(directory)
    if len(tokenizer) > model.config.padded_vocab_size:
        raise InputError(
            f"{directory}: the vocabulary has {len(tokenizer)} pieces and the model {model.config.vocab_size}: "
            "vocabulary and weights do not belong together"
        )
    return Bert(model.to(device) if device else model, tokenizer)


class Bert:
    """A model and its tokenizer, ready to answer."""

    def __init__(self, model: "BertForPreTraining", tokenizer: "Tokenizer"):
        self.model, self.tokenizer = model.eval(), tokenizer

    def fill_mask(self, texts: str | Sequence[str], top_k: int = 5) -> list:
        """Guess every ``[MASK]`` of a text, each on its own.

        Args:
            texts: one text or several, each with at least one ``[MASK]``.
            top_k: guesses per mask.

        Returns:
            As Hugging Face's fill-mask pipeline: for a text with one mask a list of ``top_k`` dictionaries ``score``
            (probability), ``token`` (id), ``token_str`` and ``sequence``; for several masks a list of such lists, one
            per mask; for several texts a list of these.

        Raises:
            InputError: a text has no ``[MASK]`` or does not fit the model.
        """
        import torch

        single = isinstance(texts, str)
        listed = [texts] if isinstance(texts, str) else list(texts)
        rows = [self._ids(text) for text in listed]
        for text, ids in zip(listed, rows, strict=True):
            if self.tokenizer.mask_id not in ids:
                raise InputError(f"no [MASK] in {text[:60]!r}: write [MASK] where a word is to be guessed")
        if any(name.startswith("head.") for name in self.model.fresh):
            raise InputError(
                "this model has no masked-LM head (an encoder for embeddings?): its guesses would be random"
            )
        if top_k < 1:
            raise InputError(f"top_k={top_k}: expected at least 1")
        answers = []
        with torch.inference_mode():
            for chunk in _chunks(rows, max_tokens=16_384):
                masked = [i for ids in chunk for i in ids]
                index = [i for i, token in enumerate(masked) if token == self.tokenizer.mask_id]
                logits = self.model(self._batch(chunk, index)).prediction_logits
                scores, tokens = logits.float().softmax(-1).topk(min(top_k, logits.shape[-1]), dim=-1)
                answers += self._answers(chunk, scores.tolist(), tokens.tolist())
        return answers[0] if single else answers

    def next_sentence(self, first: str, second: str) -> float:
        """Probability that ``second`` follows ``first``; classic models trained with ``--objective mlm+nsp`` only.

        Raises:
            InputError: the model has no next-sentence head.
        """
        import torch

        if self.model.next_sentence is None or any(n.startswith("next_sentence") for n in self.model.fresh):
            raise InputError("this model has no next-sentence head: train one with --objective mlm+nsp")
        encoded = self.tokenizer.encode(first, second)
        with torch.inference_mode():
            logits = self.model(self._batch([encoded.ids], [0], [encoded.type_ids])).seq_relationship_logits
        return logits.float().softmax(-1)[0, 0].item()

    # ---- plumbing ----
    def _ids(self, text: str) -> list[int]:
        ids = list(self.tokenizer.encode(text).ids)
        if len(ids) > (limit := self.model.config.max_position_embeddings):
            raise InputError(f"the text {text[:40]!r}… has {len(ids)} tokens and the model takes {limit}: shorten it")
        return ids

    def _batch(
        self, rows: Sequence[Sequence[int]], masked_index: Sequence[int], types: Sequence[Sequence[int]] | None = None
    ) -> "PackedBatch":
        import torch

        from fastbert.batch import PackedBatch

        lengths = torch.tensor([len(ids) for ids in rows])
        flat = torch.tensor([i for ids in rows for i in ids])
        batch = PackedBatch(
            input_ids=flat,
            position_ids=torch.cat([torch.arange(len(ids)) for ids in rows]),
            token_type_ids=torch.tensor([t for ts in types for t in ts]) if types else torch.zeros_like(flat),
            cu_seqlens=torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32),
            max_seqlen=int(lengths.max()),
            masked_index=torch.tensor(list(masked_index)),
        )
        return batch.to(next(self.model.parameters()).device)

    def _answers(self, rows, scores, tokens) -> list:
        """Arrange flat (M, k) guesses by text and mask."""
        guesses = iter(zip(scores, tokens, strict=True))
        answers = []
        for ids in rows:
            masks = [i for i, token in enumerate(ids) if token == self.tokenizer.mask_id]
            per_mask = []
            for place in masks:
                mask_scores, mask_tokens = next(guesses)
                per_mask.append(
                    [
                        {
                            "score": score,
                            "token": token,
                            "token_str": self.tokenizer.id_to_token(token),
                            "sequence": self._sequence(ids, place, token),
                        }
                        for score, token in zip(mask_scores, mask_tokens, strict=True)
                    ]
                )
            answers.append(per_mask[0] if len(per_mask) == 1 else per_mask)
        return answers

    def _sequence(self, ids: list[int], place: int, token: int) -> str:
        hidden = {self.tokenizer.cls_id, self.tokenizer.sep_id, self.tokenizer.pad_id}
        filled = [token if i == place else other for i, other in enumerate(ids)]
        return self.tokenizer.decode([i for i in filled if i not in hidden], skip_special_tokens=False)


def _chunks(rows: Iterable[list[int]], max_tokens: int) -> Iterable[list[list[int]]]:
    """Consecutive rows of at most ``max_tokens`` tokens together (at least one row)."""
    chunk: list[list[int]] = []
    size = 0
    for ids in rows:
        if chunk and size + len(ids) > max_tokens:
            yield chunk
            chunk, size = [], 0
        chunk.append(ids)
        size += len(ids)
    if chunk:
        yield chunk
