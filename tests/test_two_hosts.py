"""Two hosts, each a network namespace of its own with a cable between them: one dies or is cut off, and comes back.

The hosts share nothing but the file system, as docs/scale.md asks. ``pytest -m slow tests/test_two_hosts.py`` as root.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

ADDRESSES = ("10.77.0.1", "10.77.0.2")  # of the first and the second host, in their namespaces only
HELD_AT = 25  # the step at which both stand still until the test has done its damage
TRAIN = (
    "--data", "corpus.txt", "--steps", 50, "--evaluations", 2, "--checkpoint-every", 10, "--preset", "tiny",
    "--batch-tokens", 512, "--max-length", 32, "--threads", 1, "--precision", "fp32", "--device", "cpu",
)  # fmt: skip
WORDS = ("o", "gato", "preto", "dorme", "na", "cama", "azul", "e", "a", "menina", "feliz", "come", "pão", "do", "rei")
HOLDING = f"""
import os, sys, time
from fastbert import train, trainer
from fastbert.cli import run
step = trainer.Trainer._one_step
def one_step(self, progress):
    if self.step == {HELD_AT}:
        open(f"held-{{self.world.rank}}", "w").close()
        while os.path.exists("hold"):
            time.sleep(0.05)
    step(self, progress)
trainer.Trainer._one_step = one_step
sys.exit(run(train.main, train.TrainOptions))
"""


class Host:
    """A network namespace; ``torchrun`` starts the host's part of the run."""

    def __init__(self, number: int, folder: Path):
        self.number, self.address, self.folder = number, ADDRESSES[number], folder
        self.namespace, self.cable = f"fastbert{os.getpid()}-{number}", f"fb{number}"
        self.agent: subprocess.Popen | None = None
        self.starts = 0

    def torchrun(self, *arguments, endpoint: str, nodes: str) -> None:
        self.starts += 1
        command = [
            "ip", "netns", "exec", self.namespace, sys.executable, "-m", "torch.distributed.run", "--nnodes", nodes,
            "--nproc-per-node", 1, "--rdzv-backend", "c10d", "--rdzv-endpoint", f"{endpoint}:29500", "--rdzv-id", "job",
            "--rdzv-conf", f"is_host={int(endpoint == self.address)}", "--local-addr", self.address,
            "--max-restarts", 3, "holding.py", *TRAIN, *arguments,
        ]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": self.cable}
        log = (self.folder / f"host{self.number}-{self.starts}.log").open("w")
        self.agent = subprocess.Popen(
            [str(c) for c in command], cwd=self.folder, env=environment, stdout=log, stderr=subprocess.STDOUT
        )

    def said(self) -> str:
        return "".join(p.read_text() for p in sorted(self.folder.glob(f"host{self.number}-*.log")))

    def die(self) -> None:
        """Every process at once, as a host that loses its power."""
        pids = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True).stdout.split()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        if self.agent is not None:
            self.agent.wait()

    def link(self, state: str) -> None:
        ip("-n", self.namespace, "link", "set", self.cable, state)


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


@pytest.fixture
def hosts(tmp_path):
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if not shutil.which("ip"):
        pytest.skip("network namespaces need the program ip (iproute2)")
    pair = [Host(number, tmp_path) for number in (0, 1)]
    try:
        try:
            for host in pair:
                ip("netns", "add", host.namespace)
            one, other = pair
            ip(
                "link", "add", one.cable, "netns", one.namespace,
                "type", "veth", "peer", "name", other.cable, "netns", other.namespace,
            )  # fmt: skip
        except OSError as error:
            pytest.skip(f"this system allows no network namespaces ({error})")
        for host in pair:
            ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", host.cable)
            ip("-n", host.namespace, "link", "set", "lo", "up")
            host.link("up")
        yield pair
    finally:
        for host in pair:
            host.die()
            subprocess.run(["ip", "netns", "del", host.namespace], capture_output=True)


@pytest.fixture
def unbroken(tmp_path):
    """The weights of two ranks of one host that nothing happens to."""
    documents = []
    for d in range(120):
        documents += [" ".join((WORDS * 3)[(7 * d + 5 * s) % len(WORDS) :][:14]) + "." for s in range(6)] + [""]
    (tmp_path / "corpus.txt").write_text("\n".join(documents), encoding="utf-8")
    (tmp_path / "holding.py").write_text(HOLDING)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        2,
        "holding.py",
        *TRAIN,
    ]
    done = subprocess.run(
        [*map(str, command), "--output", "unbroken"],
        cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for mark in tmp_path.glob("held-*"):
        mark.unlink()
    return tmp_path / "unbroken"


def wait_for(what: str, condition, hosts, seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds:.0f} s: {what}\n" + "\n".join(host.said()[-3000:] for host in hosts))
        time.sleep(0.1)


def start_and_hold(hosts, *, endpoint: str, nodes: str) -> None:
    folder = hosts[0].folder
    (folder / "hold").touch()
    for host in hosts:
        host.torchrun("--output", "run", endpoint=endpoint, nodes=nodes)
    wait_for("both hosts in the middle of the run", lambda: len(list(folder.glob("held-*"))) == 2, hosts)


def assert_ended_well(hosts) -> None:
    for host in hosts:
        wait_for(f"host {host.number} at the end", lambda host=host: host.agent.poll() is not None, hosts)
        assert host.agent.returncode == 0, host.said()[-3000:]


def assert_same_weights(run: Path, other: Path) -> None:
    from safetensors.torch import load_file

    a, b = (load_file(path / "model.safetensors") for path in (run, other))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1], ids=["with rank 0", "with rank 1"])
def test_a_host_dies_and_comes_back(hosts, unbroken, victim):
    """The other waits for it, both go on from the newest whole checkpoint: bit for bit the unbroken run."""
    endpoint = hosts[1 - victim].address  # of the host that lives: with it the meeting point would be gone
    start_and_hold(hosts, endpoint=endpoint, nodes="2")
    hosts[victim].die()
    (hosts[0].folder / "hold").unlink()
    survivor = hosts[1 - victim]
    wait_for("the survivor's word", lambda: "another process of this run has died" in survivor.said(), hosts)
    hosts[victim].torchrun("--output", "run", endpoint=endpoint, nodes="2")
    assert_ended_well(hosts)
    assert "continuing at step" in hosts[0].said()
    assert_same_weights(hosts[0].folder / "run", unbroken)


@pytest.mark.slow
def test_a_cable_is_out_for_a_moment(hosts, unbroken):
    """Nobody dies: the connections outlive it and the run goes on without a restart."""
    start_and_hold(hosts, endpoint=hosts[0].address, nodes="2")
    hosts[1].link("down")
    (hosts[0].folder / "hold").unlink()
    time.sleep(5)
    hosts[1].link("up")
    assert_ended_well(hosts)
    assert "continuing at step" not in hosts[0].said()
    assert_same_weights(hosts[0].folder / "run", unbroken)


@pytest.mark.slow
def test_a_host_is_cut_off_until_it_is_started_again(hosts, unbroken):
    """No connection is ever closed; the host is started again, and torchrun fetches the other."""
    start_and_hold(hosts, endpoint=hosts[0].address, nodes="2")
    hosts[1].link("down")
    (hosts[0].folder / "hold").unlink()
    time.sleep(20)
    hosts[1].die()
    hosts[1].link("up")
    hosts[1].torchrun("--output", "run", endpoint=hosts[0].address, nodes="2")
    assert_ended_well(hosts)
    assert "continuing at step" in hosts[0].said()
    assert_same_weights(hosts[0].folder / "run", unbroken)


@pytest.mark.slow
def test_one_host_goes_on_alone_and_the_other_joins_again(hosts, unbroken):
    """``--nnodes 1:2``: the number of ranks changes twice, the curve stays."""
    start_and_hold(hosts, endpoint=hosts[0].address, nodes="1:2")
    hosts[1].die()
    folder = hosts[0].folder
    (folder / "hold").unlink()
    wait_for("the survivor alone", lambda: "continuing at step" in hosts[0].said(), hosts)
    (folder / "hold").touch()
    wait_for("its step again", lambda: True, hosts)
    hosts[1].torchrun("--output", "run", endpoint=hosts[0].address, nodes="1:2")
    wait_for("both again", lambda: hosts[0].said().count("continuing at step") >= 2, hosts)
    (folder / "hold").unlink()
    assert_ended_well(hosts)

    def losses(run: Path) -> dict:
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return {(r["kind"], r["step"]): r["loss"] for r in records if "loss" in r}

    a, b = losses(folder / "run"), losses(unbroken)
    assert a.keys() == b.keys()
    worst = max(abs(a[key] - b[key]) / b[key] for key in b)
    print(f"alone and together again: largest relative difference {worst:.1e}")
    assert worst <= 1e-5
