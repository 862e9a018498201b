"""The fence around a fault's write: one that was held up for longer than its lock lasts does not arrive any more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from harness.catalog import faults
from harness.core.errors import DrillError
from harness.core.event import InjectDone, InjectStarted, RunEnded, StopAsked, UndoDone
from harness.core.experiment import FaultSpec
from harness.core.snapshot import fingerprint, snapshot
from harness.core.verdict import Verdict, judge
from harness.engine import fence, undo_records
from harness.engine.recovery import recover
from harness.engine.sweeper import EVERY, REVERTS_WITHIN, Sweeper
from harness.faults.config import RESTART
from harness.ports.cluster import FIELD_MANAGER, Conflict, Forbidden, Invalid, Json, NotFound, OutcomeUnknown, Ref
from tests.fakes.cluster import FakeCluster, copied, lost_reply
from tests.fakes.comers import declared, leftovers
from tests.fakes.drill import FAULTS, WRITES, Drill, broken_by, experiment_data
from tests.fakes.world import KEYS, NAMESPACE, SETTINGS, WORKER, Killed, World, Written

every_fault = pytest.mark.parametrize("kind", sorted(FAULTS))
every_patch = pytest.mark.parametrize(
    "kind", sorted(kind for kind in FAULTS if WRITES[kind] in {"patch Deployment", "patch Secret"})
)
"""What is there before the fault is changed."""
every_bound = pytest.mark.parametrize("kind", sorted(kind for kind in FAULTS if not WRITES[kind].startswith("create")))
"""What is made is collected and not refused, see below."""
every_start = pytest.mark.parametrize("kind", sorted(kind for kind in FAULTS if WRITES[kind].startswith("patch")))


def hold_up(drill: Drill, *, killed: bool = False, landed: int = 0) -> None:
    """Let the run's process stand still between the renewal of its lock and its write, when that many of the fault's
    writes have landed, until the sweeper took its record for undone; `killed` right behind the write, whatever became
    of it."""
    world = drill.world
    said: list[str] = []
    breaking, writes = WRITES[drill.data["faults"][0]["kind"]], list[int]()

    def wait(seconds: float) -> bool:
        world.run_for(seconds)  # and the run's own keeper stands still
        return True

    def around(written: Written) -> None:
        if written.after or not (written.what.startswith("patch ") or written.what == breaking):
            return
        writes.append(written.index)
        if len(writes) <= landed:
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


def targets(world: World) -> list[Json]:
    """What the faults change, as it is declared."""
    return [snapshot(world.cluster.peek(ref)) for ref in (WORKER, SETTINGS, KEYS)]


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
    before = targets(alive.world)
    hold_up(alive)
    history = alive.run()
    assert [done.outcome for done in history.all(InjectDone)] == ["done"]
    assert targets(alive.world) == before, "it learns that its lock is gone, and undoes"
    dead = Drill(data=experiment_data(kind))
    hold_up(dead, killed=True)
    with pytest.raises(Killed):
        dead.run()
    dead.world.cluster.dead = False
    assert targets(dead.world) != before
    assert leftovers(dead.world) == [], "and nothing in the cluster tells of it"


@every_start
def test_a_write_that_got_lost_on_its_way_does_not_arrive_after_its_undo(kind: str) -> None:
    drill = Drill(data=experiment_data(kind))
    cluster, before = drill.world.cluster, declared(drill.world)
    sent: list[tuple[Ref, list[Json]]] = []
    real = cluster.patch

    def patch(ref: Ref, operations: Sequence[Json], *, dry_run: bool = False, manager: str = FIELD_MANAGER) -> Json:
        if not dry_run:
            sent.append((ref, list(operations)))
        return real(ref, operations, dry_run=dry_run, manager=manager)

    written = WRITES[kind].split()[1]
    cluster.patch = patch  # type: ignore[method-assign]
    cluster.fail_write("patch", written, lost_reply())
    history = drill.run()
    assert [done.outcome for done in history.all(InjectDone)] == ["unknown"]
    (write,) = [index for index, (ref, _) in enumerate(sent) if ref.kind == written][:1]
    for one in sent[: write + 1]:
        with pytest.raises(NotFound if kind == "job" else Conflict):
            FakeCluster.patch(cluster, *one)
    assert declared(drill.world) == before
    assert leftovers(drill.world) == []


def stir(world: World, ref: Ref, count: int) -> None:
    """Move a target's version by what is none of its declared parts."""
    body = copied(world.cluster.peek(ref))
    if ref.kind == "Secret":
        world.cluster.put({**body, "metadata": {**body["metadata"], "selfLink": str(count)}})
    else:
        world.cluster.put({**body, "status": {**(body.get("status") or {}), "collisionCount": count}})


@every_start
def test_a_target_whose_status_moves_is_looked_at_again(kind: str) -> None:
    drill = Drill(data=experiment_data(kind))
    world, moved = drill.world, list[int]()

    def around(written: Written) -> None:
        if written.what == WRITES[kind] and not written.after and len(moved) < fence.ATTEMPTS - 1:
            moved.append(written.index)
            (body,) = world.cluster.listing(WRITES[kind].split()[1], NAMESPACE)
            stir(world, Ref(body["kind"], NAMESPACE, body["metadata"]["name"]), len(moved))

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
    world, ref = World(), broken_by(kind)
    fault, undo = planned(world, kind)
    body = copied(world.cluster.peek(ref))
    body["metadata"].pop("labels", None)
    world.cluster.put({**body, "metadata": {**body["metadata"], **({} if labels is None else {"labels": labels})}})
    before = copied(world.cluster.peek(ref))
    versions = fence.look(fault, undo, world.cluster)
    assert fence.bring_back(fault, undo, world.cluster).outcome == "already"
    after = copied(world.cluster.peek(ref))
    assert after["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]
    kept = {key: value for key, value in (labels or {}).items() if key != fence.LABEL}
    assert (after["metadata"].get("labels") or {}) == kept
    assert after["metadata"].get("generation") == before["metadata"].get("generation")
    assert [after.get(part) for part in ("spec", "data")] == [before.get(part) for part in ("spec", "data")]
    with pytest.raises(Conflict):
        fence.apply(fault, undo, world.cluster, versions)


@every_patch
@pytest.mark.parametrize(("when", "lands"), [("first", True), ("second", False), ("behind", False)])
def test_a_write_that_arrives_while_it_is_being_undone_is_undone_or_refused(
    kind: str, when: str, *, lands: bool
) -> None:
    """It arrives before one of the writes of an undo that had nothing to undo, or behind all of them."""
    world = World()
    fault, undo = planned(world, kind)
    before, versions = targets(world), fence.look(fault, undo, world.cluster)
    arrived: list[bool] = []

    def arrive() -> None:
        world.cluster.around = lambda _: None
        arrived.append(lands_now(lambda: fence.apply(fault, undo, world.cluster, versions)))

    at = world.cluster.sent + ["first", "second", "behind"].index(when)
    if when != "behind":
        world.cluster.around = lambda one: arrive() if (one.index, one.after) == (at, False) else None
    assert fence.bring_back(fault, undo, world.cluster).outcome == ("restored" if lands else "already")
    if when == "behind":
        arrive()
    assert arrived == [lands]
    assert targets(world) == before


def lands_now(write: Callable[[], None]) -> bool:
    try:
        write()
    except Conflict:
        return False
    return True


# A fault of several writes

SEVERAL = "config"


def begun(world: World) -> tuple[Any, dict[str, Any], fence.Versions, fence.Landed]:
    """A fault whose first write has landed and whose second has not."""
    fault, undo = planned(world, SEVERAL)
    versions, landed = fence.look(fault, undo, world.cluster), fence.Landed()
    world.cluster.fail_write("patch", "Deployment", lost_reply())
    with pytest.raises(OutcomeUnknown):
        fence.apply(fault, undo, world.cluster, versions, landed)
    assert list(landed) == [("patch", SETTINGS)]
    return fault, undo, versions, landed


@pytest.mark.parametrize("writes", range(6))
@pytest.mark.parametrize("gone", [False, True], ids=["all there", "the first is gone"])
def test_the_second_write_that_arrives_while_both_are_undone_is_undone_or_refused(writes: int, *, gone: bool) -> None:
    """It arrives once that many writes of the undo were made; with the first object gone the undo makes two."""
    world = World()
    before = targets(world)
    fault, undo, versions, landed = begun(world)
    if gone:
        world.cluster.drop(SETTINGS)
    first, arrived = world.cluster.sent, list[bool]()

    def arrive() -> None:
        world.cluster.around = lambda _: None
        arrived.append(lands_now(lambda: fence.apply(fault, undo, world.cluster, versions, landed)))

    world.cluster.around = lambda one: arrive() if (one.index, one.after) == (first + writes, False) else None
    outcome = fence.bring_back(fault, undo, world.cluster).outcome
    assert outcome == ("vanished" if gone else "restored")
    if not arrived:
        arrive()
    assert arrived == [writes <= (0 if gone else 3)]
    assert snapshot(world.deployment) == before[0]
    assert gone or targets(world) == before


REFUSALS = [
    Forbidden("forbidden", "the policy says no", expected="a yes", remedy="ask"),
    Invalid("invalid", "no such field", expected="a field", remedy="look"),
    NotFound("not-found", "it is gone", expected="it", remedy="look"),
]


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: type(error).__name__)
def test_a_fault_of_which_one_write_landed_has_not_failed(error: DrillError) -> None:
    drill = Drill(data=experiment_data(SEVERAL))
    before = declared(drill.world)
    drill.world.cluster.fail_write("patch", "Deployment", error)
    history = drill.run()
    (done,) = history.all(InjectDone)
    assert done.outcome == "unknown"
    assert done.detail == f"in force in part (patch configmap/worker in shop): {error.fact}"
    assert [undone.outcome for undone in history.all(UndoDone)] == ["restored"]
    assert history.is_clean
    assert declared(drill.world) == before
    assert leftovers(drill.world) == []
    assert judge(drill.experiment, history).verdict is not Verdict.MET


def test_a_target_that_never_rests_behind_one_that_was_written_is_not_taken_for_untouched() -> None:
    drill = Drill(data=experiment_data(SEVERAL))
    world, before = drill.world, declared(drill.world)

    def around(written: Written) -> None:
        if written.what == "patch Deployment" and not written.after and not drill.history.all(InjectDone):
            body = world.deployment
            world.cluster.put({**body, "status": {**body["status"], "collisionCount": written.index}})

    world.cluster.around = around
    history = drill.run()
    assert [done.outcome for done in history.all(InjectDone)] == ["unknown"]
    assert [call.ref.kind for call in world.cluster.writes() if call.verb == "patch"].count("Deployment") >= 10
    assert declared(world) == before
    assert leftovers(world) == []


def test_somebody_elses_change_between_two_writes_is_kept_and_told() -> None:
    drill = Drill(data=experiment_data(SEVERAL))
    world = drill.world

    def around(written: Written) -> None:
        if written.what == "patch Deployment" and not written.after:
            world.cluster.around = lambda _: None
            body = world.deployment
            body["spec"]["template"]["metadata"]["annotations"] = {RESTART: "theirs"}
            world.cluster.put(body)

    world.cluster.around = around
    history = drill.run()
    assert [done.outcome for done in history.all(InjectDone)] == ["unknown"]
    assert [undone.outcome for undone in history.all(UndoDone)] == ["refused"]
    assert f"annotations.{RESTART} is {fingerprint('theirs')}" in history.all(UndoDone)[0].detail
    assert FakeCluster.get(world.cluster, SETTINGS)["data"] == {"MODE": "fast", "BATCH": "10"}
    assert world.deployment["spec"]["template"]["metadata"]["annotations"] == {RESTART: "theirs"}


def test_the_second_write_that_was_held_up_past_its_lock_is_refused() -> None:
    drill = Drill(data=experiment_data(SEVERAL))
    before = declared(drill.world)
    hold_up(drill, landed=1)
    history = drill.run()
    assert [done.outcome for done in history.all(InjectDone)] == ["unknown"]
    assert history.all(StopAsked)[0].by == "the lock"
    assert declared(drill.world) == before
    assert leftovers(drill.world) == []


def test_killed_right_behind_the_second_write_that_was_held_up_nothing_is_left() -> None:
    drill = Drill(data=experiment_data(SEVERAL))
    before = declared(drill.world)
    hold_up(drill, killed=True, landed=1)
    with pytest.raises(Killed):
        drill.run()
    drill.world.cluster.dead = False
    assert declared(drill.world) == before
    assert leftovers(drill.world) == []


def test_where_the_version_may_not_be_moved_the_undo_counts_and_says_so() -> None:
    drill = Drill()
    world = drill.world
    drill.feed.when(lambda _: drill.history.open_faults() != (), lambda _: die(world))
    with pytest.raises(Killed):
        drill.run()
    world.cluster.dead = False
    before = targets(World())

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
    assert targets(world) == before
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
        fence._Bound(world.cluster, {}, {}, None).create(undo["body"])
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


def test_a_run_that_lost_its_lock_makes_nothing_that_is_to_be_let_run() -> None:
    drill = Drill(data=experiment_data("job"))
    made: list[str] = []

    def around(written: Written) -> None:
        made.append(written.what)
        if written.what == "create ConfigMap" and written.after:
            lock = drill.world.cluster.listing("Lease", NAMESPACE)[0]
            drill.world.cluster.put({**lock, "spec": {**lock["spec"], "holderIdentity": "another"}})

    drill.world.cluster.around = around
    history = drill.run()
    assert "create ConfigMap" in made
    assert "create Job" not in made
    assert [asked.by for asked in history.all(StopAsked)] == ["the lock"]
    assert history.all(InjectStarted) == []
    drill.world.cluster.drop(Ref("Lease", NAMESPACE, "drill"))
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
