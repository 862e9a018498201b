"""Bring back what a dead run left: from the records in the cluster alone.

Used by `drill recover` and by the next run's preflight. It needs neither the dead run's folder nor its machine. The
caller holds the namespace's lock, so that no living run is undone under its feet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.core.clock import Clock, Instant
from harness.core.errors import DrillError
from harness.engine import fence
from harness.engine.undo_records import UNREADABLE, UndoRecord, discard, readable
from harness.ports.cluster import Cluster, Ref
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
    on_done: Callable[[Recovered], None] = lambda _: None,
) -> list[Recovered]:
    """Undo every record in the namespace, newest first, and wait until each target is clean; `on_done` is told each,
    before its record is removed: who is killed in between must not have brought it back in silence.

    A record of an unknown kind (a newer version's) is reported as not clean and left alone. Raises RollbackIncomplete
    for a record that cannot be read, after all others were undone.
    """
    records, broken = readable(cluster, namespace)
    # First every write, then the waiting: no fault stays in force while another one's pods come back.
    begun = [_bring_back(record, faults, cluster, clock, say, force=force) for record in records]
    results = []
    for one in begun:
        done = _finish(one, faults, cluster, clock, wait, force=force)
        on_done(done)
        results.append(_forget(done, cluster))
    if broken:
        raise broken[0]
    return results


@dataclass(frozen=True, slots=True)
class _Undone:
    """One record after its undo was tried."""

    record: UndoRecord
    outcome: UndoOutcome
    started: Instant


def _bring_back(
    record: UndoRecord,
    faults: Mapping[str, Fault[Any]],
    cluster: Cluster,
    clock: Clock,
    say: Callable[[str], None],
    *,
    force: bool,
) -> _Undone:
    started = clock.now()
    say(f"undoing {record.kind} of run {record.run_id} ({record.fault})")
    fault = faults.get(record.kind)
    if fault is None:
        outcome = UndoOutcome("refused", f"this version knows no fault {record.kind!r}")
    else:
        try:
            outcome = fence.bring_back(fault, record.undo, cluster, force=force)
        except DrillError as error:  # one that fails must not keep the others from being tried
            outcome = UndoOutcome("refused", error.fact)
        except UNREADABLE as error:  # nor one that is labelled as a record and tells no fault what it needs
            outcome = UndoOutcome("refused", f"{record.ref} is not a record of {record.kind}: {error!r}")
    say(f"{outcome.outcome}: {outcome.detail}")
    return _Undone(record, outcome, started)


def _finish(
    one: _Undone,
    faults: Mapping[str, Fault[Any]],
    cluster: Cluster,
    clock: Clock,
    wait: Callable[[float], bool],
    *,
    force: bool,
) -> Recovered:
    record, outcome = one.record, one.outcome
    left: tuple[str, ...] = (outcome.detail,) if outcome.outcome == "refused" else ()
    waits = outcome.outcome in {"restored", "already"} or bool(outcome.gone)
    if waits:
        try:
            left = settle(faults[record.kind], record.undo, cluster, clock, wait, outcome.gone)
        except DrillError as error:
            left = (f"could not be compared: {error.fact}",)
        except UNREADABLE as error:
            left = (f"could not be compared: {record.ref} is not a record of {record.kind}: {error!r}",)
    # A vanished target has nothing left to put back: keeping its record would block every later run.
    clean = not left
    # Whoever forces takes what is left as it is: the fault's own field is back, the rest is somebody's doing.
    accepted = force and not clean and waits
    return Recovered(
        record,
        outcome.outcome,
        outcome.detail,
        clean=clean,
        accepted=accepted,
        differences=left,
        seconds=clock.now() - one.started,
    )


def _forget(done: Recovered, cluster: Cluster) -> Recovered:
    """Remove the record of what is back, or is accepted as it is."""
    if not done.clean and not done.accepted:
        return done
    try:
        discard(cluster, done.record)
    except DrillError as error:
        left = (*done.differences, f"its undo record could not be removed: {error.fact}")
        return replace(done, clean=False, accepted=False, differences=left)
    return done


def settle(
    fault: Fault[Any],
    undo: dict[str, Any],
    cluster: Cluster,
    clock: Clock,
    wait: Callable[[float], bool],
    gone: Sequence[Ref] = (),
) -> tuple[str, ...]:
    """Wait until the target equals its snapshot, objects that are `gone` aside; what still differs when the time is
    over."""
    deadline = clock.now() + SETTLE_WITHIN
    others = tuple(f"{ref}{end}" for ref in gone for end in (" ", ":"))
    while True:
        left = tuple(one for one in fault.differences(undo, cluster) if not one.startswith(others))
        if not left or clock.now() >= deadline or not wait(1.0):
            return left
