"""A page for people, from results.jsonl, with the bars of docs/gpu.md."""

from typing import Any

from record import facts_of

# (preset, architecture, length) → tokens a second that an H100-class card must reach (docs/gpu.md)
BARS = {("base", "modern", 128): 0.8e6, ("mini", "modern", 128): 3e6}


def short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def summary() -> None:
    for kind in (
        "machine", "core", "nvidia-smi", "first layer", "ceilings", "model", "repeatable", "optimizer state put back",
        "command", "resume", "parity", "captured step", "profile", "peer step", "training run", "held out", "inference",
        "what it says", "tuned",
    ):  # fmt: skip
        for one in facts_of(kind):
            print(str({key: short(value) for key, value in one.items()})[:600])
    for one in facts_of("step"):
        bar = BARS.get((one["preset"], one["arch"], one["length"]))
        verdict = "" if bar is None or "tokens_s" not in one else f"  {one['tokens_s'] / bar:.0%} of the bar"
        print(str({key: short(value) for key, value in one.items()}) + verdict)
    for one in facts_of("op"):
        rest = one.get("failed") or one.get("skipped") or f"{one['share']:.0%} of what the card can do"
        ms = one.get("ms", float("nan"))
        print(f"  {one['op']:16} {one['length']:5} {one['who']:18} {ms:9.4f} ms  {rest}")
    failed = [one for one in facts_of("phase") if one.get("exit") or one.get("skipped")]
    print("phases that failed or found no time:", ", ".join(one["name"] for one in failed) or "none")
