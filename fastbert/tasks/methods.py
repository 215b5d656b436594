"""The task methods of :class:`fastbert.bert.Bert`: classify, tag, answer and similarity."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastbert.system.errors import InputError

if TYPE_CHECKING:
    from fastbert.model import BertForPreTraining
    from fastbert.tasks.model import TaskModel
    from fastbert.text import Tokenizer

Texts = str | Sequence[str]
# what transformers calls models whose head, if any, is that of a pretraining
_WITHOUT_HEAD = ("Model", "ForMaskedLM", "ForCausalLM", "ForPreTraining", "ForNextSentencePrediction")
_METHOD = {"classification": "classify", "regression": "classify", "tagging": "tag", "qa": "answer"}


class TaskMethods:
    """classify, tag, answer, similarity. Needs ``model`` and ``tokenizer``, and ``task_model`` if there is a head."""

    model: "BertForPreTraining"
    tokenizer: "Tokenizer"
    task_model: "TaskModel | None" = None
    embed: Any  # (texts, pooling, normalize) → vectors
    embedding: Any = None  # EmbeddingSettings of a sentence-transformers directory

    def classify(self, texts: Texts, pairs: Texts | None = None, windows: bool | None = None) -> Any:
        """Classify each text, or each pair of texts.

        Args:
            texts: one text or several.
            pairs: the second texts of pairs, one for each.
            windows: split texts that are too long into windows, whose logits are averaged, instead of truncating them;
                None: as the model was fine-tuned.

        Returns:
            For one text ``{"label", "score" (its probability), "scores" (of every label)}``, for several a list of
            these; a regression model returns numbers instead. A model with several labels per text returns ``{"labels":
            those whose probability reaches their threshold, "scores"}``.

        Raises:
            InputError: a model without such a head, or pairs where it expects single texts, or the reverse.
        """
        from fastbert.tasks import prediction
        from fastbert.tasks.examples import TextExample

        model = self._head("classification", "regression")
        listed, seconds = listed_texts(texts), None if pairs is None else listed_texts(pairs)
        expected = model.settings.pairs
        if expected is not None and listed and expected != (seconds is not None):
            kind = "pairs of texts. Try: give the second ones" if expected else "single texts. Try: no second ones"
            raise InputError(f"this model was fine-tuned on {kind}")
        if seconds is not None and len(seconds) != len(listed):
            raise InputError(f"{len(listed)} first and {len(seconds)} second texts. Try: the same number of each")
        examples = [TextExample("", text, None if seconds is None else seconds[i]) for i, text in enumerate(listed)]
        found = prediction.classify(model, self.tokenizer, examples, windows)
        return found[0] if isinstance(texts, str) else found

    def tag(self, texts: Texts) -> Any:
        """Find the entities of each text.

        Returns:
            For one text a list of ``{"entity", "text", "start", "end", "score"}``: kind, words, characters of the text
            and mean probability; for several a list of these lists. With plain labels each word is an entity.

        Raises:
            InputError: a model without such a head.
        """
        from fastbert.tasks import prediction

        found = prediction.tag_texts(self._head("tagging"), self.tokenizer, listed_texts(texts))
        return found[0] if isinstance(texts, str) else found

    def answer(
        self,
        question: Texts,
        context: Texts,
        top_k: int = 1,
        max_answer_tokens: int | None = None,
        unanswerable: bool | None = None,
    ) -> Any:
        """Answer questions with words of their contexts, which may have any length.

        Args:
            question: one question or several.
            context: one text for all questions, or one for each.
            top_k: answers to each question, none overlapping a better one; there may be fewer.
            max_answer_tokens: the longest answer; None: as fine-tuned.
            unanswerable: whether the answer may be empty; None: as fine-tuned, and never with a model that was
                fine-tuned elsewhere, as in transformers: True for one of SQuAD 2.

        Returns:
            For one question ``{"answer", "score" (probability), "start", "end"}`` (characters of the context), or a
            list of the ``top_k`` best; for several a list of these. An empty answer: the context has none.

        Raises:
            InputError: a model without such a head, or another number of contexts.
        """
        from fastbert.tasks import prediction
        from fastbert.tasks.examples import QuestionExample

        model = self._head("qa")
        questions = listed_texts(question)
        contexts = [context] * len(questions) if isinstance(context, str) else listed_texts(context)
        if len(contexts) != len(questions):
            raise InputError(f"{len(questions)} questions, {len(contexts)} contexts. Try: one for each, or for all")
        for name, value in (("top_k", top_k), ("max_answer_tokens", max_answer_tokens)):
            if value is not None and value < 1:
                raise InputError(f"{name}={value}: expected at least 1")
        examples = [QuestionExample("", "", q, c) for q, c in zip(questions, contexts, strict=True)]
        found: list[Any] = prediction.answer(model, self.tokenizer, examples, top_k, max_answer_tokens, unanswerable)
        if top_k == 1:
            found = [best[0] for best in found]
        return found[0] if isinstance(question, str) else found

    def similarity(self, first: Texts, second: Texts) -> Any:
        """Measure how similar two texts are.

        Returns:
            A number, or for several pairs a list. A model fine-tuned on pairs with numbers answers on their scale; for
            any other it is what a sentence-transformers directory says (cosine, dot product, or minus the Euclidean or
            Manhattan distance) of the vectors of :meth:`embed`, or their cosine.

        Raises:
            InputError: lists of unequal length; a directory that asks for another similarity.
        """
        from fastbert.tasks import prediction

        kind = "cosine" if self.embedding is None else self.embedding.similarity

        def embed(listed: list[str]) -> Any:
            return self.embed(listed, normalize=True if kind == "cosine" else None)

        firsts, seconds = listed_texts(first), listed_texts(second)
        found = prediction.similarity(self.task_model, embed, self.tokenizer, firsts, seconds, kind)
        return found[0] if isinstance(first, str) else found

    def _head(self, *tasks: str) -> "TaskModel":
        if self.task_model is None:
            raise InputError(f"this model has no head for {tasks[0]}. Try: python -m fastbert.finetune")
        if (task := self.task_model.settings.task) not in tasks:
            raise InputError(f"this model was fine-tuned for {task}, not {tasks[0]}. Try: {_METHOD[task]}()")
        return self.task_model


def listed_texts(texts: Texts) -> list[str]:
    """One or several texts as a list.

    Raises:
        InputError: anything that is not a string.
    """
    try:
        listed = [texts] if isinstance(texts, str) else list(texts)
    except TypeError:
        listed = [texts]  # type: ignore[list-item]
    for number, text in enumerate(listed, start=1):
        if not isinstance(text, str):
            raise InputError(f"text {number}: is {type(text).__name__}. Try: a str, or a list of str")
    return listed


def read_head(directory: Path, backbone: "BertForPreTraining") -> "TaskModel | None":
    """The head in a directory whose encoder is ``backbone``; None if there is none, or one that is not supported."""
    from fastbert.system.json_files import read_object
    from fastbert.tasks.model import TaskModel, settings_of

    hf = read_object(directory / "config.json", "copy the file again from its source")
    if settings_of(hf, str(directory)) is None:
        kind = str((hf.get("architectures") or ["Model"])[0])
        if not kind.endswith(_WITHOUT_HEAD):
            warnings.warn(f"{directory}: the head of {kind} is not supported: only the encoder is read", stacklevel=3)
        return None
    return TaskModel.from_pretrained(directory, backbone).to(backbone.device)
