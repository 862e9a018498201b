"""Bring back what a dead run left: from the records in the cluster alone.

Used by `drill recover` and by the next run's preflight. It needs neither the dead run's folder nor its machine. The
caller holds the namespace's lock, so that no living run is undone under its feet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.core.clock import Clock
from harness.core.errors import DrillError
from harness.engine.undo_records import UndoRecord, discard, readable
from harness.ports.cluster import Cluster
from harness.ports.fault import Fault, UndoOutcome

SETTLE_WITHIN = 90.0
"""Seconds that a restored target has to run again what it declares."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """One record's end. `clean` is false where the target is still not what it was; `differences` say how, and
    `accepted` that force took them as they are."""

    record: UndoRecord
    outcome: str
    detail: str
    clean: bool
    differences: tuple[str, ...]
    seconds: float
    accepted: bool = False


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

    A record of an unknown kind (a newer version's) is reported as not clean and left alone. Raises RollbackIncomplete
    for a record that cannot be read, after all others were undone.
    """
    results = []
    records, broken = readable(cluster, namespace)
    for record in records:
        started = clock.now()
        say(f"undoing {record.kind} of run {record.run_id} ({record.fault})")
        try:
            outcome, left = _bring_back(record, faults, cluster, clock, wait, force=force)
        except DrillError as error:  # one that fails must not keep the others from being tried
            outcome, left = UndoOutcome("refused", error.fact), (error.fact,)
        say(f"{outcome.outcome}: {outcome.detail}")
        clean = not left
        # Whoever forces takes what is left as it is: the fault's own field is back, the rest is somebody's doing.
        accepted = force and not clean and outcome.outcome in {"restored", "already"}
        if clean or accepted:
            discard(cluster, record)
        results.append(
            Recovered(
                record,
                outcome.outcome,
                outcome.detail,
                clean=clean,
                accepted=accepted,
                differences=left,
                seconds=clock.now() - started,
            )
        )
    if broken:
        raise broken[0]
    return results


def _bring_back(
    record: UndoRecord,
    faults: Mapping[str, Fault[Any]],
    cluster: Cluster,
    clock: Clock,
    wait: Callable[[float], bool],
    *,
    force: bool,
) -> tuple[UndoOutcome, tuple[str, ...]]:
    """How one undo ended, and what still differs from the snapshot."""
    fault = faults.get(record.kind)
    if fault is None:
        detail = f"this version knows no fault {record.kind!r}"
        return UndoOutcome("refused", detail), (detail,)
    outcome = fault.undo(record.undo, cluster, force=force)
    if outcome.outcome == "refused":
        return outcome, (outcome.detail,)
    # A vanished target has nothing left to put back: keeping its record would block every later run.
    return outcome, () if outcome.outcome == "vanished" else settle(fault, record.undo, cluster, clock, wait)


def settle(
    fault: Fault[Any], undo: dict[str, Any], cluster: Cluster, clock: Clock, wait: Callable[[float], bool]
) -> tuple[str, ...]:
    """Wait until the target equals its snapshot; what still differs when the time is over."""
    deadline = clock.now() + SETTLE_WITHIN
    while True:
        left = fault.differences(undo, cluster)
        if not left or clock.now() >= deadline or not wait(1.0):
            return left
