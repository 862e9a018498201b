"""The fence around a fault's write: one that was held up for longer than its lock lasts does not arrive any more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from harness.catalog import faults
from harness.core.event import InjectDone, InjectStarted, RunEnded, StopAsked
from harness.core.experiment import FaultSpec
from harness.core.snapshot import snapshot
from harness.core.verdict import Verdict, judge
from harness.engine import fence, undo_records
from harness.engine.recovery import recover
from harness.engine.sweeper import EVERY, REVERTS_WITHIN, Sweeper
from harness.ports.cluster import Conflict, Json, NotFound, Ref
from tests.fakes.cluster import FakeCluster, lost_reply
from tests.fakes.comers import declared, leftovers
from tests.fakes.drill import FAULTS, WRITES, Drill, experiment_data
from tests.fakes.world import NAMESPACE, WORKER, Killed, World, Written

every_fault = pytest.mark.parametrize("kind", sorted(FAULTS))
every_patch = pytest.mark.parametrize("kind", sorted(kind for kind in FAULTS if WRITES[kind] == "patch Deployment"))
every_bound = pytest.mark.parametrize("kind", sorted(kind for kind in FAULTS if not WRITES[kind].startswith("create")))
"""What is made is collected and not refused, see below."""
every_start = pytest.mark.parametrize("kind", sorted(kind for kind in FAULTS if WRITES[kind].startswith("patch")))


def hold_up(drill: Drill, *, killed: bool = False) -> None:
    """Let the run's process stand still between the renewal of its lock and its write, until the sweeper took its
    record for undone; `killed` right behind the write, whatever became of it."""
    world = drill.world
    said: list[str] = []

    def wait(seconds: float) -> bool:
        world.run_for(seconds)  # and the run's own keeper stands still
        return True

    def around(written: Written) -> None:
        if written.what != WRITES[drill.data["faults"][0]["kind"]] or written.after:
            return
        world.cluster.around = lambda _: None
        sweeper = Sweeper(world.cluster, faults(), world.clock, "sweeper", wait, said.append)
        began = world.clock.now()
        while leftovers(world):
            assert world.clock.now() - began < REVERTS_WITHIN + EVERY, said
            sweeper.sweep()
            wait(EVERY)
        if killed:
            world.cluster.die_at_write(written.index, after=True)

    world.cluster.around = around


def limits(world: World) -> tuple[Any, Any]:
    spec = world.deployment["spec"]
    return spec["replicas"], spec["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"]


@every_bound
def test_a_write_that_was_held_up_past_its_lock_is_refused(kind: str) -> None:
    drill = Drill(data=experiment_data(kind))
    before = declared(drill.world)
    hold_up(drill)
    history = drill.run()
    assert [done.outcome for done in history.all(InjectDone)] == ["failed"]
    assert history.all(StopAsked)[0].by == "the lock"
    assert history.last(RunEnded) is not None
    assert declared(drill.world) == before
    assert leftovers(drill.world) == []
    assert judge(drill.experiment, history).verdict is not Verdict.MET


@every_fault
def test_killed_right_behind_the_write_that_was_held_up_nothing_is_left(kind: str) -> None:
    drill = Drill(data=experiment_data(kind))
    before = declared(drill.world)
    hold_up(drill, killed=True)
    with pytest.raises(Killed):
        drill.run()
    drill.world.cluster.dead = False
    assert len(drill.history.all(InjectStarted)) == 1
    assert not drill.history.all(InjectDone)
    assert declared(drill.world) == before
    assert leftovers(drill.world) == []


@every_patch
def test_it_is_the_moved_version_that_refuses(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fence, "_move", lambda *_: True)
    alive = Drill(data=experiment_data(kind))
    before = limits(alive.world)
    hold_up(alive)
    history = alive.run()
    assert [done.outcome for done in history.all(InjectDone)] == ["done"]
    assert limits(alive.world) == before, "it learns that its lock is gone, and undoes"
    dead = Drill(data=experiment_data(kind))
    hold_up(dead, killed=True)
    with pytest.raises(Killed):
        dead.run()
    dead.world.cluster.dead = False
    assert limits(dead.world) != before
    assert leftovers(dead.world) == [], "and nothing in the cluster tells of it"


@every_start
def test_a_write_that_got_lost_on_its_way_does_not_arrive_after_its_undo(kind: str) -> None:
    drill = Drill(data=experiment_data(kind))
    cluster, before = drill.world.cluster, declared(drill.world)
    sent: list[tuple[Ref, list[Json]]] = []
    real = cluster.patch

    def patch(ref: Ref, operations: Sequence[Json], *, dry_run: bool = False) -> Json:
        if not dry_run:
            sent.append((ref, list(operations)))
        return real(ref, operations, dry_run=dry_run)

    cluster.patch = patch  # type: ignore[method-assign]
    cluster.fail_write("patch", WRITES[kind].split()[1], lost_reply())
    history = drill.run()
    assert [done.outcome for done in history.all(InjectDone)] == ["unknown"]
    with pytest.raises((Conflict, NotFound)):
        FakeCluster.patch(cluster, *sent[0])
    assert declared(drill.world) == before
    assert leftovers(drill.world) == []


@every_start
def test_a_target_whose_status_moves_is_looked_at_again(kind: str) -> None:
    drill = Drill(data=experiment_data(kind))
    world, moved = drill.world, list[int]()

    def around(written: Written) -> None:
        if written.what == WRITES[kind] and not written.after and len(moved) < fence.ATTEMPTS - 1:
            moved.append(written.index)
            (body,) = world.cluster.listing(WRITES[kind].split()[1], NAMESPACE)
            world.cluster.put({**body, "status": {**(body.get("status") or {}), "collisionCount": len(moved)}})

    world.cluster.around = around
    drill.respond()
    history = drill.run()
    assert len(moved) == fence.ATTEMPTS - 1
    assert [done.outcome for done in history.all(InjectDone)] == ["done"]
    assert judge(drill.experiment, history).verdict is Verdict.MET


def test_a_target_that_never_rests_is_left_alone() -> None:
    drill = Drill()
    world, before = drill.world, declared(drill.world)

    def around(written: Written) -> None:
        if written.what == "patch Deployment" and not written.after:
            body = world.deployment
            world.cluster.put({**body, "status": {**body["status"], "collisionCount": written.index}})

    world.cluster.around = around
    history = drill.run()
    ended = history.last(RunEnded)
    assert ended is not None
    assert (ended.reason, [done.outcome for done in history.all(InjectDone)]) == ("error", ["failed"])
    assert declared(world) == before
    assert leftovers(world) == []


def planned(world: World, kind: str) -> tuple[Any, dict[str, Any]]:
    fault = faults()[kind]
    spec: FaultSpec = Drill(world=world, data=experiment_data(kind)).experiment.faults[0]
    return fault, fault.plan(spec, NAMESPACE, world.cluster).undo


@every_patch
@pytest.mark.parametrize("labels", [None, {}, {"app": "worker"}, {"app": "worker", fence.LABEL: "1"}], ids=str)
def test_moving_the_version_moves_nothing_else(kind: str, labels: dict[str, str] | None) -> None:
    world = World()
    fault, undo = planned(world, kind)
    body = world.deployment
    body["metadata"].pop("labels")
    world.cluster.put({**body, "metadata": {**body["metadata"], **({} if labels is None else {"labels": labels})}})
    before = world.deployment
    versions = fence.look(fault, undo, world.cluster)
    assert fence.bring_back(fault, undo, world.cluster).outcome == "already"
    after = world.deployment
    assert after["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]
    kept = {key: value for key, value in (labels or {}).items() if key != fence.LABEL}
    assert (after["metadata"].get("labels") or {}) == kept
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert after["spec"] == before["spec"]
    with pytest.raises(Conflict):
        fence.apply(fault, undo, world.cluster, versions)


@every_patch
@pytest.mark.parametrize(("writes", "lands"), [(0, True), (1, False), (2, False)])
def test_a_write_that_arrives_while_it_is_being_undone_is_undone_or_refused(
    kind: str, writes: int, *, lands: bool
) -> None:
    """It arrives once that many writes of the undo were made, when there was nothing to undo yet."""
    world = World()
    fault, undo = planned(world, kind)
    before, versions = snapshot(world.deployment), fence.look(fault, undo, world.cluster)
    first, arrived = world.cluster.sent, list[bool]()

    def arrive() -> None:
        world.cluster.around = lambda _: None
        try:
            fence.apply(fault, undo, world.cluster, versions)
        except Conflict:
            arrived.append(False)
        else:
            arrived.append(True)

    world.cluster.around = lambda one: arrive() if (one.index, one.after) == (first + writes, False) else None
    assert fence.bring_back(fault, undo, world.cluster).outcome == ("restored" if lands else "already")
    if writes == 2:
        arrive()
    assert arrived == [lands]
    assert snapshot(world.deployment) == before


def test_where_the_version_may_not_be_moved_the_undo_counts_and_says_so() -> None:
    drill = Drill()
    world = drill.world
    drill.feed.when(lambda _: drill.history.open_faults() != (), lambda _: die(world))
    with pytest.raises(Killed):
        drill.run()
    world.cluster.dead = False
    before = limits(World())

    def no_labels(call: Any, _: Json | None, after: Json | None) -> str | None:
        labelled = after is not None and fence.LABEL in (after["metadata"].get("labels") or {})
        return "no labels here" if labelled else None

    world.cluster.admission.append(no_labels)

    def wait(seconds: float) -> bool:
        world.run_for(seconds)
        return True

    (done,) = recover(world.cluster, NAMESPACE, faults(), world.clock, wait, lambda _: None)
    assert (done.outcome, done.clean) == ("restored", True)
    assert "not kept out" in done.detail
    assert "no labels here" in done.detail
    assert limits(world) == before
    assert undo_records.load(world.cluster, NAMESPACE) == []


def die(world: World) -> None:
    world.cluster.dead = True
    raise Killed


def test_a_fault_writes_to_nothing_that_its_dry_run_did_not() -> None:
    world = World()
    fault, undo = planned(world, "scale")
    with pytest.raises(Conflict, match="which its dry run did not") as caught:
        fence.apply(fault, undo, world.cluster, {})
    assert caught.value.slug == "write-not-announced"
    assert [call for call in world.cluster.writes() if call.ref == WORKER] == []


OWNER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "record", "uid": "gone"}


def test_what_is_made_for_a_record_that_is_gone_is_collected_and_what_it_waits_for_is_refused() -> None:
    world = World()
    before = declared(world)
    fault, undo = planned(world, "job")
    fence.prepare(fault, undo, world.cluster, OWNER)
    assert world.cluster.listing("Job", NAMESPACE) == []
    with pytest.raises(NotFound):
        fence.look(fault, undo, world.cluster)
    with pytest.raises(NotFound):
        fence.apply(fault, undo, world.cluster, {})
    assert declared(world) == before


def test_what_is_made_belongs_to_a_record_or_is_not_made() -> None:
    world = World()
    fault, undo = planned(world, "job")
    with pytest.raises(Conflict) as caught:
        fence._Bound(world.cluster, {}, None).create(undo["body"])
    assert caught.value.slug == "write-not-announced"
    assert world.cluster.listing("Job", NAMESPACE) == []
    record = world.cluster.put(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "record", "namespace": NAMESPACE}}
    )
    fence.prepare(fault, undo, world.cluster, OWNER | {"uid": record["metadata"]["uid"]})
    fence.prepare(fault, undo, world.cluster, OWNER | {"uid": record["metadata"]["uid"]})
    (job,) = world.cluster.listing("Job", NAMESPACE)
    assert job["spec"]["suspend"] is True
    assert fault.differences(undo, world.cluster) == (), "it has broken nothing, and goes with its record"
    world.cluster.drop(Ref("ConfigMap", NAMESPACE, "record"))
    assert world.cluster.listing("Job", NAMESPACE) == []


def test_a_run_that_loses_its_lock_before_the_job_is_let_run_leaves_nothing() -> None:
    drill = Drill(data=experiment_data("job"))
    before = declared(drill.world)

    def around(written: Written) -> None:
        if written.what == "create Job" and written.after:
            lock = drill.world.cluster.listing("Lease", NAMESPACE)[0]
            drill.world.cluster.put({**lock, "spec": {**lock["spec"], "holderIdentity": "another"}})

    drill.world.cluster.around = around
    history = drill.run()
    assert history.all(InjectStarted) == []
    drill.world.cluster.drop(Ref("Lease", NAMESPACE, "drill"))
    assert declared(drill.world) == before
    assert leftovers(drill.world) == []


@pytest.mark.parametrize("killed", [False, True])
def test_what_is_made_too_late_is_collected_at_once(*, killed: bool) -> None:
    drill = Drill(data=experiment_data("manifest"))
    before = declared(drill.world)
    hold_up(drill, killed=killed)
    if killed:
        with pytest.raises(Killed):
            drill.run()
        drill.world.cluster.dead = False
        assert not drill.history.all(InjectDone)
    else:
        history = drill.run()
        assert history.all(StopAsked)[0].by == "the lock"
        assert judge(drill.experiment, history).verdict is not Verdict.MET
    assert declared(drill.world) == before
    assert leftovers(drill.world) == []
