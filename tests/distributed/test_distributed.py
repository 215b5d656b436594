"""Ranks share the work and change nothing: parts of a batch, curves of 1, 2 and 4 ranks, their checkpoints."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastbert.batch import PackedBatch
from fastbert.distributed.world import World, take
from support import assert_same_curve, command, process, write_corpus

TRAIN = ("--preset", "tiny", "--batch-tokens", 512, "--max-length", 32, "--threads", 1, "--precision", "fp32")
# what a few dozen steps take by themselves is three times as much, and magnifies the rounding of sums with every step
USUAL_RATES = ("--learning-rate", 0.002, "--muon-learning-rate", 0.02)


def batch_of(lengths: list[int], labels_every: int = 3) -> PackedBatch:
    total = sum(lengths)
    return PackedBatch(
        input_ids=torch.arange(total),
        position_ids=torch.cat([torch.arange(n) for n in lengths]),
        token_type_ids=torch.zeros(total, dtype=torch.long),
        cu_seqlens=torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32),
        max_seqlen=max(lengths),
        masked_index=torch.arange(0, total, labels_every),
        labels=torch.arange(0, total, labels_every) + 7,
        next_sentence_label=torch.arange(len(lengths)) % 2,
        label_weights=torch.arange(0, total, labels_every).float(),
    )


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("lengths", [[5], [9, 3, 4, 8, 8, 1, 2], [1] * 30, [31, 1, 1]])
def test_parts_are_the_batch(lengths, count):
    batch = batch_of(lengths)
    parts = [take(batch, count, number) for number in range(count)]
    real = [p for p in parts if p.next_sentence_label.tolist() != [-100]]
    assert torch.cat([p.input_ids for p in real]).tolist() == batch.input_ids.tolist()
    assert torch.cat([p.labels for p in parts]).tolist() == batch.labels.tolist()
    assert torch.cat([p.label_weights for p in parts]).tolist() == batch.label_weights.tolist()
    assert torch.cat([p.next_sentence_label for p in real]).tolist() == batch.next_sentence_label.tolist()
    for part in parts:
        assert part.num_tokens and part.max_seqlen == part.cu_seqlens.diff().max()
        assert part.cu_seqlens[0] == 0 and part.cu_seqlens[-1] == part.num_tokens
        # a label stands at the token it stood at
        assert (part.input_ids[part.masked_index] + 7).tolist() == part.labels.tolist()
        if any(part is one for one in real):
            assert abs(part.num_tokens - batch.num_tokens / count) <= max(lengths)


def test_alone_everything_is_its_own():
    world, batch = World(), batch_of([3, 4])
    assert (
        world.shard(batch) == [batch]
        and world.broadcast(0.5, 3) == [0.5, 3]
        and world.run_on_main(lambda: {"a": 1}) == {"a": 1}
    )


def train(folder: Path, ranks: int, *arguments, code: int = 0) -> subprocess.CompletedProcess:
    """By torchrun, which fails with 1, or in this process without ``ranks``."""
    run, options = (process, {"ranks": ranks}) if ranks else (command, {})
    return run("fastbert.train", *arguments, cwd=folder, code=code, **options)


def test_a_second_start_does_not_look_for_the_first_in_the_store_of_both():
    """As torchrun restarts its ranks: one store for all starts. The late rank 0 has an address of the first in it."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    join = (
        "import os, sys, time; from fastbert.distributed.world import World\n"
        "time.sleep(2 * (os.environ['RANK'] == '0'))\n"
        "World.join(cuda=False).barrier(); os.kill(os.getpid(), 9)\n"
    )
    for start in range(2):
        place = {
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1",
            "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": str(start),
        }  # fmt: skip
        ranks = [
            subprocess.Popen([sys.executable, "-c", join], env=os.environ | place | {"RANK": str(rank)})
            for rank in range(2)
        ]
        try:
            assert [rank.wait(timeout=60) for rank in ranks] == [-9, -9]
        finally:
            for rank in ranks:
                rank.kill()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    write_corpus(folder / "corpus.txt", 120)
    return folder


def test_two_ranks_and_accumulation_draw_the_same_curve(folder):
    common = ("--data", "corpus.txt", "--steps", 60, "--evaluations", 2, *TRAIN, *USUAL_RATES)
    train(folder, 0, *common, "--output", "one")
    train(folder, 0, *common, "--output", "pieces", "--micro-batch-tokens", 150)
    done = train(folder, 2, *common, "--output", "two")
    assert done.stdout.count("fastbert.predict") == 1  # one rank speaks
    assert_same_curve(folder / "one", folder / "pieces")
    assert_same_curve(folder / "one", folder / "two")
    refused = train(folder, 0, *common, "--output", "alone", "--shard", code=2)
    assert "torchrun" in refused.stderr and "Traceback" not in refused.stderr


def test_rates_by_the_length_are_those_of_every_rank(folder):
    common = ("--data", "corpus.txt", "--steps", 12, "--evaluations", 6, *TRAIN)
    train(folder, 0, *common, "--output", "short-one")
    train(folder, 2, *common, "--output", "short-two")
    assert_same_curve(folder / "short-one", folder / "short-two")


def test_shards_draw_the_same_curve_and_their_checkpoint_serves_one_rank(folder):
    common = ("--data", "corpus.txt", "--steps", 40, "--evaluations", 2, "--checkpoint-every", 20, *TRAIN, *USUAL_RATES)
    train(folder, 0, *common, "--output", "whole")
    train(folder, 2, *common, "--shard", "--output", "shards", "--stop-after", 20)
    assert list((folder / "shards" / "checkpoints" / "step-20" / "optimizer").glob("*.safetensors"))
    assert not [p for p in (folder / "shards").rglob("*") if p.suffix in (".distcp", ".metadata", ".pt", ".pkl")]
    train(folder, 0, "--resume", "--output", "shards")
    assert_same_curve(folder / "whole", folder / "shards")


WAYS = {"ddp": (), "fsdp2": ("--shard",)}
ARCHS = {"classic": ("--arch", "classic"), "classic+nsp": ("--objective", "mlm+nsp"), "modern": ("--arch", "modern")}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("arch", ARCHS)
def test_a_hundred_steps_on_many_ranks(tmp_path, arch, way):
    """1, 2 and 4 ranks draw one curve; ``pytest -m slow -s`` prints how far they part."""
    write_corpus(tmp_path / "corpus.txt", 120)
    common = ("--data", "corpus.txt", "--steps", 100, "--evaluations", 4, *TRAIN, *USUAL_RATES, *ARCHS[arch])
    train(tmp_path, 0, *common, "--output", "one")
    for ranks in (2, 4):
        name = f"{arch} {way} {ranks} ranks"
        train(tmp_path, ranks, *common, *WAYS[way], "--output", name)
        assert_same_curve(tmp_path / "one", tmp_path / name)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("arch", ["classic", "modern"])
def test_a_checkpoint_of_two_ranks_goes_on_with_one_with_two_and_with_four(tmp_path, arch, way):
    write_corpus(tmp_path / "corpus.txt", 120)
    common = ("--data", "corpus.txt", "--steps", 60, "--evaluations", 3, *TRAIN, *ARCHS[arch])
    train(tmp_path, 2, *common, *WAYS[way], "--output", "whole")
    train(tmp_path, 2, *common, *WAYS[way], "--output", "half", "--stop-after", 30)
    for ranks in (1, 2, 4):
        name = f"{arch} {way} 2 ranks, then {ranks}"
        shutil.copytree(tmp_path / "half", tmp_path / name)
        train(tmp_path, ranks, "--resume", *(WAYS[way] if ranks > 1 else ()), "--output", name)
        assert_same_curve(tmp_path / "whole", tmp_path / name)
        if ranks == 2:
            assert_same_weights(tmp_path / "whole", tmp_path / name)


def run_with(folder: Path, at_step_25: str, *arguments, restarts: int = 0) -> subprocess.CompletedProcess:
    """Two ranks, a line of Python before their 26th step, which knows ``world`` and ``first`` (no restart)."""
    (folder / "changed.py").write_text(
        "import os, signal, sys, time\n"
        "from datetime import timedelta\n"
        "from fastbert import train\n"
        "from fastbert.distributed import world as distributed\n"
        "from fastbert.training import trainer\n"
        "from fastbert.system.cli import run\n"
        "step = trainer.Trainer.train_step\n"
        "first = os.environ['TORCHELASTIC_RESTART_COUNT'] == '0'\n"
        "def one_step(self, progress):\n"
        "    world = self.world\n"
        "    if self.step == 25:\n"
        f"        {at_step_25}\n"
        "    step(self, progress)\n"
        "trainer.Trainer.train_step = one_step\n"
        "sys.exit(run(train.main, train.TrainOptions))\n"
    )
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", 2, "--max-restarts", restarts, "changed.py"]
    return subprocess.run(
        [sys.executable, *map(str, [*launcher, *arguments])],
        cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip


FORTY = ("--data", "corpus.txt", "--steps", 40, "--evaluations", 2, "--checkpoint-every", 10, *TRAIN)


def assert_same_weights(one: Path, other: Path) -> None:
    from safetensors.torch import load_file

    a, b = (load_file(path / "model.safetensors") for path in (one, other))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_torchrun_starts_again_where_the_run_died(tmp_path, way):
    """One rank kills itself in the middle; torchrun restarts both, which go on by themselves."""
    write_corpus(tmp_path / "corpus.txt", 120)
    train(tmp_path, 2, *FORTY, *WAYS[way], "--output", "whole")
    death = "first and world.rank == 1 and os.kill(os.getpid(), signal.SIGKILL)"
    done = run_with(tmp_path, death, *FORTY, *WAYS[way], "--output", "died", restarts=1)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "another process of this run has died" in done.stderr
    # only what every rank is known to have may be saved after a death
    assert f"continuing at step {25 if way == 'ddp' else 20}" in done.stdout
    assert_same_weights(tmp_path / "whole", tmp_path / "died")


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_signal_to_one_rank_stops_all_of_them_saved(tmp_path, way):
    write_corpus(tmp_path / "corpus.txt", 120)
    train(tmp_path, 2, *FORTY, *WAYS[way], "--output", "whole")
    done = run_with(tmp_path, "world.rank == 1 and os.kill(os.getpid(), signal.SIGTERM)", *FORTY, *WAYS[way],
                    "--output", "stopped")  # fmt: skip
    assert done.returncode and "stopped after step 26" in done.stdout and "exitcode  : 143" in done.stderr
    train(tmp_path, 2, "--resume", *WAYS[way], "--output", "stopped")
    assert_same_weights(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.slow
def test_a_rank_that_falls_silent_is_given_up(tmp_path):
    write_corpus(tmp_path / "corpus.txt", 120)
    silence = "distributed._set_pg_timeout(timedelta(seconds=4)); world.rank == 1 and time.sleep(30)"
    done = run_with(tmp_path, silence, *FORTY, "--output", "silent")
    assert done.returncode and "another process of this run has died or cannot be reached" in done.stderr
    assert "--resume, which continues from step 25" in done.stderr
    train(tmp_path, 1, "--resume", "--output", "silent")


def test_ranks_that_diverge_or_find_no_data_say_so_once(tmp_path):
    write_corpus(tmp_path / "corpus.txt", 120)
    done = train(tmp_path, 2, *FORTY, "--learning-rate", 1e18, "--warmup", 0, "--output", "out", code=1)
    assert done.stderr.count("diverged") == 1 and "another process" not in done.stderr
    done = train(tmp_path, 2, "--data", "missing.txt", "--output", "out2", code=1)
    assert done.stderr.count("error: ") == 1 and "missing.txt" in done.stderr and not (tmp_path / "out2").exists()
