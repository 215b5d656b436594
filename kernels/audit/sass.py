"""Reads what the assembler made of a kernel: registers, spills, instruction classes, innermost loops, access widths.

Uses cuobjdump and nvdisasm from the triton wheel; no GPU and no CUDA toolkit is needed.
"""

import collections
import dataclasses
import re
import subprocess
import tempfile
from pathlib import Path

import triton

_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
_CLASSES = (
    ("mma", r"HMMA|HGMMA|IMMA|QGMMA|IGMMA|UTC\w*MMA|OMMA|QMMA|DMMA"),
    ("cp.async", "LDGSTS"),
    ("tma", "UTMALDG|UTMASTG|UBLKCP"),
    ("load", r"LDG|LD\."),
    ("store", r"STG|ST\."),
    ("atomic", r"ATOMG|ATOM\.|RED\.|REDG"),
    ("local", "LDL|STL"),
    ("mufu", "MUFU"),
)
_WIDTH = re.compile(r"\.(U8|S8|U16|S16|64|128|256)\b")
_WIDTH_BYTES = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16, "256": 32}
_HMMA_FLOPS = {"16816": 4096, "1688": 2048, "1684": 1024}


def class_of(op: str) -> str:
    return next((name for name, pattern in _CLASSES if re.match(pattern, op)), "other")


def access_bytes(op: str) -> int:
    """Bytes a lane moves in one memory instruction."""
    widths = _WIDTH.findall(op)
    return _WIDTH_BYTES[widths[-1]] if widths else 4


def mma_flops(op: str) -> float:
    """FLOPs of one warp in one tensor-core instruction (a warpgroup's instruction counts a quarter a warp)."""
    if m := re.match(r"HMMA\.(\d+)", op):
        return _HMMA_FLOPS.get(m.group(1), 0)
    if m := re.match(r"HGMMA\.(\d+)x(\d+)x(\d+)", op):
        a, b, c = map(int, m.groups())
        return 2 * a * b * c / 4
    return 0


@dataclasses.dataclass(frozen=True)
class Code:
    """A disassembled kernel."""

    registers: int
    stack_bytes: int
    ops: list[str]
    loops: list[list[str]]  # innermost loops, each its instructions

    def count(self, name: str) -> int:
        return sum(class_of(op) == name for op in self.ops)

    def widths(self) -> dict[str, int]:
        """How many instructions move how many bytes a lane, as {"load 16": 4, …}."""
        kinds = ("load", "store", "cp.async")
        found = collections.Counter(f"{class_of(op)} {access_bytes(op)}" for op in self.ops if class_of(op) in kinds)
        return dict(sorted(found.items()))


def _run(tool: str, *arguments: str) -> str:
    return subprocess.run([str(_TOOLS / tool), *arguments], capture_output=True, text=True, check=True).stdout


def disassemble(cubin: bytes) -> Code:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = _run("cuobjdump", "-res-usage", file.name)
        text = _run("nvdisasm", "-c", file.name)
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump -res-usage printed no registers: {usage[:200]!r}")
    ops, targets, labels = [], [], {}
    for line in text.splitlines():
        if m := re.match(r"^\s*(\.L_\w+):", line):
            labels[m.group(1)] = len(ops)
        elif m := re.match(r"^\s*/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
            body = re.sub(r"^@!?U?P\w+\s+", "", m.group(1))
            target = re.search(r"`\((\.L_\w+)\)", body)
            ops.append(body.split()[0])
            targets.append(target.group(1) if target else "")
    back = [
        (labels[t], i)
        for i, (op, t) in enumerate(zip(ops, targets, strict=True))
        if op.startswith(("BRA", "UBRA")) and labels.get(t, len(ops)) < i
    ]
    inner = sorted({(a, b) for a, b in back if not any((c, d) != (a, b) and a <= c and d <= b for c, d in back)})
    return Code(int(found.group(1)), int(found.group(2)), ops, [ops[a : b + 1] for a, b in inner if b - a >= 8])
