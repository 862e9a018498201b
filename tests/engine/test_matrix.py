"""The crash matrix: each fault x killed at each step x whoever comes next, and once more while they are at it.

A run is followed once, and the world is forked at every durable journal line and on both sides of every write: what a
process that is killed there leaves behind is the world, and nothing else. Each fork is then given to everybody who
may come next.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from harness.catalog import faults
from harness.core.errors import DrillError
from harness.core.event import EffectProved, Record, RunEnded
from harness.core.history import History
from harness.core.verdict import Verdict, judge
from harness.engine import notes, undo_records
from harness.engine.sweeper import REVERTS_WITHIN
from tests.fakes.cluster import lost_reply, no_answer
from tests.fakes.comers import COMERS, Comer, declared, leftovers
from tests.fakes.drill import FAULTS, Drill, experiment_data
from tests.fakes.world import NAMESPACE, World, Written

every_fault = pytest.mark.parametrize("kind", sorted(FAULTS))
every_comer = pytest.mark.parametrize("comer", sorted(COMERS))

APPENDS, WRITE_SIDES, RECOVERY_STEPS = 250, 50, 25
"""What a run has at least of journal lines and of sides of writes, and whoever comes next of writes that change
anything, over all situations: the matrix must not shrink unseen."""


def test_every_fault_of_the_catalog_is_in_the_matrix() -> None:
    assert set(FAULTS) == set(faults())


@dataclass
class Point:
    """A moment at which somebody was killed, and the world as it was then."""

    where: str
    world: World
    records: int = 0
    """How many lines were in the journal."""

    @property
    def has_record(self) -> bool:
        return bool(self.world.cluster.listing("ConfigMap", NAMESPACE, f"{undo_records.LABEL}=true"))


@dataclass
class Followed:
    """A run that was followed to its end, with the world forked at each of its steps."""

    drill: Drill
    before: list[dict[str, object]]
    points: list[Point] = field(default_factory=list)

    @property
    def appends(self) -> list[Point]:
        return [point for point in self.points if point.where.startswith("after line")]

    @property
    def write_sides(self) -> list[Point]:
        return [point for point in self.points if "write" in point.where]


@functools.cache
def fresh() -> World:
    return World()


def follow(drill: Drill, run: Callable[[], object]) -> Followed:
    followed = Followed(drill, declared(drill.world))

    def on_append(record: Record) -> None:
        where = f"after line {record.seq} ({record.event.type})"
        followed.points.append(Point(where, drill.world.fork(), len(drill.journal.records)))

    def around(written: Written) -> None:
        followed.points.append(Point(str(written), drill.world.fork(), len(drill.journal.records)))

    drill.journal.on_append = on_append
    drill.world.cluster.around = around
    run()
    return followed


@functools.cache
def whole_run(kind: str) -> Followed:
    drill = Drill(world=fresh().fork(), data=experiment_data(kind))
    drill.respond()
    followed = follow(drill, drill.run)
    assert judge(drill.experiment, drill.history).verdict is Verdict.MET
    return followed


def assert_brought_back(point: Point, before: object, comer: str) -> None:
    had_record = point.has_record
    world = point.world.fork()
    began = world.clock.now()
    said = COMERS[comer](world, f"{comer} after the death")
    told = f"{comer}, {point.where}: {said}"
    assert declared(world) == before, told
    assert leftovers(world) == [], told
    assert had_record == any(re.search(r"\b(restored|already): ", text) for text in said), told
    if comer == "sweeper":
        assert notes.read(world.cluster, NAMESPACE) or not had_record, told
        assert world.clock.now() - began <= REVERTS_WITHIN + 10.0, told


@every_fault
@every_comer
def test_killed_at_every_step_and_brought_back_by_whoever_comes_next(kind: str, comer: str) -> None:
    followed = whole_run(kind)
    assert len(followed.appends) >= APPENDS
    assert len(followed.write_sides) >= WRITE_SIDES
    for point in followed.points:
        assert_brought_back(point, followed.before, comer)


@every_fault
def test_a_killed_run_is_never_met(kind: str) -> None:
    followed = whole_run(kind)
    records = followed.drill.journal.records
    for point in followed.points:
        history = History(records[: point.records])
        if history.last(RunEnded) is None:
            assert judge(followed.drill.experiment, history).verdict is not Verdict.MET, point.where


def situations(followed: Followed) -> Iterator[Point]:
    """One point for each state in which a killed run can leave the cluster."""
    seen = set()
    for point in followed.points:
        bodies = declared(point.world)
        for body in bodies:
            body.get("spec", {}).pop("renewTime", None)
        pods = [pod["metadata"]["name"] for pod in point.world.cluster.listing("Pod", NAMESPACE)]
        state = json.dumps([bodies, pods], sort_keys=True)
        if state not in seen:
            seen.add(state)
            yield point


@every_fault
@every_comer
def test_killed_while_bringing_back_and_brought_back_by_another(kind: str, comer: str) -> None:
    followed = whole_run(kind)
    found = list(situations(followed))
    assert len(found) >= 8
    killed = 0
    for point in found:
        world, deaths = point.world.fork(), list[Point]()

        def around(written: Written, at: Point = point, world: World = world, deaths: list[Point] = deaths) -> None:
            # Tries for a lock in other hands change nothing: who dies at the second one leaves what the first one left.
            if not deaths or deaths[-1].world.cluster.version != world.cluster.version:
                deaths.append(Point(f"{at.where}, then {comer} {written}", world.fork()))

        world.cluster.around = around
        COMERS[comer](world, f"{comer} that dies")
        killed += len(deaths)
        for death in deaths:
            if comer == "sweeper" and point.has_record and not death.has_record:
                assert notes.read(death.world.cluster, NAMESPACE), f"{death.where}: brought back in silence"
            for other in COMERS:
                assert_brought_back(death, followed.before, other)
    assert killed >= RECOVERY_STEPS


def effective_writes(world: World, comer: Comer) -> list[int]:
    """The numbers of the writes that change anything, of somebody who comes to a world."""
    versions: dict[tuple[int, bool], int] = {}
    world.cluster.around = lambda written: versions.update({(written.index, written.after): world.cluster.version})
    comer(world, "probe")
    return [index for (index, after), version in versions.items() if after and version != versions[index, False]]


@every_fault
@every_comer
@pytest.mark.parametrize("after", [False, True])
def test_a_lost_reply_while_bringing_back(kind: str, comer: str, *, after: bool) -> None:
    followed = whole_run(kind)
    lost = 0
    for point in situations(followed):
        for index in effective_writes(point.world.fork(), COMERS[comer]):
            world = point.world.fork()
            world.cluster.fail_at_write(index, lost_reply(), after=after)
            with contextlib.suppress(DrillError):
                COMERS[comer](world, comer)
            lost += 1
            where = f"{point.where}, then {comer} without a reply to write {index}"
            for other in COMERS:
                assert_brought_back(Point(where, world), followed.before, other)
    assert lost >= RECOVERY_STEPS


def short_run(kind: str) -> Drill:
    """A run that is stopped soon after its effect is proved: every kind of write, and no long watch."""
    drill = Drill(world=fresh().fork(), data=experiment_data(kind))
    drill.world.warms_up_for = 3.0  # no alert is waited for
    drill.feed.stop_when(lambda _: bool(drill.history.all(EffectProved)))
    return drill


@every_fault
@pytest.mark.parametrize(
    ("error", "after"),
    [(lost_reply(), True), (lost_reply(), False), (no_answer(), False)],
    ids=["late", "lost", "refused"],
)
def test_no_reply_to_any_write_and_then_a_death_at_any_later_step(kind: str, error: DrillError, *, after: bool) -> None:
    whole = follow(drill := short_run(kind), drill.run)
    writes = len(whole.write_sides) // 2
    assert writes >= 9
    pairs = 0
    for index in range(writes):
        drill = short_run(kind)
        drill.world.cluster.fail_at_write(index, error, after=after)

        def run(drill: Drill = drill) -> None:
            with contextlib.suppress(DrillError):
                drill.run()

        followed = follow(drill, run)
        where = f"no reply to write {index}"
        assert judge(drill.experiment, drill.history).verdict is not Verdict.MET
        assert drill.history.last(RunEnded) is not None
        end = Point(f"{where}, then the end of the run", drill.world)
        for point in [end, *followed.write_sides]:
            pairs += 1
            for comer in COMERS:
                assert_brought_back(Point(f"{where}, then killed {point.where}", point.world), followed.before, comer)
    assert pairs >= 120
