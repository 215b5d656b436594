"""``python -m fastbert.predict MODEL "O [MASK] é azul."``: ask a trained model."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from fastbert.cli import Positional, run, unset
from fastbert.errors import InputError

if TYPE_CHECKING:
    from fastbert.bert import Bert


@dataclass(frozen=True)
class PredictOptions:
    """Guess the [MASK]s of texts, or whether one sentence follows another.

    MODEL is a trained run or a Hugging Face directory (BERT or ModernBERT). Without a text, lines are read from
    standard input.
    """

    model: Positional[str]
    """Directory of the model."""
    texts: Positional[list[str]] = field(default_factory=list)
    """Texts, each with one or more [MASK]; "-" reads lines from standard input."""
    top_k: int = 5
    """Guesses for each [MASK]."""
    next: Annotated[str | None, unset("SENTENCE")] = None
    """A sentence: print the probability that it follows each text (models trained with mlm+nsp)."""
    json: bool = False
    """One JSON object a line instead of text."""
    device: Annotated[str | None, unset("NAME")] = None
    """cpu, cuda … (default: cpu)."""


def main(options: PredictOptions) -> int:
    if options.top_k < 1:
        raise InputError(f"--top-k {options.top_k}: expected at least 1")
    from fastbert.bert import load

    bert = load(options.model, device=options.device)
    for text in read_texts(options.texts):
        print(follow(bert, text, options) if options.next is not None else fill(bert, text, options), flush=True)
    return 0


def read_texts(texts: list[str]) -> Iterator[str]:
    """The texts given, or the non-empty lines of standard input."""
    if texts and texts != ["-"]:
        yield from texts
        return
    try:
        for line in sys.stdin:
            if line.strip():
                yield line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InputError(f"standard input is not UTF-8 (byte {error.start} of a block): re-encode it") from None


def fill(bert: "Bert", text: str, options: PredictOptions) -> str:
    answer = bert.fill_mask(text, top_k=options.top_k)
    masks = [answer] if isinstance(answer[0], dict) else answer
    if options.json:
        return json.dumps({"text": text, "masks": masks}, ensure_ascii=False)
    lines = [text]
    for number, guesses in enumerate(masks, start=1):
        if len(masks) > 1:
            lines.append(f"  [MASK] {number} of {len(masks)}")
        lines += [f"  {guess['score']:6.1%}  {guess['token_str']:<16}  {guess['sequence']}" for guess in guesses]
    return "\n".join(lines)


def follow(bert: "Bert", text: str, options: PredictOptions) -> str:
    assert options.next is not None
    probability = bert.next_sentence(text, options.next)
    if options.json:
        return json.dumps({"text": text, "next": options.next, "follows": probability}, ensure_ascii=False)
    verdict = "follows" if probability > 0.5 else "does not follow"
    return f"{text}\n  {probability:6.1%}  {verdict}: {options.next}"


if __name__ == "__main__":
    sys.exit(run(main, PredictOptions))
