"""What a checkpoint costs the training, in processor time, against the steps between two of them.

    python benchmarks/robustness/checkpoint_cost.py

CPU seconds of one thread, so that other load on the machine matters little: of a step (2,048 tokens), of the copy that
the loop waits for, and of the thread that writes. Waiting for the disk is not counted: nobody waits for it.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from fastbert.batch import PackedBatch
from fastbert.config import BertConfig
from fastbert.model import BertForPreTraining
from fastbert.optim.optimizers import Optimizers
from fastbert.runs import checkpoint
from fastbert.system.background import Background, HostCopy
from fastbert.training.checkpointing import DEFAULT_EVERY


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--folder", default=None)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    tokens, length = 2048, 128
    model = BertForPreTraining(BertConfig.preset(asked.preset, arch="modern", vocab_size=8192))
    optimizers = Optimizers(model)
    batch = PackedBatch(
        torch.randint(5, 8000, (tokens,)), torch.arange(tokens) % length, torch.zeros(tokens, dtype=torch.long),
        torch.arange(0, tokens + 1, length, dtype=torch.int32), length,
        torch.arange(0, tokens, 3), torch.randint(5, 8000, (len(range(0, tokens, 3)),)),
    )  # fmt: skip
    steps, copies, writes = [], [], []
    host, thread = HostCopy(), Background("checkpoint")
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        for number in range(8):
            began = time.thread_time()
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(batch).loss
            loss.backward()
            optimizers.step(1.0)
            steps.append(time.thread_time() - began)
            began = time.thread_time()
            state = host.take(optimizers.state_tensors())
            weights = host.take({f"model/{n}": t for n, t in model.state_dict().items()})
            weights = {n.removeprefix("model/"): t for n, t in weights.items()}
            copies.append(time.thread_time() - began)
            thread.submit(lambda: checkpoint.save(Path(folder), number, weights, model.config, state, {}))  # noqa: B023
            thread.wait()
            writes.append(thread.cpu_s)
        written = sum(p.stat().st_size for p in Path(folder).rglob("step-7/*"))
    step, copy, write = (statistics.median(times[2:]) for times in (steps, copies, writes))
    print(f"{asked.preset}: a step {1e3 * step:.0f} ms, a copy {1e3 * copy:.1f} ms, writing {1e3 * write:.0f} ms, "
          f"{written / 1e6:.0f} MB")  # fmt: skip
    print(f"every {DEFAULT_EVERY} steps: {(copy + write) / (DEFAULT_EVERY * step):.2%} of the processor time, "
          f"{copy / (DEFAULT_EVERY * step):.3%} of it in the training loop")  # fmt: skip


if __name__ == "__main__":
    main()
