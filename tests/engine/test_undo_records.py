"""Undo records are read from a cluster in which others may write, too."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.catalog import faults
from harness.core.errors import RollbackIncomplete
from harness.core.snapshot import snapshot
from harness.core.workload import unsettled
from harness.engine import undo_records
from harness.engine.recovery import recover
from tests.fakes.cluster import FakeCluster
from tests.fakes.drill import Drill, experiment_data
from tests.fakes.world import NAMESPACE as WORLD
from tests.fakes.world import SETTINGS, Killed, World

NAMESPACE = "shop"


def forged(**changes: Any) -> FakeCluster:
    cluster = FakeCluster(now=lambda: 1000.0)
    undo = {"kind": "Deployment", "namespace": NAMESPACE, "name": "worker"}
    record = {"schema": 1, "run_id": "run-1", "fault": "memory", "kind": "memory-limit", "order": 0, "undo": undo}
    cluster.put({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "forged", "namespace": NAMESPACE, "labels": {undo_records.LABEL: "true"}},
        "data": {"record": json.dumps(record | changes)},
    })  # fmt: skip
    return cluster


def test_an_honest_record_is_read() -> None:
    assert undo_records.load(forged(), NAMESPACE)[0].run_id == "run-1"


@pytest.mark.parametrize(
    "changes",
    [
        {"undo": {"kind": "Deployment", "namespace": "payments", "name": "worker"}},
        {"undo": "anything"},
        {"run_id": "../../elsewhere"},
        {"run_id": ".."},
        {"fault": "\x1b[2Jall is well"},
        {"kind": ""},
        {"kind": 7},
        {"order": float("inf")},
        {"overdue_after": float("nan")},
        {"overdue_after": -1},
        {"overdue_after": 1e12},
    ],
)
def test_a_forged_record_leads_nowhere(changes: dict[str, Any]) -> None:
    with pytest.raises(RollbackIncomplete) as refused:
        undo_records.load(forged(**changes), NAMESPACE)
    assert refused.value.slug == "undo-record-unreadable"
    assert "\x1b" not in refused.value.fact


def test_a_record_that_parsers_fall_over_is_told_and_stops_nothing() -> None:
    cluster = forged()
    body = cluster.list("ConfigMap", NAMESPACE)[0]
    body["metadata"] = {"name": "deep", "namespace": NAMESPACE, "labels": {undo_records.LABEL: "true"}}
    cluster.put({**body, "data": {"record": "[" * 50_000}})
    records, broken = undo_records.readable(cluster, NAMESPACE)
    assert [record.ref.name for record in records] == ["forged"]
    assert ["deep" in error.fact for error in broken] == [True]


def test_a_record_that_tells_its_fault_nothing_keeps_no_other_from_being_undone() -> None:
    world = World()
    before = snapshot(world.deployment)
    drill = Drill(world=world)
    drill.feed.when(lambda _: drill.history.open_faults() != (), _die)
    with pytest.raises(Killed):
        drill.run()
    world.cluster.dead = False
    empty = {"schema": 1, "run_id": "run-0", "fault": "x", "kind": "memory-limit", "order": 9, "undo": {}}
    world.cluster.put({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "empty", "namespace": WORLD, "labels": {undo_records.LABEL: "true"}},
        "data": {"record": json.dumps(empty)},
    })  # fmt: skip

    def wait(seconds: float) -> bool:
        world.run_for(seconds)
        return True

    done = recover(world.cluster, WORLD, faults(), world.clock, wait, lambda _: None)
    assert {one.record.run_id: one.clean for one in done} == {"run-0": False, "run-1": True}
    assert snapshot(world.deployment) == before
    assert [record.ref.name for record in undo_records.load(world.cluster, WORLD)] == ["empty"]


def test_a_map_that_vanished_keeps_nobody_from_waiting_for_the_pods_that_read_it() -> None:
    fault = faults()["config"]
    for comes_to_rest in (True, False):
        world = World()
        before = snapshot(world.deployment)
        spec = Drill(world=world, data=experiment_data("config")).experiment.faults[0]
        undo = fault.plan(spec, WORLD, world.cluster).undo
        undo_records.store(world.cluster, WORLD, "run-1", "memory", "config", undo, 0, overdue_after=120)
        fault.apply(undo, world.cluster)
        world.run_for(30.0)
        world.cluster.drop(SETTINGS)
        seen: list[bool] = []

        def wait(seconds: float, world: World = world, moves: bool = comes_to_rest, seen: list[bool] = seen) -> bool:
            seen.append(bool(unsettled(world.deployment)))
            if moves:
                world.run_for(seconds)
            return moves or len(seen) < 3

        (done,) = recover(world.cluster, WORLD, faults(), world.clock, wait, lambda _: None)
        assert (done.outcome, done.clean) == ("vanished", comes_to_rest)
        assert snapshot(world.deployment) == before
        assert seen[0], "the pods were still on their way"
        assert bool(unsettled(world.deployment)) != comes_to_rest
        assert bool(undo_records.load(world.cluster, WORLD)) != comes_to_rest
        assert all("rollout not finished" in one or "not yet seen" in one for one in done.differences)


def _die(world: World) -> None:
    world.cluster.dead = True
    raise Killed
