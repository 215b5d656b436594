"""Training steps against Hugging Face's on the same batches: real tokens a second, and what share of the peak that is.

    python benchmarks/training/compare.py                         # every shape, one thread
    python benchmarks/training/compare.py mini-8k --full --threads 2 --windows 5

Every contestant is a process of its own that starts from the same weights. First all must give the same float32 loss on
the first batch; then they take turns, a window each, so that whatever else the machine does meets all of them alike.
Ratios are of medians; [low, high] is the whole range over windows. ``--clock cpu`` (the default with one thread) counts
processor seconds and is right on a shared machine; ``--clock wall`` needs a quiet one. The arithmetic is bf16 where the
processor has it (``fastbert.ops.bf16_is_fast``), else float32, for the tuned peer and the peak, too.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from batches import SHAPES, make_batches, useful_flops

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import Worker, answer, ratios, take_turns

WINDOW_S = 3.0
WARM_STEPS = 3
LOSS_TOLERANCE = 2e-5  # relative, float32 against float32


def work(options) -> None:
    """A contestant: answers one JSON line to each line it reads."""
    import torch

    torch.set_num_threads(options.threads)
    from contestants import CONTESTANTS

    contestant = CONTESTANTS[options.worker](Path(options.start), bf16())
    batches, _ = make_batches(SHAPES[options.shapes[0]], options.batches, options.full)
    prepared = [contestant.prepare(batch) for batch in batches]

    answer(loss=contestant.exact_loss(prepared[0]), versions=contestant.versions)
    for line in sys.stdin:
        began, cpu_began, steps = time.perf_counter(), time.process_time(), 0
        loss = None
        if line.strip() == "warm":
            for index in range(WARM_STEPS):
                loss = contestant.step(prepared[index % len(prepared)])
            steps = WARM_STEPS
        else:
            while time.process_time() - cpu_began < WINDOW_S or steps < len(prepared):
                for batch in prepared:
                    loss = contestant.step(batch)
                steps += len(prepared)
        answer(
            steps=steps,
            wall_s=time.perf_counter() - began,
            cpu_s=time.process_time() - cpu_began,
            loss=float(loss.detach()),
        )


def start(name: str, shape: str, weights: Path, options, environment: dict | None = None) -> Worker:
    command = [sys.executable, __file__, shape, "--worker", name, "--start", weights]
    command += ["--threads", options.threads, "--batches", options.batches, *["--full"] * options.full]
    settings = {"OMP_NUM_THREADS": options.threads, "TRANSFORMERS_VERBOSITY": "error"} | (environment or {})
    worker = Worker(name, command, settings)
    worker.first = worker.read()
    return worker


def bf16() -> bool:
    from fastbert import ops

    return ops.bf16_is_fast()


def gemm_peak(threads: int, clock: str) -> float:
    """GFLOP/s of the best product in the step's arithmetic that PyTorch's libraries do here, of shapes of a step."""
    import torch

    from fastbert.ops.cpu import matmul

    torch.set_num_threads(threads)
    dtype = torch.bfloat16 if bf16() else torch.float32
    now = time.process_time if clock == "cpu" else time.perf_counter
    best = 0.0
    for m, k, n in ((4096, 256, 256), (4096, 256, 1024), (4096, 1024, 256), (4096, 768, 768), (2048, 2048, 2048)):
        x, w = torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype)
        for product in (torch.nn.functional.linear, matmul.linear):  # MKL, and oneDNN
            for _ in range(12):
                began = now()
                for _ in range(4):
                    product(x, w)
                best = max(best, 4 * 2.0 * m * k * n / (now() - began) / 1e9)
    return best


def compare(name: str, options) -> dict:
    """Run one shape; returns the table as it is printed."""
    shape = SHAPES[name]
    batches, description = make_batches(shape, options.batches, options.full)
    tokens = sum(b.tokens for b in batches) / len(batches)
    flops = sum(useful_flops(shape, b) for b in batches) / len(batches)
    with tempfile.TemporaryDirectory() as folder:
        from contestants import write_start

        write_start(Path(folder), shape)
        workers = {who: start(who, name, Path(folder), options) for who in options.contestants}
        losses = {who: worker.first["loss"] for who, worker in workers.items()}
        first = losses[options.contestants[0]]
        for who, loss in losses.items():
            if abs(loss - first) > LOSS_TOLERANCE * abs(first):
                raise SystemExit(f"{name}: float32 losses differ on the same weights and batch: {losses}; {who} is out")
        for worker in workers.values():
            worker.ask("warm")
        measures = {who: lambda worker=worker: worker.ask("window") for who, worker in workers.items()}
        measures["peak"] = lambda: gemm_peak(options.threads, options.clock)
        windows = take_turns(measures, options.windows, lambda what: measures[what]())
        for worker in workers.values():
            worker.end()
    peak = max(peaks := windows["peak"])
    print(f"\n{name}, {shape.rows} rows, {description}; {options.threads} thread(s), {options.clock} seconds, "
          f"{options.windows} windows, float32 loss of the first batch {first:.6f} for all")  # fmt: skip
    arithmetic = "bf16" if bf16() else "float32"
    print(f"{arithmetic} GEMM peak {peak:.0f} GFLOP/s [windows: {', '.join(f'{p:.0f}' for p in peaks)}]")
    rows, speeds = [], {}
    for who, worker in workers.items():
        seconds = "cpu_s" if options.clock == "cpu" else "wall_s"
        speeds[who] = speed = [tokens * w["steps"] / w[seconds] for w in windows[who]]
        useful = median(speed) / tokens * flops / 1e9
        rows.append({
            "contestant": who, "tokens_per_s": round(median(speed)), "low": round(min(speed)),
            "high": round(max(speed)), "useful_gflops": round(useful, 1), "share_of_peak": round(useful / peak, 3),
            "steps": sum(w["steps"] for w in windows[who]), "last_loss": round(windows[who][-1]["loss"], 3),
            "versions": worker.first["versions"],
        })  # fmt: skip
    ours = next((w for w in options.contestants if w.startswith("fastbert")), None)
    for row in rows:
        text = (f"  {row['contestant']:<14}{row['tokens_per_s']:>8,} tokens/s [{row['low']:,}, {row['high']:,}]"
                f"{row['useful_gflops']:>8} useful GFLOP/s {row['share_of_peak']:>6.1%} of peak")  # fmt: skip
        if ours and row["contestant"] != ours:
            pairs = sorted(ratios(speeds[ours], speeds[row["contestant"]]))
            row["ratio"] = round(median(speeds[ours]) / median(speeds[row["contestant"]]), 2)
            row["ratio_range"] = [round(pairs[0], 2), round(pairs[-1], 2)]
            text += f"   {ours} is {row['ratio']:.2f} x [{pairs[0]:.2f}, {pairs[-1]:.2f}]"
        print(text)
    return {"shape": name, "full": options.full, "threads": options.threads, "clock": options.clock,
            "batches": description, "gemm_peak_gflops": round(peak, 1), "rows": rows}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", default=list(SHAPES), choices=[*SHAPES, []], help="default: all")
    parser.add_argument("--full", action="store_true", help="rows of full length instead of line lengths")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--batches", type=int, default=2, help="distinct batches")
    parser.add_argument("--clock", choices=("cpu", "wall"), help="default: cpu with one thread, else wall")
    parser.add_argument("--contestants", nargs="+", default=["hf-default", "hf-tuned", "fastbert"])
    parser.add_argument("--json", help="append the table to this file, a line for each shape")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--start", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.clock = options.clock or ("cpu" if options.threads == 1 else "wall")
    if options.worker:
        return work(options)
    for name in options.shapes:
        table = compare(name, options)
        if options.json:
            with open(options.json, "a", encoding="utf-8") as file:
                file.write(json.dumps(table) + "\n")


if __name__ == "__main__":
    main()
