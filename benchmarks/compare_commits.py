"""What a call of each op and a training step cost here, against the installation of another commit.

    git worktree add ../before COMMIT && python -m venv ../before/.venv    # and pip install it there
    python benchmarks/compare_commits.py ../before/.venv/bin/python

Two processes take turns, a short window each, on one thread. Ops run in eager inference on tensors so small that the
call itself is what is timed; the step is BERT mini's, with a vocabulary of 30k, in bf16 where the machine is quick at
it. Differences and ratios are of each round's own two: median [least, most].
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from harness import Worker, answer, ratios, spread, take_turns

CALLS = 2000
STEP = "training step"


def op_calls() -> dict[str, Callable[[], object]]:
    """Every op on 4 tokens, 2 heads of 16."""
    import torch

    from fastbert import ops

    torch.manual_seed(0)
    x, wide, norm, q = torch.randn(4, 32), torch.randn(4, 64), torch.ones(32), torch.randn(4, 2, 16)
    qkv, square, up, down = (torch.randn(n, m) for n, m in ((96, 32), (32, 32), (64, 32), (32, 64)))
    ids, table, angles, ends = torch.arange(4), torch.randn(9, 32), torch.randn(4, 1, 8), torch.tensor([0, 4]).int()
    stacked = torch.stack([q, q, q], 1)
    layer = (x, norm, norm, qkv, None, square, None, ends, 4)
    return {
        "attention": lambda: ops.attention(q, q, q, ends, 4),
        "qkv_attention": lambda: ops.qkv_attention(stacked, ends, 4),
        "rotary": lambda: ops.rotary(q, angles, angles),
        "add_layer_norm": lambda: ops.add_layer_norm(x, x, norm, norm, 1e-5),
        "bias_gelu": lambda: ops.bias_gelu(x, norm),
        "geglu": lambda: ops.geglu(wide),
        "feed_forward": lambda: ops.feed_forward(x, norm, norm, up, None, down, None),
        "self_attention": lambda: ops.self_attention(*layer, num_heads=2),
        "embed_layer_norm": lambda: ops.embed_layer_norm(ids, ids, ids, table, table, table, norm, norm, 1e-5),
        "masked_lm_loss": lambda: ops.masked_lm_loss(x, table, None, ids),
    }


def training_step() -> Callable[[], object]:
    import torch

    sys.path.append(str(Path(__file__).parent / "training"))
    from batches import SHAPES, make_batches

    from fastbert import BertConfig, BertForPreTraining
    from fastbert.batch import pack

    try:
        from fastbert.optim.optimizers import Optimizers
    except ModuleNotFoundError:  # before there was a package
        from fastbert.optim import Optimizers  # type: ignore[attr-defined, no-redef]

    (drawn,), _ = make_batches(SHAPES["mini-30k"], 1, full=False)
    packed, kept = pack(torch.from_numpy(drawn.input_ids), torch.from_numpy(drawn.attention_mask))
    labels = torch.from_numpy(drawn.labels).flatten()[kept]
    rows = (labels != -100).nonzero().squeeze(1)
    batch = replace(packed, masked_index=rows, labels=labels[rows])
    torch.manual_seed(0)
    model = BertForPreTraining(BertConfig.preset("mini", vocab_size=30522))
    optimizers = Optimizers(model, optimizer="adamw", learning_rate=1e-4, weight_decay=0.01, clip_norm=1.0)
    bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(batch).loss
        loss.backward()
        optimizers.step(1.0)

    return step


def work() -> None:
    """A contestant: for each name it reads, the seconds of a call."""
    import torch

    torch.set_num_threads(1)
    calls, step = op_calls(), training_step()
    answer(ops=list(calls))
    with torch.inference_mode():
        for call in calls.values():
            call()
    for line in sys.stdin:
        name = line.strip()
        call, count = (step, 10) if name == STEP else (calls[name], CALLS)
        with torch.inference_mode(name != STEP):
            call()
            began = time.process_time()
            for _ in range(count):
                call()
            answer(seconds=(time.process_time() - began) / count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", nargs="?", help="the python of the other installation")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work()
    if options.before is None:
        parser.error("before is missing. Try: the python of an environment where another commit is installed")
    one = {"OMP_NUM_THREADS": 1}
    workers = {
        who: Worker(who, [python, __file__, "--worker"], one)
        for who, python in (("before", options.before), ("now", sys.executable))
    }
    names = [worker.read()["ops"] for worker in workers.values()][1]
    for worker in workers.values():
        worker.ask(STEP)
    print(f"microseconds an op call in inference, and milliseconds a training step, {options.rounds} rounds")
    for name in (*names, STEP):
        unit = 1e3 if name == STEP else 1e6
        measured = take_turns(workers, options.rounds, lambda who, name=name: workers[who].ask(name)["seconds"])
        before, now = ([unit * seconds for seconds in measured[who]] for who in ("before", "now"))
        more = [b - a for a, b in zip(before, now, strict=True)]
        print(f"{name:18} before {spread(before)}  now {spread(now)}  difference {spread(more)}"
              f"  ratio {spread(ratios(now, before), '.3f')}", flush=True)  # fmt: skip
    for worker in workers.values():
        worker.end()


if __name__ == "__main__":
    main()
