"""Prints pip constraints: of every dependency but a few, the oldest version that pyproject.toml allows.

    python .ci/oldest.py > oldest.txt && pip install -c oldest.txt -e ".[data,metrics,onnx,tasks]" pytest transformers

Left out: torch, whose older builds for the CPU are not on the package index while the others take gigabytes; triton,
which kernels/check.sh tries by version; what only looks at pages or at the source (playwright, ruff, mypy).
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import tomllib

LEFT_OUT = {"torch", "fastbert", "triton", "playwright", "ruff", "mypy"}


def oldest(project: dict) -> Iterator[str]:
    optional = project["optional-dependencies"]
    for requirement in [*project["dependencies"], *(line for extra in optional.values() for line in extra)]:
        found = re.fullmatch(r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?(?:>=([0-9.]+))?(;.*)?", requirement.replace(" ", ""))
        if found is None or (found[2] is None and found[1] not in LEFT_OUT):
            sys.exit(f"pyproject.toml: {requirement!r} has no lower bound that can be tried: write name>=version")
        if found[1] not in LEFT_OUT:
            yield f"{found[1]}=={found[2]}"


if __name__ == "__main__":
    text = (Path(__file__).resolve().parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    print("\n".join(oldest(tomllib.loads(text)["project"])))
