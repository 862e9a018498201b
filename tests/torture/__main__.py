"""`make torture`: the crash matrix on the local cluster, its table, and every trial as a line of JSON."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from harness.clusters import roles, staging
from harness.clusters.select import choose
from harness.terminal.progress import LineProgress
from harness.terminal.stream import Lines
from tests.faults.targets import ROWS
from tests.torture.matrix import Point, Result, Torture, is_bad, table


def main() -> int:
    """Run the matrix; exit code 1 where anything was left broken."""
    parser = argparse.ArgumentParser(prog="make torture", description=__doc__)
    parser.add_argument("--fault", help="only this kind")
    parser.add_argument("--name", default="drill", help="the local cluster, which is brought up where it is down")
    parser.add_argument("--every", type=int, default=1, help="only every n-th step")
    # Measured on two cores: ten at a time make 20 trials a minute, 28 at a time 14.
    parser.add_argument("--jobs", type=int, default=5, help="namespaces in which trials of a row run at the same time")
    parser.add_argument("--abreast", type=int, default=2, help="rows that are tried at the same time")
    parser.add_argument("--out", type=Path, default=Path("runs/torture.jsonl"), help="a line for each trial, at once")
    given = parser.parse_args()
    lines = Lines(sys.stdout)
    progress = LineProgress(lines)
    provider = choose("local", name=given.name)
    access = provider.up(progress)
    staging.deploy(provider, access, "smoke", progress)
    roles.install(provider, access, progress)
    targets = [target for target in ROWS if given.fault in {None, target.kind}]
    began = time.monotonic()

    def chosen(points: list[Point]) -> list[Point]:
        return points[:: given.every]

    given.out.parent.mkdir(parents=True, exist_ok=True)
    with given.out.open("w", encoding="utf-8") as out:

        def keep(result: Result) -> None:
            out.write(json.dumps(asdict(result)) + "\n")
            out.flush()

        def say(text: str) -> None:
            lines.told("torture", text)

        results = Torture(access, say, given.jobs, given.abreast, keep).run(targets, chosen)
    lines.write("\n" + table(results) + f"\n\n{len(results)} trials in {time.monotonic() - began:.0f} s")
    bad = [result for result in results if is_bad(result)]
    for result in bad:
        lines.write(f"LEFT: {result.fault}, killed {result.point}, {result.rescuer}: {result.leftovers} {result.told}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
