"""Compiles every shipped kernel for GPUs that are not there, and checks what came out.

``python kernels/audit/audit.py --target sm_90`` compiles the recorded launches of launches.py with Triton's own
compiler, disassembles them and prints a table: registers, spills, shared memory, resident blocks, tensor-core
instructions, access widths and, for each innermost loop with tensor-core work, three cycle counts a warp on one
quarter of an SM: tensor = FLOPs / peak, issue = instructions, mufu = 8 a special-function instruction. ``bound`` =
tensor / max(all three): the most the tensor cores can be used if everything overlaps. It is an upper limit read from
the code, not a measured time.
"""

import argparse
import dataclasses
import re
import sys
from typing import Any

import torch
import triton
from sass import class_of, disassemble, mma_flops
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastbert.kernels.launch import Launch, interpreted

TARGETS = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120", "gfx942")


@dataclasses.dataclass(frozen=True)
class Chip:
    """Limits of one SM (CUDA programming guide, table of compute capabilities) and tensor FLOPs a quarter a cycle."""

    shared_bytes: int
    warps: int
    blocks: int
    block_shared_bytes: int
    tensor_flops: int
    registers: int = 65536


CHIPS = {
    80: Chip(167936, 64, 32, 166912, 512),
    86: Chip(102400, 48, 16, 101376, 256),
    89: Chip(102400, 48, 24, 101376, 256),
    90: Chip(233472, 64, 32, 232448, 1024),
    100: Chip(233472, 64, 32, 232448, 2048),
    120: Chip(102400, 48, 24, 101376, 256),
}
# what one block may take of gfx942's local memory
GFX942_SHARED_BYTES = 65536
_TYPES = {
    torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.int64: "i64", torch.int32: "i32",
    torch.int8: "i8", torch.uint8: "u8", torch.bool: "i1",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Loop:
    """One innermost loop that uses the tensor cores; cycles a warp."""

    instructions: int
    tensor: float
    issue: int
    mufu: int

    @property
    def bound(self) -> float:
        return self.tensor / max(self.tensor, self.issue, self.mufu)


@dataclasses.dataclass(frozen=True)
class Report:
    """What one launch compiles to on one target."""

    kernel: str
    target: str
    registers: int
    spill_bytes: int
    shared_bytes: int
    shared_limit: int
    resident_blocks: int
    tensor_instructions: int
    atomics: int
    widths: dict[str, int]
    loops: tuple[Loop, ...]

    def faults(self) -> list[str]:
        """What no kernel may have, regardless of its budget."""
        found = []
        if self.spill_bytes:
            found.append(f"{self.spill_bytes} bytes of spills")
        if self.shared_bytes > self.shared_limit:
            found.append(f"{self.shared_bytes} bytes of shared memory, the chip has {self.shared_limit}")
        if self.resident_blocks < 1:
            found.append("not one block fits an SM")
        if self.atomics:
            found.append(f"{self.atomics} atomics")
        return found


def target_of(name: str) -> GPUTarget:
    if name.startswith("sm_"):
        return GPUTarget("cuda", int(name[3:]), 32)
    return GPUTarget("hip", name, 64)


def signature_of(launch: Launch) -> tuple[dict[str, str], dict[str, Any], dict[tuple[int, ...], Any]]:
    """(types, constants, attributes), specialised as Triton's launcher would for these very arguments."""
    types: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    given = {**launch.arguments, **launch.config.blocks}
    for position, parameter in enumerate(launch.kernel.params):
        name = parameter.name
        if name not in given:
            raise TypeError(f"{launch.name}: no argument {name!r}")
        value = given.pop(name)
        divisible = False
        varies = parameter.do_not_specialize
        if parameter.is_constexpr or value is None or (type(value) is int and value == 1 and not varies):
            types[name], constants[name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            types[name] = "*" + _TYPES[value.dtype]
            # a fake tensor has no address; the allocator aligns storages to 512 bytes
            divisible = value.storage_offset() * value.element_size() % 16 == 0
        elif isinstance(value, int):
            types[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            divisible = value % 16 == 0 and not varies
        else:
            types[name] = "fp32"
        if divisible:
            attributes[(position,)] = [["tt.divisibility", 16]]
    if given:
        raise TypeError(f"{launch.name}: has no parameter {', '.join(given)}")
    return types, constants, attributes


def compile_for(launch: Launch, target: str):
    """Compile a recorded launch for a target; needs no GPU."""
    if interpreted(launch.kernel):
        raise RuntimeError("the kernels were imported under TRITON_INTERPRET=1. Remedy: audit in a process without it")
    types, constants, attributes = signature_of(launch)
    source = ASTSource(fn=launch.kernel, signature=types, constexprs=constants, attrs=attributes)
    options: dict[str, Any] = {"num_warps": launch.config.num_warps, "num_stages": launch.config.num_stages}
    if target.startswith("sm_"):
        options["enable_fp_fusion"] = True  # Triton 3.10 means to change the default
    return triton.compile(source, target=target_of(target), options=options)


def resident(registers: int, shared_bytes: int, warps: int, chip: Chip) -> int:
    """Blocks that fit one SM at once."""
    warp_registers = -(-registers * 32 // 256) * 256
    shared = -(-(shared_bytes + 1024) // 128) * 128
    return min(chip.registers // warp_registers // warps, chip.shared_bytes // shared, chip.warps // warps, chip.blocks)


def _loop(ops: list[str], chip: Chip) -> Loop:
    flops = sum(mma_flops(op) for op in ops)
    return Loop(len(ops), flops / chip.tensor_flops, len(ops), 8 * sum(class_of(op) == "mufu" for op in ops))


def _field(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(f"the AMD assembly has no {pattern!r}")
    return int(found.group(1))


def audit(launch: Launch, target: str) -> Report:
    """Compile one recorded launch and read the result."""
    compiled = compile_for(launch, target)
    shared = compiled.metadata.shared
    if target.startswith("gfx"):
        text = compiled.asm["amdgcn"]
        return Report(
            launch.name, target, _field(r"\.vgpr_count:\s+(\d+)", text), _field(r"\.vgpr_spill_count:\s+(\d+)", text),
            shared, GFX942_SHARED_BYTES, 1, len(re.findall(r"^\s*v_mfma", text, re.M)),
            len(re.findall(r"^\s*(?:global|buffer)_atomic", text, re.M)), {}, (),
        )  # fmt: skip
    chip = CHIPS[int(target[3:])]
    code = disassemble(compiled.asm["cubin"])
    blocks = resident(code.registers, shared, launch.config.num_warps, chip)
    loops = tuple(_loop(ops, chip) for ops in code.loops if any(class_of(op) == "mma" for op in ops))
    return Report(
        launch.name, target, code.registers, code.stack_bytes, shared, chip.block_shared_bytes, blocks,
        code.count("mma"), code.count("atomic"), code.widths(), loops,
    )  # fmt: skip


def row(label: str, report: Report) -> str:
    """One line of the table."""
    loops = ", ".join(f"{x.instructions}i {x.tensor:.0f}/{x.issue}/{x.mufu} {x.bound:.2f}" for x in report.loops)
    narrow = {k: v for k, v in report.widths.items()}
    return (
        f"{label:60s} {report.target:7s} {report.registers:4d} {report.spill_bytes:5d} {report.shared_bytes:7d} "
        f"{report.resident_blocks:3d} {report.tensor_instructions:4d}  {narrow}  [{loops}]"
    )


def main(arguments: list[str] | None = None) -> int:
    from launches import shipped

    parser = argparse.ArgumentParser(prog="python kernels/audit/audit.py", description=__doc__)
    parser.add_argument("--target", default="sm_90", choices=TARGETS, help="what to compile for (default sm_90)")
    parser.add_argument("--full", action="store_true", help="every dtype, head size and option: about 20 minutes")
    parser.add_argument("--only", default="", help="only kernels whose label contains this")
    chosen = parser.parse_args(arguments)
    print(f"{'kernel':60s} target  regs spill  shared res  mma  accesses  [loop: instructions tensor/issue/mufu bound]")
    faulty = 0
    for label, launch in shipped(chosen.target, full=chosen.full):
        if chosen.only not in label:
            continue
        report = audit(launch, chosen.target)
        tiles = "x".join(str(n) for n in launch.config.blocks.values())
        print(row(f"{label} {tiles}w{launch.config.num_warps}", report), *report.faults(), flush=True)
        faulty += bool(report.faults())
    return 1 if faulty else 0


if __name__ == "__main__":
    sys.exit(main())
