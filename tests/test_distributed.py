"""Ranks share the work and change nothing: parts of a batch, curves of 1, 2 and 4 ranks, their checkpoints."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastbert.batch import PackedBatch
from fastbert.distributed import World, take

TRAIN = ("--preset", "tiny", "--batch-tokens", 512, "--max-length", 32, "--threads", 1, "--precision", "fp32")
WORDS = ("o", "gato", "preto", "dorme", "na", "cama", "azul", "e", "a", "menina", "feliz", "come", "pão", "do", "rei")


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
        world.part(batch) == [batch]
        and world.agree(0.5, 3) == [0.5, 3]
        and world.from_main(lambda: {"a": 1}) == {"a": 1}
    )


def write_corpus(path: Path) -> Path:
    documents = []
    for d in range(120):
        documents += [" ".join((WORDS * 3)[(7 * d + 5 * s) % len(WORDS) :][:14]) + "." for s in range(6)] + [""]
    path.write_text("\n".join(documents), encoding="utf-8")
    return path


def train(
    folder: Path, ranks: int, *arguments, fails: bool = False, torchrun: tuple = ()
) -> subprocess.CompletedProcess:
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", ranks] if ranks else []
    done = subprocess.run(
        [sys.executable, *map(str, [*launcher, "-m", "fastbert.train", *arguments])],
        cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert bool(done.returncode) == fails, done.stderr[-3000:]
    return done


def losses(run: Path) -> dict[tuple, float]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {(r["kind"], r["step"]): r["loss"] for r in records if "loss" in r}


def assert_same_curve(one: Path, other: Path, tolerance: float = 1e-5):
    a, b = losses(one), losses(other)
    assert a.keys() == b.keys() and len(a) > 5
    worst = max(abs(a[key] - b[key]) / a[key] for key in a)
    print(f"{other.name}: largest relative difference {worst:.1e}")
    assert worst <= tolerance


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    write_corpus(folder / "corpus.txt")
    return folder


def test_two_ranks_and_accumulation_draw_the_same_curve(folder):
    common = ("--data", "corpus.txt", "--steps", 60, "--evaluations", 2, *TRAIN)
    train(folder, 0, *common, "--output", "one")
    train(folder, 0, *common, "--output", "pieces", "--micro-batch-tokens", 150)
    done = train(folder, 2, *common, "--output", "two")
    assert done.stdout.count("fastbert.predict") == 1  # one rank speaks
    assert_same_curve(folder / "one", folder / "pieces")
    assert_same_curve(folder / "one", folder / "two")
    refused = train(folder, 0, *common, "--output", "alone", "--shard", fails=True)
    assert refused.returncode == 2 and "start it with torchrun" in refused.stderr


def test_shards_draw_the_same_curve_and_their_checkpoint_serves_one_rank(folder):
    common = ("--data", "corpus.txt", "--steps", 40, "--evaluations", 2, "--checkpoint-every", 20, *TRAIN)
    train(folder, 0, *common, "--output", "whole")
    train(folder, 2, *common, "--shard", "--output", "shards", "--stop-after", 20)
    assert list((folder / "shards" / "checkpoints" / "step-20" / "optimizer").glob("*.safetensors"))
    assert not [p for p in (folder / "shards").rglob("*") if p.suffix in (".distcp", ".metadata", ".pt", ".pkl")]
    train(folder, 0, "--resume", "--output", "shards")
    assert_same_curve(folder / "whole", folder / "shards")


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("shard", [(), ("--shard",)], ids=["ddp", "fsdp2"])
@pytest.mark.parametrize("arch", [("--objective", "mlm+nsp"), ("--arch", "modern"), ("--arch", "classic")], ids=str)
def test_a_hundred_steps_on_many_ranks(tmp_path, arch, shard, ranks):
    write_corpus(tmp_path / "corpus.txt")
    common = ("--data", "corpus.txt", "--steps", 100, "--evaluations", 4, *TRAIN, *arch)
    train(tmp_path, 0, *common, "--output", "one")
    train(tmp_path, ranks, *common, *shard, "--output", "many")
    assert_same_curve(tmp_path / "one", tmp_path / "many")


@pytest.mark.slow
@pytest.mark.parametrize("shard", [(), ("--shard",)], ids=["ddp", "fsdp2"])
def test_a_checkpoint_of_two_ranks_goes_on_with_one_with_two_and_with_four(tmp_path, shard):
    import shutil

    from safetensors.torch import load_file

    write_corpus(tmp_path / "corpus.txt")
    common = ("--data", "corpus.txt", "--steps", 60, "--evaluations", 3, *TRAIN, *shard)
    train(tmp_path, 2, *common, "--output", "whole")
    train(tmp_path, 2, *common, "--output", "half", "--stop-after", 30)
    for ranks in (1, 2, 4):
        shutil.copytree(tmp_path / "half", tmp_path / f"on{ranks}")
        train(tmp_path, ranks, "--resume", "--output", f"on{ranks}")
        assert_same_curve(tmp_path / "whole", tmp_path / f"on{ranks}")
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "on2"))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
def test_torchrun_starts_again_where_the_run_died(tmp_path):
    """One rank kills itself in the middle; torchrun restarts both, which go on by themselves."""
    from safetensors.torch import load_file

    write_corpus(tmp_path / "corpus.txt")
    common = ("--data", "corpus.txt", "--steps", 40, "--evaluations", 2, "--checkpoint-every", 10, *TRAIN)
    train(tmp_path, 2, *common, "--output", "whole")
    (tmp_path / "dying.py").write_text(
        "import os, signal, sys\n"
        "from fastbert import train, trainer\n"
        "from fastbert.cli import run\n"
        "step = trainer.Trainer._one_step\n"
        "def one_step(self, progress):\n"
        "    if self.step == 25 and self.world.rank == 1 and os.environ['TORCHELASTIC_RESTART_COUNT'] == '0':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    step(self, progress)\n"
        "trainer.Trainer._one_step = one_step\n"
        "sys.exit(run(train.main, train.TrainOptions))\n"
    )
    command = ["-m", "torch.distributed.run", "--nproc-per-node", 2, "--max-restarts", 1, "dying.py", *common]
    done = subprocess.run(
        [sys.executable, *map(str, [*command, "--output", "died"])],
        cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "another process of this run has died" in done.stderr and "continuing at step" in done.stdout
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "died"))
    assert all(torch.equal(a[name], b[name]) for name in a)
