"""``python -m fastbert.info``: what this machine has, which implementation serves each op, and why."""

import json
import platform
import sys
from dataclasses import dataclass
from typing import Any

from fastbert.system.cli import run


@dataclass(frozen=True)
class InfoOptions:
    """Show versions, hardware, the C++ core, and op → implementation → why."""

    json: bool = False
    """Print one JSON object."""


def gather() -> dict[str, Any]:
    """All facts, JSON-able."""
    import torch

    import fastbert
    from fastbert import ops
    from fastbert.system import native
    from fastbert.system.environment import hardware

    core, why = native.status()
    kernels = native.compute().cpu_isa() if core else "none"
    facts: dict[str, Any] = {
        "fastbert": fastbert.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "hardware": hardware(),
        "core": {"available": core, "why": why, "kernels": kernels},
        "ops": {},
    }
    for op in ops.OPS:
        try:
            chosen, reason = ops.choose(op, "auto")
        except (RuntimeError, ValueError) as error:
            chosen, reason = "none", str(error)
        facts["ops"][op] = {"implementation": chosen, "why": reason}
    return facts


def main(options: InfoOptions) -> None:
    facts = gather()
    if options.json:
        print(json.dumps(facts, indent=2))
        return
    print(f"fastbert {facts['fastbert']}, torch {facts['torch']}, Python {facts['python']}")
    for name, value in facts["hardware"].items():
        print(f"  {name}: {', '.join(value) if isinstance(value, list) else value}")
    print(f"C++ core (tokenizer, masker, packer): {'loaded' if facts['core']['available'] else 'not loaded'}"
          f"{' (' + facts['core']['why'] + ')' if facts['core']['why'] else ''}")  # fmt: skip
    print(f"CPU kernels: {facts['core']['kernels']}")
    print("ops on this machine")
    for op, choice in facts["ops"].items():
        print(f"  {op:<18} {choice['implementation']:<10} {choice['why']}")


if __name__ == "__main__":
    sys.exit(run(main, InfoOptions))
