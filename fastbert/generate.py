"""``python -m fastbert.generate MODEL "Era uma vez"``: generate text with a trained model."""

import dataclasses
import sys
from dataclasses import dataclass, field
from typing import Annotated

from fastbert.inference.sampling import Sampling
from fastbert.system.cli import Positional, run, unset
from fastbert.system.errors import InputError
from fastbert.system.json_files import json_line


@dataclass(frozen=True)
class GenerateOptions(Sampling):
    """Generate text with a trained model, by filling masks step by step.

    MODEL is a trained run or a Hugging Face directory (BERT or ModernBERT). A model trained with --objective diffusion
    can start from nothing; any other works better with a prompt and a small --block.
    """

    model: Positional[str] = field(kw_only=True)
    """Directory of the model."""
    prompt: Positional[str] = ""
    """Beginning of the text; its [MASK]s are filled."""
    length: Annotated[int | None, unset("N")] = None
    """Tokens to add after the prompt (default: 32; none if the prompt has [MASK]s)."""
    samples: int = 1
    """Number of texts."""
    json: bool = False
    """One JSON object per line instead of text."""
    device: Annotated[str | None, unset("NAME")] = None
    """cpu, cuda … (default: cpu)."""


def main(options: GenerateOptions) -> int:
    settings = {f.name: getattr(options, f.name) for f in dataclasses.fields(Sampling)}
    Sampling(**settings).check()
    if options.samples < 1:
        raise InputError(f"--samples {options.samples}: expected at least 1")
    from fastbert.bert import load
    from fastbert.text.detokenize import detokenize

    bert = load(options.model, device=options.device)
    for text in bert.generate(options.prompt, options.length, samples=options.samples, **settings):
        shown = detokenize(text)
        print(json_line({"prompt": options.prompt, "text": shown}).rstrip("\n") if options.json else shown)
    return 0


if __name__ == "__main__":
    sys.exit(run(main, GenerateOptions))
