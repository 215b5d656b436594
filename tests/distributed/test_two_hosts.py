"""Two hosts, each a network namespace of its own with a cable between them: one dies or is cut off, and comes back.

The hosts share nothing but the file system, as docs/scale.md asks. ``pytest -m slow
tests/distributed/test_two_hosts.py`` as root.
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
from safetensors.torch import load_file

from support import assert_same_curve, process, write_corpus

ADDRESSES = ("10.77.0.1", "10.77.0.2")  # of the first and the second host, in their namespaces only
STEPS = 50
# torchrun takes a silent host for dead after 3 s, not 15, and begins 2 s after there are enough hosts, not 30
RENDEZVOUS = "keep_alive_interval=1,keep_alive_max_attempt=3,last_call_timeout=2"
TRAIN = (
    "--data", "corpus.txt", "--steps", STEPS, "--evaluations", 2, "--checkpoint-every", 10, "--preset", "tiny",
    "--batch-tokens", 512, "--max-length", 32, "--threads", 1, "--precision", "fp32", "--device", "cpu",
    "--learning-rate", 0.002, "--muon-learning-rate", 0.02,  # those of so few steps magnify rounding
)  # fmt: skip
# a run of n ranks stands still before a step as long as there is a file hold-STEP-n, or until it is asked to stop
HOLDING = """
import os, sys, time
from contextlib import contextmanager
from fastbert import train
from fastbert.training import trainer
from fastbert.system.cli import run
step, listen = trainer.Trainer.train_step, trainer.stop_signals
@contextmanager
def stop_signals():
    global received
    with listen() as received:
        yield received
def one_step(self, progress):
    here = f"{self.step}-{self.world.size}"
    if os.path.exists(f"hold-{here}"):
        open(f"held-{here}-{self.world.rank}", "w").close()
    while os.path.exists(f"hold-{here}") and not received:
        time.sleep(0.05)
    step(self, progress)
trainer.stop_signals, trainer.Trainer.train_step = stop_signals, one_step
sys.exit(run(train.main, train.TrainOptions))
"""


def ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


class Host:
    """A network namespace; ``torchrun`` starts the host's part of the run."""

    def __init__(self, number: int, folder: Path):
        self.number, self.address, self.folder = number, ADDRESSES[number], folder
        self.namespace, self.cable = f"fastbert{os.getpid()}-{number}", f"fb{number}"
        self.agent: subprocess.Popen | None = None
        self.starts = 0

    def boot(self) -> None:
        ip("netns", "add", self.namespace)
        ip("-n", self.namespace, "link", "set", "lo", "up")
        ip("-n", self.namespace, "addr", "add", f"{self.address}/32", "dev", "lo")  # it knows itself without a cable

    def link(self, state: str) -> None:
        ip("-n", self.namespace, "link", "set", self.cable, state)

    def sent_bytes(self) -> int:
        (cable,) = json.loads(ip("-n", self.namespace, "-s", "-j", "link", "show", self.cable))
        return cable["stats64"]["tx"]["bytes"]

    def torchrun(self, *, endpoint: str, nodes: str) -> None:
        self.starts += 1
        command = [
            "ip", "netns", "exec", self.namespace, sys.executable, "-m", "torch.distributed.run", "--nnodes", nodes,
            "--nproc-per-node", 1, "--rdzv-backend", "c10d", "--rdzv-endpoint", f"{endpoint}:29500", "--rdzv-id", "job",
            "--rdzv-conf", f"is_host={int(endpoint == self.address)},{RENDEZVOUS}", "--local-addr", self.address,
            "--max-restarts", 3, "holding.py", *TRAIN, "--output", "run",
        ]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": self.cable}
        environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # see "Several machines" in docs/scale.md
        with (self.folder / f"host{self.number}-{self.starts}.log").open("w") as log:
            self.agent = subprocess.Popen(
                [str(c) for c in command], cwd=self.folder, env=environment, stdout=log, stderr=subprocess.STDOUT
            )

    def said(self) -> str:
        return "".join(p.read_text() for p in sorted(self.folder.glob(f"host{self.number}-*.log")))

    def kill(self) -> None:
        """Every process at once; the kernel closes their connections."""
        pids = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True).stdout.split()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        if self.agent is not None:
            self.agent.wait()

    def lose_power(self) -> None:
        """No connection is closed, and nobody will ever know of them again. The cable is gone too."""
        self.link("down")
        self.kill()
        ip("-n", self.namespace, "link", "del", self.cable)
        ip("netns", "del", self.namespace)


def plug_in(one: Host, other: Host) -> None:
    ip(
        "link", "add", one.cable, "netns", one.namespace,
        "type", "veth", "peer", "name", other.cable, "netns", other.namespace,
    )  # fmt: skip
    for host in (one, other):
        ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", host.cable)
        host.link("up")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The run of two ranks of one host that nothing happens to; by DDP, as ranks of two hosts must."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if not shutil.which("ip"):
        pytest.skip("network namespaces need the program ip (iproute2)")
    folder = tmp_path_factory.mktemp("one-host")
    write_corpus(folder / "corpus.txt", 120)
    arguments = (*TRAIN, "--output", "unbroken")
    process("fastbert.train", *arguments, cwd=folder, ranks=2, timeout=300)
    return folder / "unbroken"


@pytest.fixture
def hosts(tmp_path, unbroken):
    shutil.copy(unbroken.parent / "corpus.txt", tmp_path)
    (tmp_path / "holding.py").write_text(HOLDING)
    pair = [Host(number, tmp_path) for number in (0, 1)]
    try:
        try:
            for host in pair:
                host.boot()
            plug_in(*pair)
        except OSError as error:
            pytest.skip(f"this system allows no network namespaces ({error})")
        yield pair
    finally:
        for host in pair:
            host.kill()
            subprocess.run(["ip", "netns", "del", host.namespace], capture_output=True)


def wait_for(what: str, condition, hosts, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds:.0f} s: {what}\n" + "\n".join(host.said()[-3000:] for host in hosts))
        time.sleep(0.1)


def start(hosts, *, endpoint: str, nodes: str = "2") -> None:
    for host in hosts:
        host.torchrun(endpoint=endpoint, nodes=nodes)


def hold_at_25(hosts, **options) -> Path:
    """Both hosts stand still in the middle of the run, after the checkpoint of step 20, until the file is gone."""
    folder = hosts[0].folder
    (folder / "hold-25-2").touch()
    start(hosts, **options)
    held = [folder / f"held-25-2-{rank}" for rank in (0, 1)]
    wait_for("both hosts in the middle of the run", lambda: all(mark.exists() for mark in held), hosts)
    return folder / "hold-25-2"


def assert_ended_well(hosts) -> None:
    for host in hosts:
        wait_for(f"host {host.number} at the end", lambda host=host: host.agent.poll() is not None, hosts)
        assert host.agent.returncode == 0, host.said()[-3000:]


def assert_ended_as(hosts, unbroken: Path) -> None:
    """Bit for bit the same weights."""
    assert_ended_well(hosts)
    a, b = (load_file(path / "model.safetensors") for path in (hosts[0].folder / "run", unbroken))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def continued(host: Host) -> list[str]:
    """The steps at which the run went on, as its rank 0 told on this host."""
    return [line.split()[3] for line in host.said().splitlines() if line.startswith("continuing at step")]


@pytest.mark.slow
def test_two_hosts_train_as_one(hosts, unbroken):
    start(hosts, endpoint=hosts[0].address)
    assert_ended_as(hosts, unbroken)
    weights = sum(tensor.numel() for tensor in load_file(unbroken / "model.safetensors").values())
    for host in hosts:  # the gradients did go over the cable: a sum over two ranks sends each of them once
        assert host.sent_bytes() >= STEPS * 4 * weights


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1], ids=["with rank 0", "with rank 1"])
def test_a_host_dies_and_comes_back(hosts, unbroken, victim):
    """The other waits for it, both go on from the newest whole checkpoint: bit for bit the unbroken run."""
    survivor = hosts[1 - victim]
    endpoint = survivor.address  # with the other the meeting point would be gone
    hold = hold_at_25(hosts, endpoint=endpoint)
    hosts[victim].kill()
    hold.unlink()
    wait_for("the survivor's word", lambda: "another process of this run has died" in survivor.said(), hosts)
    hosts[victim].torchrun(endpoint=endpoint, nodes="2")
    assert_ended_as(hosts, unbroken)
    # rank 0, where it lives, saves what it has when the other is gone
    assert continued(hosts[0]) == ["20" if victim == 0 else "25"]


@pytest.mark.slow
def test_a_host_loses_its_power_and_comes_back(hosts, unbroken):
    """Nothing tells the survivor's rank, which waits; started again, the host makes torchrun fetch it."""
    one, other = hosts
    hold = hold_at_25(hosts, endpoint=one.address)
    other.lose_power()
    hold.unlink()
    time.sleep(5)
    other.boot()
    plug_in(one, other)
    other.torchrun(endpoint=one.address, nodes="2")
    assert_ended_as(hosts, unbroken)
    assert len(continued(one)) == 1 and continued(one)[0] in ("20", "25")


@pytest.mark.slow
def test_the_host_of_the_meeting_point_dies(hosts, unbroken):
    """torchrun ends on the other too; the same line on both, and the run goes on."""
    one, other = hosts
    hold = hold_at_25(hosts, endpoint=one.address)
    one.kill()
    hold.unlink()
    wait_for("the other's end", lambda: other.agent.poll() is not None, hosts)
    assert other.agent.returncode
    start(hosts, endpoint=one.address)
    assert_ended_as(hosts, unbroken)
    assert continued(one) == ["20"]


@pytest.mark.slow
def test_a_cable_is_out_for_a_moment(hosts, unbroken):
    """Nobody dies: the connections outlive it and the run goes on without a restart."""
    hold = hold_at_25(hosts, endpoint=hosts[0].address)
    hosts[1].link("down")
    hold.unlink()
    time.sleep(5)
    hosts[1].link("up")
    assert_ended_as(hosts, unbroken)
    assert not continued(hosts[0])


@pytest.mark.slow
def test_a_host_is_cut_off_until_it_is_started_again(hosts, unbroken):
    one, other = hosts
    hold = hold_at_25(hosts, endpoint=one.address)
    other.link("down")
    hold.unlink()
    time.sleep(20)
    other.kill()
    other.link("up")
    other.torchrun(endpoint=one.address, nodes="2")
    assert_ended_as(hosts, unbroken)
    assert len(continued(one)) == 1 and continued(one)[0] in ("20", "25")


@pytest.mark.slow
def test_one_host_goes_on_alone_and_the_other_joins_again(hosts, unbroken):
    """``--nnodes 1:2``: the number of ranks changes twice, the curve stays."""
    one, other = hosts
    folder, endpoint = one.folder, one.address
    (folder / "hold-35-1").touch()
    hold = hold_at_25(hosts, endpoint=endpoint, nodes="1:2")
    other.kill()
    hold.unlink()
    wait_for("the survivor alone", (folder / "held-35-1-0").exists, hosts)
    other.torchrun(endpoint=endpoint, nodes="1:2")
    assert_ended_well(hosts)
    assert continued(one) == ["25", "36"]  # asked to stop, it ends the step it is in
    assert_same_curve(unbroken, folder / "run")
