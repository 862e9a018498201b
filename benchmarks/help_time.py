"""How long `drill --help` takes beside Chaos Toolkit's `chaos --help`.

    .venv/bin/python benchmarks/help_time.py [--rounds 21]

Both run from a fresh process each time, in turns, so that a busy moment hits both alike. Chaos Toolkit is installed
into a throw-away environment, pinned; the first, cold round is not counted. Not part of the tests: it downloads.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

PEER = "chaostoolkit==1.19.0"
LIMIT = 0.25
"""Seconds that `drill --help` may take."""


def seconds(command: list[str]) -> float:
    """Wall time of one run, which must succeed."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> int:
    """Measure and print; 1 where `drill --help` is over its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    rounds = parser.parse_args().rounds
    drill = Path(sys.executable).with_name("drill")
    if not drill.exists():
        print("no drill beside this python; run `make dev` first", file=sys.stderr)
        return 64
    with tempfile.TemporaryDirectory(prefix="drill-bench-") as room:
        print(f"installing {PEER} into a throw-away environment", file=sys.stderr)
        venv.create(room, with_pip=True)
        pip = [f"{room}/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PEER]
        subprocess.run(pip, check=True)
        commands = {"drill --help": [str(drill), "--help"], f"chaos --help ({PEER})": [f"{room}/bin/chaos", "--help"]}
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(rounds + 1):
            for name, command in commands.items():
                spent = seconds(command)
                if turn:
                    taken[name].append(spent)
    print(f"{'command':<40} {'median':>9} {'fastest':>9} {'slowest':>9}")
    for name, times in taken.items():
        row = (statistics.median(times), min(times), max(times))
        print(f"{name:<40} " + " ".join(f"{value * 1000:6.0f} ms" for value in row))
    ours, theirs = (statistics.median(times) for times in taken.values())
    print(f"ratio {ours / theirs:.2f}, rounds {rounds}, limit {LIMIT * 1000:.0f} ms")
    return int(ours > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
