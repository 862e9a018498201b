"""Bring back what a dead run left: from the records in the cluster alone.

Used by `drill recover` and by the next run's preflight. It needs neither the dead run's folder nor its machine. The
caller holds the namespace's lock, so that no living run is undone under its feet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.core.clock import Clock
from harness.engine.undo_records import UndoRecord, discard, load
from harness.ports.cluster import Cluster
from harness.ports.fault import Fault

SETTLE_WITHIN = 90.0
"""Seconds that a restored target has to run again what it declares."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """One record's end. `clean` is false where the target is still not what it was; `differences` say how."""

    record: UndoRecord
    outcome: str
    detail: str
    clean: bool
    differences: tuple[str, ...]
    seconds: float


def recover(
    cluster: Cluster,
    namespace: str,
    faults: Mapping[str, Fault[Any]],
    clock: Clock,
    wait: Callable[[float], bool],
    say: Callable[[str], None],
    *,
    force: bool = False,
) -> list[Recovered]:
    """Undo every record in the namespace, newest first, and wait until each target is clean.

    A record of an unknown kind (a newer version's) is reported as not clean and left alone.
    """
    results = []
    for record in load(cluster, namespace):
        started = clock.now()
        say(f"undoing {record.kind} of run {record.run_id} ({record.fault})")
        fault = faults.get(record.kind)
        if fault is None:
            detail = f"this version knows no fault {record.kind!r}"
            results.append(Recovered(record, "refused", detail, clean=False, differences=(detail,), seconds=0.0))
            continue
        outcome = fault.undo(record.undo, cluster, force=force)
        say(f"{outcome.outcome}: {outcome.detail}")
        left = settle(fault, record.undo, cluster, clock, wait) if outcome.outcome != "vanished" else ()
        # A vanished target has nothing left to put back: keeping its record would block every later run.
        if not left and outcome.outcome != "refused":
            discard(cluster, record)
        clean = not left and outcome.outcome != "refused"
        differences = left or ((outcome.detail,) if not clean else ())
        results.append(
            Recovered(
                record,
                outcome.outcome,
                outcome.detail,
                clean=clean,
                differences=differences,
                seconds=clock.now() - started,
            )
        )
    return results


def settle(
    fault: Fault[Any], undo: dict[str, Any], cluster: Cluster, clock: Clock, wait: Callable[[float], bool]
) -> tuple[str, ...]:
    """Wait until the target equals its snapshot; what still differs when the time is over."""
    deadline = clock.now() + SETTLE_WITHIN
    while True:
        left = fault.differences(undo, cluster)
        if not left or clock.now() >= deadline or not wait(1.0):
            return left
