"""Train on a disk that fills up and is freed again: nothing may be lost, and the weights must not care.

    sudo python benchmarks/robustness/disk.py --cases 100

The same tiny run is made once undisturbed. Then it is made again and again on a small disk (a tmpfs, which only root
can mount) on which another program takes all of the space at a random moment and gives it back a random time later, or
never. A run either ends with the weights of the undisturbed one, or stops with one line that names the disk; then the
disk is freed, the run resumed, and it must end with those weights. Processes are forked from one that has imported
everything.
"""

import argparse
import collections
import contextlib
import errno
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from kill_resume import forked, import_everything, options, outcome, write_corpus

STEPS = 24
DISK_MB = 64


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def fill(disk: Path, leave: int, ended: threading.Event) -> None:
    """Take what is free on the disk but ``leave`` bytes, again and again until ``ended``."""
    with (disk / "filler").open("ab", buffering=0) as file:
        while not ended.wait(0.002):
            state = os.statvfs(disk)
            free = state.f_bavail * state.f_frsize
            try:
                file.write(bytes(max(0, min(free - leave, DISK_MB << 20))))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


def disturb(disk: Path, after_s: float, leave: int, for_s: float, done: threading.Event) -> None:
    """The other program: waits, takes the space for a time, gives it back."""
    if done.wait(after_s):
        return
    over = threading.Event()
    taker = threading.Thread(target=fill, args=(disk, leave, over))
    taker.start()
    done.wait(for_s)
    over.set()
    taker.join()
    (disk / "filler").unlink()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    import_everything()
    import torch

    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="disk_"))
    write_corpus(folder / "corpus.txt")
    log = folder / "log.txt"
    counts: collections.Counter = collections.Counter()
    bad = 0

    def run(place: Path) -> int:
        log.unlink(missing_ok=True)
        return os.waitstatus_to_exitcode(os.waitpid(forked(place, options(folder, place, STEPS), log), 0)[1])

    assert run(folder / "whole") == 0, f"see {log}"
    expected = outcome(folder / "whole")["weights"]
    chance = random.Random(asked.seed)
    for case in range(asked.cases):
        with small_disk(folder / "disk") as disk:
            done = threading.Event()
            settings = chance.uniform(0, 1.2), chance.choice([0, 4096, 1 << 20]), chance.choice([0.1, 0.5, 600.0])
            other = threading.Thread(target=disturb, args=(disk, *settings, done))
            other.start()
            code = run(disk / "run")
            done.set()
            other.join()
            said = log.read_text(encoding="utf-8")
            lines = [line for line in said.splitlines() if line.startswith("error: ")]
            verdict = "not noticed" if code == 0 else "stopped, resumed"
            if code == 2 and len(lines) == 1 and "No space left" in lines[0] and "Traceback" not in said:
                code = run(disk / "run")
            elif code:
                verdict = f"ENDED WITH {code}"
            if code or outcome(disk / "run")["weights"] != expected:
                bad += 1
                print(f"{settings}: {verdict}, then {code}\n{said[-1500:]}\n{log.read_text()[-1500:]}", flush=True)
            counts[verdict] += 1
        (folder / "disk").rmdir()
        if (case + 1) % 20 == 0:
            print(f"{case + 1} cases, {bad} bad", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    print(", ".join(f"{verdict}: {number}" for verdict, number in sorted(counts.items())))
    print(f"{asked.cases} full disks: {bad} that lost something or ended otherwise")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
