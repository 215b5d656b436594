"""Use a trained model from Python: ``bert = fastbert.load(directory)``.

Legend: B texts, V vocabulary, M masks, D hidden_size, L tokens of a text, N heads.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fastbert.system.errors import InputError
from fastbert.tasks.methods import TaskMethods, listed_texts, read_head

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fastbert.batch import PackedBatch
    from fastbert.inference.attention_maps import AttentionMaps
    from fastbert.inference.embedding import EmbeddingSettings, Pooling
    from fastbert.inference.fill_mask import Candidates
    from fastbert.inference.fill_methods import Method as FillMethod
    from fastbert.inference.frozen_model import Precision
    from fastbert.inference.scoring import Method
    from fastbert.model import BertForPreTraining
    from fastbert.text import Tokenizer

DEFAULT_LENGTH = 32  # tokens that generate() adds to a prompt


def load(
    directory: str | Path, *, device: str | None = None, impl: str = "auto", precision: "Precision" = "auto"
) -> "Bert":
    """Load a trained run or a directory downloaded from Hugging Face: BERT, RoFormer, ModernBERT and BERT's relatives.

    An unfinished run is loaded from its newest checkpoint. A sentence-transformers directory also sets the pooling.

    Args:
        directory: of the model.
        device: "cpu", "cuda" …; None: the CPU.
        impl: of the ops, see :mod:`fastbert.ops`.
        precision: of :meth:`Bert.embed`. "auto": bf16 where the device is quick at it, else fp32. "bf16": weights and
            hidden states rounded to bfloat16, sums in float32; the vectors of 256 lines of prose by all-MiniLM-L6 have
            cosines of 0.99998 in the mean and 0.99995 at least to those of "fp32". "int8", on a CPU with
            AVX-512 VNNI: matrices quantized to 8 bits in blocks of 128; how near the vectors of 32 lines come to those
            of "fp32" is printed to standard error. Vectors are always float32, and so are all other results.

    Raises:
        InputError: no such directory, or one that holds no usable model or vocabulary; unknown precision.
    """
    from fastbert.inference.embedding_files import read_settings
    from fastbert.inference.nearness import nearness
    from fastbert.model import BertForPreTraining
    from fastbert.runs import checkpoint
    from fastbert.text import Tokenizer
    from fastbert.text.vocabulary_size import check_vocabulary

    directory = Path(directory)
    weights = checkpoint.resolve(directory)
    model = BertForPreTraining.from_pretrained(weights, impl=impl)
    tokenizer = Tokenizer.load(directory)
    check_vocabulary(tokenizer, model.config.vocab_size, directory)
    try:
        model = model.to(device) if device else model
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {device!r}: not usable ({str(error).splitlines()[0]}). Try: cpu") from None
    bert = Bert(model, tokenizer, read_settings(directory), precision)
    bert.task_model = read_head(weights, model)
    if precision == "int8":
        print(f"precision {precision}: {nearness(bert)}", file=sys.stderr)
    return bert


class Bert(TaskMethods):
    """A model and its tokenizer.

    Args:
        model: put into evaluation mode.
        tokenizer: the model's.
        embedding: how texts become vectors; None: mean pooling, length 1.
        precision: of :meth:`embed`, see :func:`load`.
    """

    def __init__(
        self,
        model: "BertForPreTraining",
        tokenizer: "Tokenizer",
        embedding: "EmbeddingSettings | None" = None,
        precision: "Precision" = "auto",
    ):
        from fastbert.inference.frozen_model import FrozenModel, choose_dtype

        self.model, self.tokenizer = model.eval(), tokenizer
        self.embedding = embedding
        dtype = choose_dtype(precision, model.device)
        self._frozen = FrozenModel(model, dtype, precision == "int8")

    # ---- masks ----
    def fill_mask(
        self,
        texts: str | Sequence[str],
        top_k: int = 5,
        method: "FillMethod" = "independent",
        *,
        candidates: "Candidates | None" = None,
        beam: int = 16,
        max_pieces: int = 1,
        passes: int = 2000,
    ) -> list:
        """Guess the ``[MASK]``s of a text, each on its own or all together.

        Args:
            texts: one text or several, each with at least one ``[MASK]``, or what the tokenizer has for it.
            top_k: guesses for each mask, or fillings of each text.
            method: "independent": each mask given the text with all its masks, as Hugging Face's pipeline.
                "best-first": fill the most confident mask, then predict the others again. "beam": the most likely joint
                filling among the ``beam`` best beginnings. "exact": the most likely of all, by branch and bound; see
                :mod:`fastbert.inference.fill_mask` and :mod:`fastbert.inference.exact_fill`.
            candidates: words to choose from, one list for all masks or a list for each; of any number of pieces.
            beam: beginnings kept at each step.
            max_pieces: without candidates, let a mask stand for whole words of up to so many pieces.
            passes: "exact": unfinished fillings of a text to expand before the search returns the best found so far,
                never below beam search.

        Returns:
            "independent": as Hugging Face's fill-mask pipeline: for a text with one mask a list of ``top_k``
            dictionaries ``score`` (probability), ``token`` (id; a list of ids for a word of several pieces),
            ``token_str`` and ``sequence``; for several masks a list of such lists, one per mask. Jointly: a list of
            ``top_k`` dictionaries ``score`` (joint probability), ``log_score`` (in nats), ``tokens`` and ``token_strs``
            (one a mask) and ``sequence``; "exact" adds ``proven``: whether no other filling is more likely. For several
            texts a list of these.

        Raises:
            InputError: a text has no ``[MASK]`` or does not fit the model; an option or a candidate that cannot be.
        """
        from fastbert.inference.fill_methods import FillOptions, fill

        listed, rows = self._rows(texts)
        for text, ids in zip(listed, rows, strict=True):
            if self.tokenizer.mask_id not in ids:
                mask = self.tokenizer.mask_token
                raise InputError(f"no {mask} in {text[:60]!r}: write {mask} where a word is to be guessed")
        self._require_head()
        options = FillOptions(top_k, method, candidates, beam, max_pieces, passes)
        answers = fill(self.model, self.tokenizer, rows, options)
        if method == "independent":  # as Hugging Face: no list around the guesses of a single mask
            answers = [masks[0] if len(masks) == 1 else masks for masks in answers]
        return answers[0] if isinstance(texts, str) else answers

    # ---- scores ----
    def score(self, texts: str | Sequence[str], method: "Method" = "l2r", per_token: bool = False) -> Any:
        """Score how natural texts are: pseudo-log-likelihoods, in nats; greater (nearer to 0) is more natural.

        Args:
            texts: one text or several, without ``[MASK]``.
            method: "l2r": a token is predicted without the rest of its word to the right (Kauf & Ivanova 2023);
                "pll": only the token itself is masked (Salazar et al. 2020).
            per_token: return :class:`fastbert.inference.scoring.TextScore` with ``tokens``, ``offsets``, ``log_probs``,
                ``score`` and ``pseudo_perplexity`` instead of the sums.

        Returns:
            For one text a float (or a TextScore), for several a list, in their order. Longer texts have smaller sums:
            compare texts of one length, or ``pseudo_perplexity``.

        Raises:
            InputError: a text that does not fit the model or holds ``[MASK]``; unknown method.
        """
        from fastbert.inference.scoring import score_texts

        self._require_head()
        scored = score_texts(self.model, self.tokenizer, listed_texts(texts), method)
        values = scored if per_token else [text.score for text in scored]
        return values[0] if isinstance(texts, str) else values

    def pseudo_perplexity(self, texts: str | Sequence[str], method: "Method" = "l2r") -> float:
        """exp of minus the mean score of all tokens of all texts: 1 is certainty, V a uniform guess.

        Raises:
            InputError: as :meth:`score`; or no token at all.
        """
        from fastbert.inference.scoring import pseudo_perplexity

        return pseudo_perplexity(self.score(listed_texts(texts), method, per_token=True))

    # ---- generation ----
    def generate(
        self, prompt: str = "", length: int | None = None, *, samples: int | None = None, **sampling: Any
    ) -> str | list[str]:
        """Write text by filling masks step by step; the same arguments give the same text.

        Args:
            prompt: start of the text; may be empty, and may contain ``[MASK]``s, which are filled.
            length: tokens to add at the end (default: 32; none if the prompt contains ``[MASK]``).
            samples: texts to write; None: one.
            sampling: ``steps, temperature, top_p, order, remask, block, gibbs, repetition_penalty, no_repeat_ngram,
                seed``: see :class:`fastbert.inference.sampling.Sampling`.

        Returns:
            The whole text, prompt included, as its tokens spell it; a list of texts if ``samples`` is given.

        Raises:
            InputError: an option that cannot be; a prompt that does not fit the model.
        """
        from fastbert.inference import fill_mask as filling
        from fastbert.inference import generation

        known = [field.name for field in dataclasses.fields(generation.Sampling)]
        if unknown := sorted(set(sampling) - set(known)):
            raise InputError(f"{unknown[0]}=…: generate() has no such option: expected {', '.join(known)}")
        self._require_head()
        count = 1 if samples is None else samples
        rows = generation.masked_sequences(self.tokenizer, prompt, length, count, DEFAULT_LENGTH, self._limit)
        written = generation.generate(self.model, self.tokenizer, rows, generation.Sampling(**sampling))
        texts = [filling.readable_ids(self.tokenizer, ids) for ids in written]
        return texts[0] if samples is None else texts

    # ---- inside ----
    def embed(
        self,
        texts: str | Sequence[str],
        pooling: "Pooling | None" = None,
        normalize: bool | None = None,
        dimensions: int | None = None,
        windows: bool = False,
        prompt: str | None = None,
    ) -> "NDArray[np.float32]":
        """Turn texts into vectors.

        Args:
            texts: one text or several, truncated to the model's length (or the ``max_seq_length`` of a
                sentence-transformers directory); a warning counts the truncated ones.
            pooling: "mean" over all tokens, [CLS] and [SEP] included; "cls"; "max". None: as in the directory, or
                "mean".
            normalize: to length 1, so that products are cosines. None: as in the directory, or True.
            windows: pool texts that are too long over windows of them instead of truncating them.
            dimensions: keep only the first so many of D, which some models are trained for (Matryoshka), and normalize
                what is kept. None: as in the directory, whose ``truncate_dim`` is cut after the normalization.
            prompt: name of a prompt of the directory that is written before every text; None: its default one.

        Returns:
            (B, D) float32 for several texts, in their order; (D,) for one. As sentence-transformers gives them.

        Raises:
            InputError: unknown pooling; more dimensions than the model has; a directory that asks for modules that are
                not supported.
        """
        from fastbert.inference.embedding import EmbeddingSettings, embed_texts

        settings = self.embedding or EmbeddingSettings()
        if settings.unsupported and (pooling is None or normalize is None):
            raise InputError(
                f"this sentence-transformers model has {settings.unsupported}, which is not supported. "
                "Try: pooling= and normalize="
            )
        if prompt is not None:
            settings = settings.prompted(prompt)
        if pooling is not None:
            settings = dataclasses.replace(settings, pooling=pooling)
        if normalize is not None:
            settings = dataclasses.replace(settings, normalize=normalize, normalized_whole=False)
        if dimensions is not None:
            settings = dataclasses.replace(settings, dimensions=dimensions, normalized_whole=False)
        listed = listed_texts(texts)
        vectors = embed_texts(self.model, self.tokenizer, listed, settings, frozen=self._frozen, windows=windows)
        return vectors[0] if isinstance(texts, str) else vectors

    def attention(self, text: str, layer: int | None = None, head: int | None = None) -> "AttentionMaps":
        """Attention probabilities between the tokens of a text.

        Args:
            text: one text.
            layer: number of a layer from 0, negative from the last; None: all.
            head: number of a head; None: all.

        Returns:
            ``(tokens, weights)``: the L tokens, and float32 probabilities (layers, N, L, L), without the axis of a
            layer or head that was chosen. Row i is what token i attends to; it sums to 1.

        Raises:
            InputError: no such layer or head; a text that does not fit the model.
        """
        import torch

        from fastbert.inference.attention_maps import AttentionMaps, attention_probabilities

        config = self.model.config
        for name, value, count in (
            ("layer", layer, config.num_hidden_layers),
            ("head", head, config.num_attention_heads),
        ):
            if value is not None and not -count <= value < count:
                raise InputError(f"{name}={value}: the model has {count}, counted from 0")
        ids = self._ids(text)
        with torch.inference_mode():
            weights = attention_probabilities(self.model, self._batch([ids])).cpu().numpy()
        if head is not None:
            weights = weights[:, head]
        if layer is not None:
            weights = weights[layer]
        return AttentionMaps([self.tokenizer.id_to_token(i) or "" for i in ids], weights)

    def next_sentence(self, first: str, second: str) -> float:
        """Probability that ``second`` follows ``first``; classic models trained with ``--objective mlm+nsp`` only.

        Raises:
            InputError: the model has no next-sentence head.
        """
        import torch

        from fastbert.tasks.model import require_token_types

        if self.model.next_sentence is None or any(n.startswith("next_sentence") for n in self.model.fresh):
            raise InputError("this model has no next-sentence head: train one with --objective mlm+nsp")
        require_token_types(self.model.config)
        encoded = self.tokenizer.encode(first, second)
        if len(encoded.ids) > self._limit:
            raise InputError(f"both texts: {len(encoded.ids)} tokens, the model takes {self._limit}. Try: shorter ones")
        with torch.inference_mode():
            logits = self.model(self._batch([encoded.ids], [0], [encoded.type_ids])).seq_relationship_logits
        return logits.float().softmax(-1)[0, 0].item()

    # ---- files ----
    def save(self, directory: str | Path) -> None:
        """Write model and tokenizer in Hugging Face layout, and how texts become vectors in sentence-transformers'.

        Raises:
            InputError: the directory cannot be written.
        """
        from fastbert.inference.embedding_files import write_settings

        directory = Path(directory)
        (self.task_model or self.model).save_pretrained(directory)
        types = self.model.config.type_vocab_size > 0
        self.tokenizer.save(directory, token_type_ids=types, max_length=self._limit)
        if self.embedding is not None:
            write_settings(directory, self.embedding, self.model.config.hidden_size, self._limit)

    def to_onnx(self, path: str | Path, output: Literal["logits", "hidden", "embedding"] = "logits") -> None:
        """Write an ONNX file for padded ``(batch, length)`` inputs of any size; see :mod:`.onnx_export`.

        Args:
            path: of the file; weights over 2 GB lie beside it, in ``path``.data.
            output: "logits" of the model's head: of its task if it is fine-tuned, else over the vocabulary; "hidden":
                states of every token; "embedding": one vector a text, as :meth:`embed`.

        Raises:
            InputError: the packages of the extra ``onnx`` are missing; no head.
        """
        from fastbert.inference.onnx_export import export, plain_copy
        from fastbert.tasks.model import PaddedHead

        if output == "logits" and self.task_model is not None:
            task_head = PaddedHead(self.task_model.on(plain_copy(self.model)))
            backbone, names = task_head.model.backbone, task_head.output_names
            return export(backbone, Path(path), output, self.embedding, task_head, names)
        if output == "logits":
            self._require_head()
        export(self.model, Path(path), output, self.embedding)

    # ---- plumbing ----
    @property
    def _limit(self) -> int:
        """Tokens of the longest text."""
        return self.model.config.max_position_embeddings

    def _rows(self, texts: str | Sequence[str]) -> tuple[list[str], list[list[int]]]:
        listed = listed_texts(texts)
        return listed, [self._ids(text) for text in listed]

    def _ids(self, text: str) -> list[int]:
        ids = list(self.tokenizer.encode(text).ids)
        if len(ids) > self._limit:
            raise InputError(
                f"the text {text[:40]!r}… has {len(ids)} tokens and the model takes {self._limit}: shorten it"
            )
        return ids

    def _require_head(self) -> None:
        if any(name.startswith("head.") for name in self.model.fresh):
            raise InputError(
                "this checkpoint has no masked-LM head, so it cannot fill masks. Try: a checkpoint with one"
            )

    def _batch(
        self,
        rows: Sequence[Sequence[int]],
        masked_index: Sequence[int] | None = None,
        types: Sequence[Sequence[int]] | None = None,
    ) -> "PackedBatch":
        from fastbert.batch import pack_rows

        return pack_rows(rows, masked_index, types).to(self.model.device)
