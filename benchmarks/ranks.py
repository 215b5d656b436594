"""Tokens a second of two DDP ranks of one thread, of one process with two threads, and of one with one thread.

    python benchmarks/ranks.py                      # mini, modern, the default batch and twice that
    python benchmarks/ranks.py --arch classic --optimizer adamw --rounds 5

Every contestant is ``fastbert.train`` itself with its loop replaced by windows of steps that this program asks for, so
that all take turns and meet the same machine. First all must have the same loss. The ceiling is two separate runs at
once against one: what the cores, their memory and their caches allow to two processes that never speak. Ratios are of
medians, [low, high] over rounds. ``reduce`` is a sum over the ranks of one float32 buffer as large as all gradients,
alone.
"""

import argparse
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

from harness import Worker, answer, ratios, spread, take_turns

WARM_STEPS, WINDOW_S = 4, 4.0
SETTLE_S = 2.0  # steps before each window that are not counted: a run that has waited finds caches and pages cold
TOLERANCE = {"fp32": 1e-5, "auto": 5e-3, "bf16": 5e-3}  # relative, of the loss after the warm-up; bf16 rounds sums


# ---- a contestant: train with another loop ----
def work(arguments: list[str]) -> int:
    from fastbert import train
    from fastbert.system.cli import run
    from fastbert.training import trainer

    trainer.Trainer.train = answer_windows
    sys.argv[1:] = arguments
    return run(train.main, train.TrainOptions)


def timed(parts: dict[str, float], name: str, function):
    def call(*arguments, **options):
        began_s = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            parts[name] += time.perf_counter() - began_s

    return call


def answer_windows(trainer) -> None:
    """Rank 0 reads the seconds of a window, all ranks step until they are over, rank 0 answers with a JSON line."""
    import torch
    import torch.distributed as dist

    world, parts = trainer.world, defaultdict(float)
    trainer.model.train()
    trainer.budget.start()
    trainer.loader.next_batch = timed(parts, "batch", trainer.loader.next_batch)
    trainer.forward_backward = timed(parts, "gradients", trainer.forward_backward)
    world.sum = timed(parts, "sum", world.sum)
    trainer.optimizers.clip = timed(parts, "clip", trainer.optimizers.clip)
    for name, optimizer in trainer.optimizers.parts.items():
        optimizer.step = timed(parts, name, optimizer.step)
    flat = torch.zeros(sum(p.numel() for p in trainer.model.parameters() if p.requires_grad))
    while True:
        (seconds,) = world.broadcast(float(sys.stdin.readline() or 0) if world.main else 0.0)
        if not seconds:
            return
        settled_s = time.perf_counter() + SETTLE_S
        while seconds > 0 and world.broadcast(float(time.perf_counter() < settled_s), 0.0, 0.0)[0]:
            trainer.train_step(0.3)
        parts.clear()
        steps, tokens, began_s, cpu_s = 0, trainer.tokens, time.perf_counter(), time.process_time()
        # negative: so many steps, of which the loss is wanted
        while world.broadcast(float(time.perf_counter() - began_s < seconds or steps < -seconds), 0.0, 0.0)[0]:
            trainer.train_step(0.3)
            steps += 1
        world.barrier()
        took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
        per_step = {name: 1e3 * spent / steps for name, spent in parts.items()}
        if world.size > 1:
            began_s = time.perf_counter()
            for _ in range(5):
                dist.all_reduce(flat)
            per_step["reduce"] = 1e3 * (time.perf_counter() - began_s) / 5
        if world.main:
            rate, step, cpu = (trainer.tokens - tokens) / took_s, 1e3 * took_s / steps, 1e3 * cpu_s / steps
            answer(rate=rate, step=step, cpu=cpu, parts=per_step, loss=trainer.loss)


# ---- the program that asks ----
class Contestant:
    """``ranks`` processes of one run, each with ``threads``."""

    def __init__(self, name: str, ranks: int, threads: int, folder: Path, arguments: list[str]):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, __file__, "--work", *arguments, "--output", folder / name.replace(" ", "-")]
        log = (folder / f"{name}.log").open("w+")
        self.ranks = []
        for rank in range(ranks):
            own = {"OMP_NUM_THREADS": threads}
            if ranks > 1:
                own |= {"RANK": rank, "WORLD_SIZE": ranks, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": ranks,
                        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}  # fmt: skip
            self.ranks.append(Worker(name, command, own, stderr=log, stdout=log if rank else subprocess.PIPE))
        self.send, self.read, self.ask = self.ranks[0].send, self.ranks[0].read, self.ranks[0].ask

    def end(self) -> None:
        for rank in self.ranks:
            rank.process.kill()
            rank.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--arch", default="modern")
    parser.add_argument("--optimizer", default="muon")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--factors", type=int, nargs="+", default=[1, 2], help="multiples of the batch to try")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        contestants: dict[str, Contestant] = {}
        losses: dict[int, float] = {}  # of one rank, by the tokens of a batch

        def start(name: str, ranks: int, threads: int, tokens: int) -> None:
            contestants[name] = Contestant(name, ranks, threads, folder, [
                "--preset", asked.preset, "--arch", asked.arch, "--optimizer", asked.optimizer, "--steps", "1000000",
                "--precision", asked.precision, "--batch-tokens", str(tokens), "--threads", str(threads),
                "--evaluations", "0", "--checkpoint-every", "0",
            ])  # fmt: skip
            own = contestants[name].ask(-WARM_STEPS)["loss"]
            loss = losses.setdefault(tokens, own)
            if not abs(own - loss) <= TOLERANCE[asked.precision] * loss:
                raise SystemExit(f"{name}: loss {own} after {WARM_STEPS} steps, one rank has {loss}")
            print(f"{name}: loss {own:.6f} after {WARM_STEPS} steps")

        base = asked.batch_tokens
        try:
            start("beside", 1, 1, base)
            for factor in asked.factors:
                start(f"1 rank {factor * base}", 1, 1, factor * base)
                start(f"2 threads {factor * base}", 1, 2, factor * base)
                start(f"2 ranks {factor * base}", 2, 1, factor * base)
            compare(contestants, f"1 rank {base}", asked.rounds)
        finally:
            for contestant in contestants.values():
                contestant.end()


def compare(contestants: dict[str, Contestant], first: str, rounds: int) -> None:
    """Windows in turn, the ceiling among them, and the table."""
    turns = {name: [contestant] for name, contestant in contestants.items() if name != "beside"}
    turns["two runs at once"] = [contestants["beside"], contestants[first]]

    def window(name: str) -> dict:
        for contestant in turns[name]:
            contestant.send(WINDOW_S)
        answers = [contestant.read() for contestant in turns[name]]
        return answers[0] | {"rate": sum(a["rate"] for a in answers)}

    rates = take_turns(turns, rounds, window)
    for name, windows in rates.items():
        mean = {key: median(w["parts"][key] for w in windows) for key in windows[0]["parts"]}
        parts = "  ".join(f"{key} {value:.1f}" for key, value in mean.items())
        rate, step, cpu = (median(w[key] for w in windows) for key in ("rate", "step", "cpu"))
        print(f"{name:22} {rate:8,.0f} tokens/s  a step of rank 0: {step:.1f} ms, CPU {cpu:.1f} ms: {parts}")

    def ratio(name: str, other: str) -> str:
        return spread(ratios(*([window["rate"] for window in rates[n]] for n in (name, other))))

    print(f"ceiling: two runs at once / one: {ratio('two runs at once', first)}")
    for name in rates:
        if name.startswith("2"):
            alone = f"1 rank {name.split()[-1]}"
            print(f"{name} / {alone}: {ratio(name, alone)}; / {first}: {ratio(name, first)}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        sys.exit(work(sys.argv[2:]))
    main()
