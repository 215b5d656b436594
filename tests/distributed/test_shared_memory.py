"""Ranks in one shared memory take the steps that one process takes, and each does its part of them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastbert.distributed.shared_memory import assign_owners

RANKS = """
import sys
import torch
import fastbert.model
from fastbert.batch import PackedBatch
from fastbert.config import BertConfig
from fastbert.distributed.parallelism import Parallelism
from fastbert.distributed.world import World
from fastbert.model import BertForPreTraining
from fastbert.optim.optimizers import Optimizers
from fastbert.distributed.shared_memory import SharedMemoryParallel, can_share
from fastbert.training.loss_shares import share_of_loss

torch.set_num_threads(1)
out, arch, optimizer = sys.argv[1:]
world = World.join(cuda=False)
torch.manual_seed(0)
fastbert.model.init_neighbor_heads = lambda embeddings, encoder: None  # scores of 60 magnify the rounding of sums
model = BertForPreTraining(BertConfig.preset("tiny", arch, vocab_size=200))
options = {"optimizer": optimizer, "muon_dtype": torch.float32}
if world.size > 1:
    assert can_share(world, torch.device("cpu"))
    parallel = SharedMemoryParallel(model, world, ("pooler.", "next_sentence."), options)
else:
    parallel = Parallelism(model, Optimizers(model, **options))
optimizers = parallel.optimizers
norms = []
for step in range(6):
    generator = torch.Generator().manual_seed(step)
    lengths = torch.tensor([0, 9, 20, 3, 17, 12, 30])
    bounds = lengths.cumsum(0, dtype=torch.int32)
    total = int(bounds[-1])
    batch = PackedBatch(
        torch.randint(5, 200, (total,), generator=generator), torch.cat([torch.arange(n) for n in lengths[1:]]),
        torch.zeros(total, dtype=torch.long), bounds, 30, torch.arange(0, total, 3),
        torch.randint(5, 200, (len(range(0, total, 3)),), generator=generator),
    )
    for part in world.shard(batch):
        share_of_loss(parallel.forward(part), part, [batch]).backward()
    parallel.after_backward()
    norms.append(float(optimizers.clip()))
    optimizers.update(1.0)
    parallel.after_update()
    if step == 2:  # what a checkpoint holds goes back into its place
        optimizers.load_state_tensors({n: t.clone() for n, t in optimizers.state_tensors().items()})
owner = parallel.weights.owner if world.size > 1 else {}
turned = sum(p.numel() for n, p in model.named_parameters() if owner.get(n) == world.rank)
torch.save({"weights": model.state_dict(), "state": optimizers.state_tensors(), "norms": norms, "turned": turned},
           f"{out}-{world.rank}-of-{world.size}")
world.barrier()
world.close()
"""


def run(folder: Path, ranks: int, *arguments: str) -> list[dict]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1]), "OMP_NUM_THREADS": "1"}
    places = [{"RANK": r, "WORLD_SIZE": ranks, "LOCAL_RANK": r, "LOCAL_WORLD_SIZE": ranks} for r in range(ranks)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RANKS, str(folder / "out"), *arguments], stderr=subprocess.PIPE, text=True,
            env=os.environ | meeting | ({k: str(v) for k, v in place.items()} if ranks > 1 else {}),
        )
        for place in places
    ]  # fmt: skip
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-2000:]
    return [torch.load(folder / f"out-{r}-of-{ranks}", weights_only=True) for r in range(ranks)]


def assert_within_the_order_of_sums(a: torch.Tensor, b: torch.Tensor) -> None:
    """By norm: AdamW's step is as long for an element whose gradient is nearly nothing, and so mostly rounding."""
    assert (a - b).norm() <= 1e-5 * b.norm()


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="shared memory needs Linux")
@pytest.mark.parametrize(("arch", "optimizer"), [("modern", "muon"), ("classic", "adamw")])
def test_ranks_take_the_steps_of_one_process(tmp_path, arch, optimizer):
    (alone,) = run(tmp_path, 1, arch, optimizer)
    for ranks in (2, 3):
        together = run(tmp_path, ranks, arch, optimizer)
        for name, tensor in alone["weights"].items():
            for rank in together:
                assert torch.equal(rank["weights"][name], together[0]["weights"][name]), name
            assert_within_the_order_of_sums(together[0]["weights"][name], tensor)
        assert together[0]["state"].keys() == alone["state"].keys()
        for name, tensor in alone["state"].items():
            assert_within_the_order_of_sums(together[0]["state"][name], tensor)
        torch.testing.assert_close(torch.tensor(together[0]["norms"]), torch.tensor(alone["norms"]), rtol=1e-5, atol=0)
        assert all(rank["turned"] > 0 for rank in together)


def test_the_work_of_updating_is_shared_out_evenly():
    costs = {f"layer{i}.{name}": cost for i in range(4) for name, cost in (("qkv", 3.0), ("out", 1.0), ("up", 2.7))}
    owner = assign_owners(costs, 2)
    load = [sum(costs[n] for n in costs if owner[n] == rank) for rank in range(2)]
    assert max(load) / min(load) < 1.1 and owner == assign_owners(dict(reversed(costs.items())), 2)
