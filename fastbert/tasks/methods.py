"""What a fine-tuned model answers from Python: the methods that :class:`fastbert.bert.Bert` has of the tasks."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastbert.system.errors import InputError

if TYPE_CHECKING:
    from fastbert.model import BertForPreTraining
    from fastbert.tasks.model import TaskModel
    from fastbert.text import Tokenizer

Texts = str | Sequence[str]
_WHAT = {"classification": "classify", "regression": "classify", "tagging": "tag", "qa": "answer"}


class TaskMethods:
    """classify, tag, answer, similarity. Needs ``model`` and ``tokenizer``; ``task_model`` where there is a head."""

    model: "BertForPreTraining"
    tokenizer: "Tokenizer"
    task_model: "TaskModel | None" = None
    embed: Any  # (texts, pooling, normalize) → vectors

    def classify(self, texts: Texts, pairs: Texts | None = None) -> Any:
        """Give the class of each text, or of each pair of texts.

        Args:
            texts: one text or several.
            pairs: the second texts of pairs, as many.

        Returns:
            For one text ``{"label", "score" (its probability), "scores" (of every label)}``, for several a list of
            these; of a regression model the number in place of the dictionary.

        Raises:
            InputError: a model without such a head, pairs where single texts are wanted, or the other way round.
        """
        from fastbert.tasks import prediction
        from fastbert.tasks.examples import TextExample

        model = self._head("classification", "regression")
        listed, seconds = _listed(texts), None if pairs is None else _listed(pairs)
        wanted = model.settings.pairs
        if wanted is not None and listed and wanted != (seconds is not None):
            kind = "pairs of texts: give the second ones too" if wanted else "single texts: leave the second ones out"
            raise InputError(f"this model was fine-tuned on {kind}")
        if seconds is not None and len(seconds) != len(listed):
            raise InputError(f"{len(listed)} first and {len(seconds)} second texts: give as many of each")
        examples = [TextExample("", text, None if seconds is None else seconds[i]) for i, text in enumerate(listed)]
        found = prediction.classify(model, self.tokenizer, examples)
        return found[0] if isinstance(texts, str) else found

    def tag(self, texts: Texts) -> Any:
        """Find the entities of each text.

        Returns:
            For one text a list of ``{"entity", "text", "start", "end", "score"}``: kind, words, characters of the text
            and mean probability; for several a list of these lists.

        Raises:
            InputError: a model without such a head.
        """
        from fastbert.tasks import prediction

        found = prediction.tag_texts(self._head("tagging"), self.tokenizer, _listed(texts))
        return found[0] if isinstance(texts, str) else found

    def answer(self, question: Texts, context: Texts, top_k: int = 1) -> Any:
        """Answer questions with words of their contexts, of any length.

        Args:
            question: one question or several.
            context: one text for all questions, or one for each.
            top_k: answers to each question.

        Returns:
            For one question ``{"answer", "score" (probability), "start", "end"}`` (characters of the context), or a
            list of the ``top_k`` best; for several a list of these. An empty answer: the text does not say.

        Raises:
            InputError: a model without such a head, or another number of contexts.
        """
        from fastbert.tasks import prediction
        from fastbert.tasks.examples import QuestionExample

        model = self._head("qa")
        questions = _listed(question)
        contexts = [context] * len(questions) if isinstance(context, str) else _listed(context)
        if len(contexts) != len(questions):
            raise InputError(
                f"{len(questions)} questions and {len(contexts)} contexts: give one for each, or one for all"
            )
        if top_k < 1:
            raise InputError(f"top_k={top_k}: expected at least 1")
        examples = [QuestionExample("", "", q, c) for q, c in zip(questions, contexts, strict=True)]
        found: list[Any] = prediction.answer(model, self.tokenizer, examples, top_k)
        if top_k == 1:
            found = [best[0] for best in found]
        return found[0] if isinstance(question, str) else found

    def similarity(self, first: Texts, second: Texts) -> Any:
        """Say how alike two texts are.

        Returns:
            A number, or for several pairs a list. Of a model fine-tuned on pairs with numbers it is on their scale; of
            any other it is the cosine of the mean-pooled embeddings.

        Raises:
            InputError: lists of unequal length.
        """
        from fastbert.tasks import prediction

        def embed(listed: list[str]) -> Any:
            return self.embed(listed, pooling="mean", normalize=True)

        found = prediction.similarity(self.task_model, embed, self.tokenizer, _listed(first), _listed(second))
        return found[0] if isinstance(first, str) else found

    def _head(self, *tasks: str) -> "TaskModel":
        if self.task_model is None:
            raise InputError(f"this model has no head for {tasks[0]}: fine-tune it with python -m fastbert.finetune")
        if (task := self.task_model.settings.task) not in tasks:
            raise InputError(f"this model was fine-tuned for {task}, not {tasks[0]}: use {_WHAT[task]}()")
        return self.task_model


def _listed(texts: Texts) -> list[str]:
    listed = [texts] if isinstance(texts, str) else list(texts)
    for text in listed:
        if not isinstance(text, str):
            raise InputError(f"expected text as str, got {type(text).__name__}: give strings")
    return listed


def read_head(directory: Path, backbone: "BertForPreTraining") -> "TaskModel | None":
    """The head in a directory whose encoder is ``backbone``, None where there is none that is supported here."""
    from fastbert.system.json_files import read_object
    from fastbert.tasks.model import TaskModel, settings_of

    hf = read_object(directory / "config.json", "copy the file again from its source")
    # such a model still serves for embeddings
    if hf.get("problem_type") == "multi_label_classification" or settings_of(hf, str(directory)) is None:
        return None
    return TaskModel.from_pretrained(directory, backbone).to(backbone.device)
