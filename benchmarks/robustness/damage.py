"""Flip bits and cut files of a run at random: each damage must be detected or harmless.

    python benchmarks/robustness/damage.py --cases 500

A tiny run is stopped in the middle. For each case a copy of it gets one damaged file (token shards, manifest, offsets,
vocabulary, tokenizer files, checkpoints, run.json, metrics), by a flipped bit or a cut, and is resumed to its end. It
must either refuse with one clear line (detected), or end with the weights of the undamaged run (harmless). A crash, or
other weights without a word, is a failure.
"""

import argparse
import collections
import contextlib
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

from kill_resume import forked, import_everything, options, outcome, write_corpus


def damage(path: Path, chance: random.Random) -> str:
    data = bytearray(path.read_bytes())
    if chance.random() < 0.3 or not data:
        keep = chance.randrange(len(data)) if data else 0
        path.write_bytes(data[:keep])
        return f"cut to {keep} of {len(data)} bytes"
    place, bit = chance.randrange(len(data)), chance.randrange(8)
    data[place] ^= 1 << bit
    path.write_bytes(data)
    return f"bit {bit} of byte {place}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", default=None)
    asked = parser.parse_args()
    import_everything()
    import torch

    from fastbert import train

    torch.set_num_threads(1)
    folder = Path(asked.folder or tempfile.mkdtemp(prefix="damage_"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_corpus(folder / "corpus.txt")
    log = folder / "log.txt"
    import dataclasses

    def run(place: Path, **changes) -> int:
        opts = dataclasses.replace(options(folder, place, 16), evaluations=1, **changes)
        return os.waitstatus_to_exitcode(os.waitpid(forked(place, opts, log), 0)[1])

    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        train.main(options(folder, folder / "warm", 16))  # what it imports and compiles, the forked ones have
    assert run(folder / "whole") == 0 and run(folder / "half", stop_after=8) == 0, f"see {log}"
    expected = outcome(folder / "whole")["weights"]
    files = sorted(p.relative_to(folder / "half") for p in (folder / "half").rglob("*") if p.is_file())
    files = [p for p in files if "tensorboard" not in p.parts and p.name != ".lock"]
    chance = random.Random(asked.seed)
    counts: collections.Counter = collections.Counter()
    bad = 0
    for case in range(asked.cases):
        target = files[case % len(files)]
        copy = folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder / "half", copy)
        done = damage(copy / target, chance)
        log.unlink(missing_ok=True)
        code = run(copy)
        if code == 2:
            verdict = "detected"
        elif code == 0:
            same = outcome(copy)["weights"] == expected
            named = "warning: skipped a damaged checkpoint" in log.read_text()
            verdict = ("skipped and named" if named else "harmless") if same else "SILENTLY DIFFERENT"
        else:
            verdict = f"CRASHED ({code})"
        counts[target.name, verdict] += 1
        if verdict.isupper() or verdict.startswith("CRASHED"):
            bad += 1
            print(f"{target}: {done}: {verdict}\n{log.read_text()[-1500:]}", flush=True)
        if (case + 1) % 50 == 0:
            print(f"{case + 1} cases, {bad} bad", flush=True)
    for (name, verdict), number in sorted(counts.items()):
        print(f"{name:28} {verdict:20} {number}")
    print(f"{asked.cases} damages: {bad} crashed or changed the result in silence")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
