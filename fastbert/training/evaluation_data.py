"""Which part of the text a model is trained on, and which it is evaluated on."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice, pairwise

import numpy as np

from fastbert.batch import PackedBatch
from fastbert.data import TokenStore, split_documents
from fastbert.data.batches.overlap import first_sentences, repeated_share
from fastbert.data.batches.spans import DocumentSpans
from fastbert.system.errors import InputError
from fastbert.text import Tokenizer
from fastbert.training import memorization
from fastbert.training.prepare_data import TrainingText

Spans = np.ndarray | DocumentSpans
MIN_REPORTED_SHARE = 0.01  # of the held-out tokens, in lines that are repeated in the training text


@dataclass(frozen=True)
class EvaluationText:
    """What is trained on, and what is evaluated on.

    Attributes:
        train: documents of the training store.
        store: has the evaluation documents.
        heldout: those documents; the training text itself if nothing could be held out.
        unseen: whether they are not trained on.
        reason: why not; or why they are not whole documents.
        memorization: exhaustive questions for a text small enough to memorize, else None.
        replay: the same of the text of ``--replay``.
    """

    train: Spans
    store: TokenStore
    heldout: Spans
    unseen: bool
    reason: str
    memorization: PackedBatch | None
    replay: "EvaluationText | None" = None

    @classmethod
    def choose(cls, text: TrainingText, fraction: float, *, max_length: int, next_sentence: bool) -> "EvaluationText":
        """The held-out store if there is one, else a ``fraction`` of the training documents, else the training text."""
        chosen = cls._of_main_text(text, fraction, max_length=max_length, next_sentence=next_sentence)
        if text.replay_store is None:
            return chosen
        split = split_documents(text.replay_store, fraction=fraction)
        unseen = len(split.heldout) > 0
        heldout = split.heldout if unseen else split.train
        return replace(chosen, replay=cls(split.train, text.replay_store, heldout, unseen, split.reason, None))

    @classmethod
    def _of_main_text(
        cls, text: TrainingText, fraction: float, *, max_length: int, next_sentence: bool
    ) -> "EvaluationText":
        if next_sentence and text.store.num_sentences == text.store.num_documents:
            raise InputError(
                "--objective mlm+nsp: every document is a single line, so no sentence follows another. Try: "
                "--objective mlm, or one sentence in each line and a blank line between documents"
            )
        if text.heldout_store is not None:
            train, heldout = (split_documents(store, fraction=0.0).train for store in (text.store, text.heldout_store))
            if len(heldout):
                return cls(train, text.heldout_store, heldout, True, "", None)
            return cls(train, text.store, train, False, "the held-out text is empty", None)
        split = split_documents(text.store, fraction=fraction)
        if len(split.heldout):
            return cls(split.train, text.store, split.heldout, True, split.reason, None)
        questions = memorization_batch(text.store, split.train, text.tokenizer, max_length, next_sentence)
        return cls(split.train, text.store, split.train, False, split.reason, questions)

    @property
    def measured_on(self) -> str:
        """What it is called where its metrics are shown."""
        if not self.unseen:
            return "the training text"
        return "unseen lines" if self.reason else "unseen documents"

    def notes(self, text: TrainingText) -> list[str]:
        """Lines for the user: what was held out, and whether it also stands in the training text."""
        if not self.unseen:
            return [f"evaluation: on the training text itself ({self.reason})"]
        ends = self.store.sentence_offsets[np.asarray(self.heldout)]
        tokens = int((ends[:, 1] - ends[:, 0]).sum())
        what = self.reason or f"{len(self.heldout):,} documents are held out"
        share = f" ({tokens / self.store.num_tokens:.1%})" if text.heldout_store is None else ""
        found = [f"evaluation: {what}, {tokens:,} tokens{share}"]
        if not self._has_words(text.tokenizer):
            found.append(
                "warning: the held-out text has nothing to predict, only [UNK]. Try: --eval-data, or more text"
            )
        train_store = None if text.heldout_store is None else text.store
        repeated = repeated_share(self.store, np.asarray(self.heldout), train_store)
        if repeated >= MIN_REPORTED_SHARE:
            found.append(
                f"warning: {repeated:.1%} of the held-out tokens are in lines that also stand in the training text, so "
                "the model is tested on what it has read. Try: remove repeated lines, or --eval-data with other text"
            )
        return found

    def _has_words(self, tokenizer: Tokenizer) -> bool:
        """Whether the beginning of the held-out text has anything but special tokens."""
        sentences = first_sentences(self.store, np.asarray(self.heldout))
        starts, stops = self.store.sentence_offsets[sentences], self.store.sentence_offsets[sentences + 1]
        return not np.isin(self.store.gather(starts, stops - starts), tokenizer.special_ids).all()

    def sentences(self, limit: int) -> list[list[int]]:
        """Up to ``limit`` evaluation sentences, as token ids."""
        return list(islice((ids for span in self.heldout for ids in sentences_of(self.store, span)), limit))


def memorization_batch(
    store: TokenStore, spans: Spans, tokenizer: Tokenizer, max_length: int, next_sentence: bool
) -> PackedBatch | None:
    """Exhaustive questions for a text of a few lines, None for any other."""
    if not memorization.small_enough(store.num_sentences, store.num_tokens):
        return None
    documents = [list(sentences_of(store, span)) for span in spans]
    return memorization.questions(documents, tokenizer, max_length=max_length, next_sentence=next_sentence)


def sentences_of(store: TokenStore, span) -> Iterator[list[int]]:
    """The sentences of a span (first, last exclusive), as token ids."""
    offsets = store.sentence_offsets[int(span[0]) : int(span[1]) + 1].tolist()
    for start, stop in pairwise(offsets):
        yield store.gather([start], [stop - start]).tolist()
