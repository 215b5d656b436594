"""``python -m fastbert.generate MODEL "Era uma vez"``: let a trained model write."""

import json
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

from fastbert.system.cli import Positional, run, unset
from fastbert.system.errors import InputError


@dataclass(frozen=True)
class GenerateOptions:
    """Write text with a trained model, by filling masks step by step.

    MODEL is a trained run or a Hugging Face directory (BERT or ModernBERT). A model trained with --objective diffusion
    can begin from nothing; any other does better with a prompt and a small --block.
    """

    model: Positional[str]
    """Directory of the model."""
    prompt: Positional[str] = ""
    """What the text begins with; its [MASK]s are filled."""
    length: Annotated[int | None, unset("N")] = None
    """Tokens to add after the prompt (default: 32; none to a prompt with [MASK]s)."""
    samples: int = 1
    """Texts to write."""
    steps: Annotated[int | None, unset("N")] = None
    """Steps from all masks to none (default: one for each mask; fewer are quicker and rougher)."""
    temperature: float = 0.7
    """Below 1 surer, above 1 wilder, 0 always the likeliest token."""
    top_p: float = 0.9
    """Draw from the likeliest tokens that together have this probability."""
    order: Literal["confidence", "random", "left-to-right"] = "confidence"
    """Which proposals a step keeps: the likeliest, any, or the leftmost."""
    remask: bool = False
    """Let later steps hide again what was least sure."""
    block: Annotated[int | None, unset("N")] = None
    """Finish this many tokens, from the left, before the next ones begin (default: all at once)."""
    gibbs: int = 0
    """Sweeps over the finished text, each token drawn anew."""
    repetition_penalty: float = 1.2
    """Makes tokens that the text already has less likely; 1: no penalty."""
    no_repeat_ngram: int = 3
    """No sequence of this many tokens twice, and no token twice in a row; 0: no limit."""
    seed: int = 0
    """The same seed and options give the same text."""
    json: bool = False
    """One JSON object a line instead of text."""
    device: Annotated[str | None, unset("NAME")] = None
    """cpu, cuda … (default: cpu)."""


def main(options: GenerateOptions) -> int:
    from fastbert.inference.generation import Sampling

    names = ("steps", "temperature", "top_p", "order", "remask", "block", "gibbs", "repetition_penalty",
             "no_repeat_ngram", "seed")  # fmt: skip
    settings = {name: getattr(options, name) for name in names}
    Sampling(**settings).check()
    if options.samples < 1:
        raise InputError(f"--samples {options.samples}: expected at least 1")
    from fastbert.bert import load
    from fastbert.text.detokenize import detokenize

    bert = load(options.model, device=options.device)
    for text in bert.generate(options.prompt, options.length, samples=options.samples, **settings):
        shown = detokenize(text)
        print(json.dumps({"prompt": options.prompt, "text": shown}, ensure_ascii=False) if options.json else shown)
    return 0


if __name__ == "__main__":
    sys.exit(run(main, GenerateOptions))
