"""Whoever comes next after a run has died, in the fake world: `drill recover`, the next run, the sweeper."""

from __future__ import annotations

from collections.abc import Callable

from harness.catalog import faults
from harness.core.inbox import INBOX_LABEL
from harness.engine import notes, undo_records
from harness.engine.lease import NAME, RECOVERING, Lease
from harness.engine.recovery import SETTLE_WITHIN, recover
from harness.engine.sweeper import EVERY, REVERTS_WITHIN, Sweeper
from harness.ports.cluster import Json
from tests.fakes.drill import Drill
from tests.fakes.world import NAMESPACE, Killed, World

Comer = Callable[[World, str], list[str]]
"""Brings back what is left in a world under a name of its own, and answers with what it said. Raises DrillError where
it could not."""


def by_recover(world: World, name: str) -> list[str]:
    """`drill recover`, on whatever machine."""
    said: list[str] = []

    def wait(seconds: float) -> bool:
        world.run_for(seconds)
        return True

    lease = Lease(world.cluster, world.clock, NAMESPACE, name, phase=RECOVERING)
    lease.acquire(wait, said.append)
    try:
        recover(world.cluster, NAMESPACE, faults(), world.clock, wait, said.append)
    except Killed:
        raise
    except BaseException:
        lease.release()
        raise
    lease.release()
    return said


def by_next_run(world: World, name: str) -> list[str]:
    """The next run, as far as it brings back what is left; then it is over."""
    drill = Drill(world=world, run_id=name)
    try:
        drill.take_over()
    except Killed:
        raise
    except BaseException:
        drill.lease.release()
        raise
    drill.lease.release()
    return drill.said


def by_sweeper(world: World, name: str) -> list[str]:
    """The sweeper, for as long as it may take: until it has seen the lock lapse, and what it undid is settled."""
    said: list[str] = []

    def wait(seconds: float) -> bool:
        world.run_for(seconds)
        return True

    sweeper = Sweeper(world.cluster, faults(), world.clock, name, wait, said.append)
    until = world.clock.now() + REVERTS_WITHIN + SETTLE_WITHIN
    while world.clock.now() < until:
        sweeper.sweep()
        if not leftovers(world):
            break
        wait(EVERY)
    return said


COMERS: dict[str, Comer] = {"recover": by_recover, "next run": by_next_run, "sweeper": by_sweeper}


def leftovers(world: World) -> list[str]:
    """The undo records and the lock that are still there."""
    records = world.cluster.listing("ConfigMap", NAMESPACE, f"{undo_records.LABEL}=true")
    locks = [lock for lock in world.cluster.listing("Lease", NAMESPACE) if lock["metadata"]["name"] == NAME]
    return [body["metadata"]["name"] for body in (*records, *locks)]


def declared(world: World) -> list[Json]:
    """Everything that is declared in the cluster, to the letter: without status and what counts changes, without
    people's messages, and without notes on recoveries."""
    kept = []
    for body in world.cluster.dump():
        labels = body["metadata"].get("labels") or {}
        if INBOX_LABEL in labels or notes.LABEL in labels:
            continue
        counted = {"resourceVersion", "generation", "managedFields"}
        metadata = {k: v for k, v in body["metadata"].items() if k not in counted}
        kept.append({**{k: v for k, v in body.items() if k != "status"}, "metadata": metadata})
    return kept
