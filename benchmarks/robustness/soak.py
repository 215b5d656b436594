"""Train for a long time: the memory of the process must stay flat.

    python benchmarks/robustness/soak.py --minutes 60 -- --preset mini --checkpoint-every 200

Runs ``python -m fastbert.train`` on the bundled Portuguese with the options after ``--`` and reads its resident set
each second. The median of each tenth of the time is printed; the first tenth is warm-up, in which oneDNN compiles its
code and the allocator gets its pools; the second and the last but one are compared (the end of a run loads what the
steps do not need, and draws the curves). Exit code 1 if the memory grows by more than 3 % or the command fails.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MOST_GROWTH = 0.03
TENTHS = 10


def resident_mb(pid: int) -> float | None:
    """Resident set in megabytes; None once the process has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        return None
    return pages * 4096 / 1e6 or None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("options", nargs="*", help="of fastbert.train, after --")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="train_soak_"))
    command = [sys.executable, "-m", "fastbert.train", "--data", "bundled:pt", "--minutes", str(asked.minutes)]
    log = folder / "log.txt"
    try:
        with log.open("w", encoding="utf-8") as out:
            run = subprocess.Popen([*command, "--output", folder / "run", *asked.options], stdout=out, stderr=out)
        seen: list[float] = []
        while run.poll() is None:
            if (now := resident_mb(run.pid)) is not None:
                seen.append(now)
            time.sleep(1.0)
        said = log.read_text(encoding="utf-8")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print("\n".join(said.splitlines()[:8]))
    if run.returncode or len(seen) < TENTHS:
        print(f"{said[-2000:]}\nthe command ended with {run.returncode}")
        return 1
    parts = [seen[i * len(seen) // TENTHS : (i + 1) * len(seen) // TENTHS] for i in range(TENTHS)]
    medians = [statistics.median(part) for part in parts]
    print("resident MB, medians of tenths of the time: " + " ".join(f"{m:,.0f}" for m in medians))
    growth = medians[-2] / medians[1] - 1
    print(f"{len(seen):,} s; most {max(seen):,.0f} MB; tenth 9 against tenth 2: {growth:+.1%}")
    return 0 if growth <= MOST_GROWTH else 1


if __name__ == "__main__":
    sys.exit(main())
