"""The dead man's switch in the fake world: whom it undoes, when, and whom it leaves alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from harness.catalog import faults
from harness.core.errors import Unreachable
from harness.core.inbox import message
from harness.core.snapshot import snapshot
from harness.core.verdict import Verdict, judge
from harness.engine import notes, undo_records
from harness.engine.lease import DURATION, Lease
from harness.engine.sweeper import EVERY, HEARTBEAT, HOME, MESSAGES_KEPT_FOR, REVERTS_WITHIN, Sweeper
from harness.ports.cluster import Ref
from tests.fakes.drill import Drill, set_limit
from tests.fakes.world import NAMESPACE, Killed, World


@dataclass
class Watch:
    """A sweeper over a world, stepped by hand."""

    world: World
    said: list[str] = field(default_factory=list)
    ends: int = 0

    def __post_init__(self) -> None:
        self.sweeper = Sweeper(self.world.cluster, faults(), self.world.clock, "sweeper", self.wait, self.said.append)

    def wait(self, seconds: float) -> bool:
        self.world.run_for(seconds)
        return True

    def until(self, what: str, seconds: float) -> float:
        """Sweep every few seconds until something of that wording is said; how long it took."""
        began = self.world.clock.now()
        while self.world.clock.now() - began < seconds:
            self.sweeper.sweep()
            if any(what in text for text in self.said):
                return self.world.clock.now() - began
            self.wait(EVERY)
        raise AssertionError(f"not within {seconds} s: {self.said}")


def died_in_the_middle(world: World) -> Drill:
    drill = Drill(world=world)
    drill.feed.when(lambda _: drill.history.open_faults() != (), _die)
    with pytest.raises(Killed):
        drill.run()
    world.cluster.dead = False
    return drill


def _die(world: World) -> None:
    world.cluster.dead = True
    raise Killed


def test_what_a_dead_run_left_is_undone_within_the_stated_time() -> None:
    world = World()
    before = snapshot(world.deployment)
    died_in_the_middle(world)
    died_at = world.clock.now()
    watch = Watch(world)
    while world.deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] != "128Mi":
        watch.sweeper.sweep()
        watch.wait(EVERY)
    assert world.clock.now() - died_at <= REVERTS_WITHIN
    assert snapshot(world.deployment) == before
    assert world.cluster.list("ConfigMap", NAMESPACE, f"{undo_records.LABEL}=true") == []
    assert world.cluster.list("Lease", NAMESPACE) == [], "the lock is given back"
    (left,) = notes.read(world.cluster, NAMESPACE)
    assert (left.run_id, left.fault, left.by, left.outcome, left.clean) == (
        "run-1",
        "memory",
        "sweeper",
        "restored",
        True,
    )


def test_a_living_run_is_left_alone() -> None:
    drill = Drill()
    watch = Watch(drill.world)
    swept = [0]

    def sweep(world: World) -> bool:
        if round(world.clock.now() * 10) % 30 == 0:
            drill.lease.renew()
            swept[0] += 1
            assert watch.sweeper.sweep() == []
        return False

    drill.feed.when(sweep, lambda _: None)
    drill.respond()
    history = drill.run()
    assert swept[0] > 10
    assert judge(drill.experiment, history).verdict is Verdict.MET
    assert watch.said == []


def test_a_run_past_its_deadline_is_undone_although_it_renews_its_lock() -> None:
    world = World()
    before = snapshot(world.deployment)
    drill = died_in_the_middle(world)
    watch = Watch(world)
    overdue = drill.experiment.profiles["smoke"].timeout + undo_records.OVERDUE_GRACE
    began = world.clock.now()
    while world.clock.now() - began < overdue - 30:
        drill.lease.renew()
        assert watch.sweeper.sweep() == []
        watch.wait(EVERY)
    while world.clock.now() - began < overdue + 2 * EVERY and not watch.said:
        drill.lease.renew()
        watch.sweeper.sweep()
        watch.wait(EVERY)
    assert "past its deadline of 360 s" in watch.said[0]
    assert snapshot(world.deployment) == before


def test_a_frozen_api_server_is_not_held_against_the_living() -> None:
    world = World()
    drill = died_in_the_middle(world)
    watch = Watch(world)
    watch.sweeper.sweep()
    for _ in range(10):  # thirty seconds in which nobody reaches the API server, neither the run nor the sweeper
        watch.wait(EVERY)
        world.cluster.fail_next("list", Unreachable("gone", "no answer", expected="an answer", remedy="wait"))
        with pytest.raises(Unreachable):
            watch.sweeper.sweep()
    assert watch.sweeper.sweep() == []
    watch.wait(4.0)
    drill.lease.renew()
    assert watch.sweeper.sweep() == []
    assert watch.said == []


def test_what_cannot_be_brought_back_is_tried_again_after_a_growing_pause() -> None:
    world = World()
    died_in_the_middle(world)
    set_limit(world, "100Mi")  # somebody else's value: it is refused, not trampled
    watch = Watch(world)
    watch.until("trying again in 30 s", DURATION + 3 * EVERY)
    assert world.cluster.list("Lease", NAMESPACE) == [], "whoever wants to help is not kept out meanwhile"
    first = len(watch.said)
    watch.wait(20.0)
    watch.sweeper.sweep()
    assert len(watch.said) == first
    watch.until("trying again in 60 s", 60.0)
    set_limit(world, "64Mi")
    watch.until("restored, clean", 200.0)
    assert undo_records.load(world.cluster, NAMESPACE) == []


def test_messages_to_no_run_and_notes_that_nobody_fetched_are_removed() -> None:
    world = World()
    world.cluster.create(message(NAMESPACE, actor="alice", action="note", text="hello?"))
    died_in_the_middle(world)
    watch = Watch(world)
    watch.until("restored, clean", REVERTS_WITHIN + EVERY)
    assert len(notes.read(world.cluster, NAMESPACE)) == 1
    world.run_for(MESSAGES_KEPT_FOR)
    watch.sweeper.sweep()
    assert world.cluster.list("ConfigMap", NAMESPACE, "drill.internal/inbox=true") == []
    assert len(notes.read(world.cluster, NAMESPACE)) == 1
    world.clock.advance(notes.KEPT_FOR)
    watch.sweeper.sweep()
    assert notes.read(world.cluster, NAMESPACE) == []


def test_it_beats_and_ends_when_told() -> None:
    world = World()
    said: list[str] = []
    waits = iter([True, True, False])

    def wait(seconds: float) -> bool:
        world.run_for(seconds)
        return next(waits)

    Sweeper(world.cluster, faults(), world.clock, "sweeper", wait, said.append).run()
    assert said == ["watching over drills", "ended"]
    assert world.cluster.get(Ref("Lease", HOME, HEARTBEAT))["spec"]["holderIdentity"] == "sweeper"


def test_withdrawing_the_opt_in_of_a_broken_namespace_does_not_leave_it_broken() -> None:
    world = World()
    before = snapshot(world.deployment)
    died_in_the_middle(world)
    body = world.cluster.get(Ref("Namespace", "", NAMESPACE))
    del body["metadata"]["labels"]
    world.cluster.put(body)
    watch = Watch(world)
    watch.until("restored, clean", REVERTS_WITHIN + EVERY)
    assert snapshot(world.deployment) == before


def test_a_namespace_that_it_may_not_look_into_does_not_stop_it() -> None:
    world = World()
    died_in_the_middle(world)
    world.cluster.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a-strangers"}})
    world.cluster.denied.add(("list", "ConfigMap", "a-strangers"))
    watch = Watch(world)
    watch.until("restored, clean", REVERTS_WITHIN + EVERY)
    assert not any("a-strangers" in text for text in watch.said)


def test_a_second_sweeper_waits_for_the_first() -> None:
    world = World()
    died_in_the_middle(world)
    first = Lease(world.cluster, world.clock, NAMESPACE, "other", phase="recovering")
    held = world.cluster.get(Ref("Lease", NAMESPACE, "drill"))
    watch = Watch(world)
    watch.sweeper.sweep()
    assert first.try_acquire(held)
    for _ in range(8):
        watch.wait(EVERY)
        first.renew()
        assert watch.sweeper.sweep() == []
