"""The bodies of requests. Fields that are not listed are refused, not dropped."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Texts = Annotated[str | list[str], Field(description="One text or several.")]
Count = Annotated[int, Field(ge=1, le=1000)]


class Body(BaseModel):
    """What all requests share."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: Annotated[str | None, Field(description="Name of the model; default: the first of /v1/models.")] = None


class EmbeddingsBody(Body):
    """Texts to turn into vectors, as OpenAI's embeddings endpoint takes them."""

    input: Texts
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int | None, Field(description="Only the width of the model.")] = None
    user: Annotated[str | None, Field(description="Not used.")] = None


class FillMaskBody(Body):
    """Texts with [MASK]s to fill."""

    texts: Texts
    top_k: Annotated[Count, Field(description="Guesses for each mask, or fillings of each text.")] = 5
    method: Literal["independent", "best-first", "beam", "exact"] = "independent"
    candidates: Annotated[
        list[str] | list[list[str]] | None, Field(description="Words to choose from, for all masks or for each.")
    ] = None
    beam: Annotated[Count, Field(description="Beginnings that beam search keeps.")] = 16
    max_pieces: Annotated[int, Field(ge=1, le=8, description="Pieces of the longest word of a mask.")] = 1
    passes: Annotated[int, Field(ge=1, le=10_000, description="Most fillings that exact search expands.")] = 2000


class ScoreBody(Body):
    """Texts whose naturalness is measured."""

    texts: Texts
    method: Literal["l2r", "pll"] = "l2r"


class ClassifyBody(Body):
    """Texts, or pairs of texts, for a model fine-tuned on classes or numbers."""

    texts: Texts
    pairs: Annotated[Texts | None, Field(description="The second texts of pairs, one for each.")] = None


class TagBody(Body):
    """Texts whose entities are found, by a model fine-tuned on tags."""

    texts: Texts


class AnswerBody(Body):
    """Questions, and the text or texts with their answers, for a model fine-tuned on questions."""

    question: Texts
    context: Annotated[Texts, Field(description="One for all questions, or one for each.")]
    top_k: Annotated[int, Field(ge=1, le=20)] = 1
    max_answer_tokens: Annotated[int | None, Field(ge=1, le=512)] = None


class SimilarityBody(Body):
    """Texts to compare, one by one."""

    first: Texts
    second: Texts


class PlayBody(Body):
    """What the page asks for."""

    texts: Annotated[list[str], Field(min_length=1, max_length=24)]
    language: Literal["en", "pt"] = "en"
    joint: bool = False
    candidates: str = ""
    second: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    length: Annotated[int, Field(ge=1, le=64)] = 16


def listed(texts: str | list[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else texts


def one_line(error: ValidationError) -> str:
    """The first problem of a body, and how many more there are."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    first: Any = problems[0]
    # the alternatives of a union are no part of the field's name
    where = ".".join(str(part) for part in first["loc"] if not _is_alternative(str(part))) or "body"
    more = len({problem["loc"][:1] for problem in problems}) - 1
    return f"{where}: {first['msg']}{f' (and {more} more)' if more else ''}. Try: /docs lists the fields"


def _is_alternative(part: str) -> bool:
    return part == "str" or part.startswith(("list[", "constrained-"))
