"""What `drill recover` and the next run make of what a dead run left, beside the matrix of test_matrix."""

from __future__ import annotations

import pytest

from harness.catalog import faults
from harness.core.errors import RollbackIncomplete
from harness.core.snapshot import snapshot
from harness.core.verdict import Verdict, judge
from harness.engine.recovery import recover
from harness.ports.cluster import OutcomeUnknown
from tests.fakes.drill import Drill
from tests.fakes.world import NAMESPACE, Killed, World


def _bring_back(world: World) -> None:
    def wait(seconds: float) -> bool:
        world.run_for(seconds)
        return True

    done = recover(world.cluster, NAMESPACE, faults(), world.clock, wait, lambda _: None)
    assert all(one.clean for one in done)


def _die(world: World) -> None:
    world.cluster.dead = True
    raise Killed


def _assert_as_before(world: World, before: object) -> None:
    assert snapshot(world.deployment) == before
    assert world.cluster.list("ConfigMap", NAMESPACE, "drill.internal/undo=true") == []


def test_recovery_without_anything_to_recover_changes_nothing() -> None:
    world = World()
    before = world.cluster.dump()
    _bring_back(world)
    assert world.cluster.dump() == before


def test_recovery_twice() -> None:
    drill = Drill()
    drill.feed.when(lambda world: drill.history.open_faults() != (), _die)
    before = snapshot(drill.world.deployment)
    with pytest.raises(Killed):
        drill.run()
    drill.world.cluster.dead = False
    _bring_back(drill.world)
    _bring_back(drill.world)
    _assert_as_before(drill.world, before)


def test_the_next_run_recovers_what_a_dead_one_left() -> None:
    world = World()
    first = Drill(world=world, run_id="run-1")
    first.feed.when(lambda w: first.history.open_faults() != (), _die)
    with pytest.raises(Killed):
        first.run()
    world.cluster.dead = False
    second = Drill(world=world, run_id="run-2")
    second.respond()
    history = second.run()
    assert history.is_clean
    assert judge(second.experiment, history).verdict is Verdict.MET


def test_force_accepts_what_is_left_besides_the_faults_own_field() -> None:
    drill = Drill()
    drill.feed.when(lambda world: drill.history.open_faults() != (), _die)
    with pytest.raises(Killed):
        drill.run()
    world = drill.world
    world.cluster.dead = False
    body = world.deployment
    body["spec"]["replicas"] = 10
    world.cluster.put(body)

    def wait(seconds: float) -> bool:
        world.run_for(seconds)
        return True

    first = recover(world.cluster, NAMESPACE, faults(), world.clock, wait, lambda _: None)
    assert [(one.outcome, one.clean, one.accepted) for one in first] == [("restored", False, False)]
    again = recover(world.cluster, NAMESPACE, faults(), world.clock, wait, lambda _: None, force=True)
    assert [(one.outcome, one.clean, one.accepted) for one in again] == [("already", False, True)]
    assert any("replicas: 5 -> 10" in difference for difference in again[0].differences)
    assert world.cluster.list("ConfigMap", NAMESPACE, "drill.internal/undo=true") == []


def test_one_record_that_fails_keeps_no_other_from_being_tried() -> None:
    drill = Drill()
    drill.feed.when(lambda world: drill.history.open_faults() != (), _die)
    with pytest.raises(Killed):
        drill.run()
    world = drill.world
    world.cluster.dead = False
    lost = OutcomeUnknown("lost", "the reply was lost", expected="a reply", remedy="none")
    world.cluster.fail_write("patch", "Deployment", lost)
    done = recover(world.cluster, NAMESPACE, faults(), world.clock, lambda _: True, lambda _: None)
    assert [one.clean for one in done] == [False]
    assert done[0].detail == "the reply was lost"
    _bring_back(world)


def test_a_record_that_cannot_be_read_keeps_no_honest_one_from_being_undone() -> None:
    drill = Drill()
    before = snapshot(drill.world.deployment)
    drill.feed.when(lambda world: drill.history.open_faults() != (), _die)
    with pytest.raises(Killed):
        drill.run()
    world = drill.world
    world.cluster.dead = False
    labels = {"drill.internal/undo": "true"}
    metadata = {"name": "drill-undo-forged", "namespace": NAMESPACE, "labels": labels}
    world.cluster.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"record": "{"}})
    with pytest.raises(RollbackIncomplete) as caught:
        _bring_back(world)
    assert caught.value.slug == "undo-record-unreadable"
    assert "drill-undo-forged" in caught.value.fact
    assert snapshot(world.deployment) == before
