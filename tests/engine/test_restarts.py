"""Whole runs whose recovery must outlast a restart, in the fake world."""

from __future__ import annotations

from typing import Any

import pytest

from harness.core.errors import DrillError, Unreachable
from harness.core.event import RestartDone, RestartPlanned, StopAsked
from harness.core.experiment import RestartProof
from harness.core.history import History
from harness.core.milestone import milestones
from harness.core.verdict import Verdict, judge
from harness.engine import restarts
from harness.ports.cluster import Ref
from harness.report.findings import findings
from harness.report.values import Clean
from tests.fakes.drill import Drill, experiment_data, fired, set_limit
from tests.fakes.world import NAMESPACE, Killed, World

PROOF = {"of": "deployment/worker", "within": "60s"}


def drill(**proof: Any) -> Drill:
    data = experiment_data()
    data["recovered"]["restart_proof"] = PROOF | proof
    made = Drill(data=data)
    made.world.warms_up_for = 2.0
    return made


def rules(made: Drill, history: History) -> dict[str, str]:
    found = milestones(made.experiment, history)
    clean = Clean(clean=True, differences=(), evidence=())
    return {one.rule: one.detail for one in findings(made.experiment, history, found, (), (), clean)}


def test_a_fix_of_what_is_declared_outlasts_the_restart() -> None:
    plain, tested = Drill(), drill()
    for one in (plain, tested):
        one.respond()
    before, history = plain.run(), tested.run()
    judged = judge(tested.experiment, history)
    assert judged.verdict is Verdict.MET, judged.reason
    uids = [done.uid for done in history.all(RestartDone) if done.outcome == "done"]
    (plan,) = history.all(RestartPlanned)
    assert uids == [pod.uid for pod in plan.pods]
    assert len(uids) == 5
    expected = judge(plain.experiment, before).milestones["recovered"].at
    assert judged.milestones["recovered"].at.latest == pytest.approx(expected.latest, abs=1.0)
    assert history.is_clean is True


def test_never_are_two_pods_away_at_once() -> None:
    tested = drill()
    tested.respond()
    fewest = [5]
    tested.feed.when(lambda world: _note(tested, fewest, world), lambda _: None)
    tested.run()
    assert fewest == [4]


def _note(tested: Drill, fewest: list[int], world: World) -> bool:
    if tested.history.all(RestartPlanned) and tested.history.undo_began is None:
        fewest[0] = min(fewest[0], sum(ready for _, ready, _ in world.pods_shown(world.clock.now())))  # type: ignore[attr-defined]
    return False


def test_a_fix_of_what_runs_does_not_and_the_clock_goes_on() -> None:
    tested = drill(within="20s")
    tested.feed.when(fired(2.0), tested.send("acknowledged"))
    tested.feed.when(fired(9.0), World.mend_in_place)
    planned = tested.history.all
    tested.feed.when(
        lambda world: bool(planned(RestartPlanned)) and world.clock.now() > _planned_at(tested) + 40.0,
        lambda world: set_limit(world, "128Mi"),
    )
    history = tested.run()
    first, second = history.all(RestartPlanned)
    assert {pod.memory_limit for pod in first.pods} == {"64Mi"} or first.ready == 5
    assert {pod.memory_limit for pod in second.pods} == {"128Mi"}
    mended_at = _planned_at(tested) + 40.0
    recovered = judge(tested.experiment, history).milestones["recovered"]
    assert recovered.at.earliest >= mended_at - 2.0, "what did not last is no recovery"
    found = rules(tested, history)
    assert "of 5 pods were restarted" in found["fix-did-not-last"]
    assert "fix-lasts" in found


def _planned_at(tested: Drill) -> float:
    (record, _), *_ = tested.history.records(RestartPlanned)
    return record.at


def test_a_reply_that_is_lost_restarts_nobody_twice() -> None:
    tested = drill()
    tested.respond()
    lost = Unreachable("lost", "no answer", expected="an answer", remedy="wait")
    tested.feed.when(
        lambda _: bool(tested.history.all(RestartPlanned)),
        lambda world: world.cluster.fail_write("delete", "Pod", lost, after=True),
    )
    history = tested.run()
    ends = [(done.pod, done.outcome) for done in history.all(RestartDone)]
    assert [outcome for _, outcome in ends].count("unknown") == 1
    assert len({pod for pod, _ in ends}) == 5
    assert judge(tested.experiment, history).verdict is Verdict.MET


def test_a_restart_that_is_forbidden_leaves_it_open() -> None:
    tested = drill(within="10s")
    tested.respond()
    deletion = ("delete", "Pod")
    tested.feed.when(lambda _: bool(tested.history.all(RestartPlanned)), lambda w: w.cluster.denied.add(deletion))
    tested.feed.when(lambda _: len(tested.history.all(RestartPlanned)) > 1, lambda w: w.cluster.denied.clear())
    history = tested.run()
    found = rules(tested, history)
    assert "could not be restarted" in found["restart-says-nothing"]
    assert judge(tested.experiment, history).verdict is Verdict.MET, "the second test says what the first could not"


def test_a_run_that_lost_its_lock_restarts_nothing() -> None:
    tested = drill()
    tested.respond()

    def lose(world: World) -> None:
        lease = world.cluster.get(Ref("Lease", NAMESPACE, "drill"))
        world.cluster.put({**lease, "spec": {**lease["spec"], "holderIdentity": "somebody else"}})

    tested.feed.when(lambda _: bool(tested.history.all(RestartDone)), lose)
    history = tested.run()
    assert len(history.all(RestartDone)) == 1, "the one before it was lost"
    (stop,) = history.all(StopAsked)
    assert stop.by == "the lock"
    assert judge(tested.experiment, history).verdict is Verdict.UNDECIDED


def test_a_death_in_the_middle_leaves_nothing_but_the_fault_to_undo() -> None:
    tested = drill()
    tested.respond()

    def die(world: World) -> None:
        world.cluster.dead = True
        raise Killed

    tested.feed.when(lambda _: len(tested.history.all(RestartDone)) == 2, die)
    with pytest.raises(Killed):
        tested.run()
    tested.world.cluster.dead = False
    tested.world.run_for(30.0)
    following = Drill(world=tested.world, run_id="run-2")
    following.respond()
    assert judge(following.experiment, following.run()).verdict is Verdict.MET


@pytest.mark.parametrize(
    ("of", "slug"), [("deployment/wroker", "restart-target-missing"), ("statefulset/worker", "restart-target-missing")]
)
def test_what_is_not_there_cannot_be_restarted(of: str, slug: str) -> None:
    tested = drill(of=of)
    before = tested.world.deployment
    with pytest.raises(DrillError) as caught:
        tested.run()
    assert caught.value.slug == slug
    assert tested.world.deployment == before


def test_what_owners_deny_is_not_restarted() -> None:
    data = experiment_data("secret")
    data["recovered"]["restart_proof"] = PROOF
    tested = Drill(data=data)
    marker = tested.world.cluster.get(Ref("ConfigMap", "drill-system", "drills-allowed"))
    tested.world.cluster.put({**marker, "data": {**marker["data"], "deny": "shop/deployment/*"}})
    with pytest.raises(DrillError) as caught:
        tested.run()
    assert caught.value.slug == "denied"


def test_the_default_time_is_a_minute() -> None:
    assert RestartProof.model_validate({"of": "deployment/worker"}).within == 60.0


def test_only_the_workloads_own_living_pods_are_restarted() -> None:
    world = World()
    (own, *_) = world.cluster.list("Pod", NAMESPACE, "app=worker")
    stranger = {**own, "metadata": {**own["metadata"], "name": "migration-x", "uid": "job-1"}}
    job = {"kind": "Job", "name": "migration", "uid": "j", "controller": True}
    world.cluster.put({**stranger, "metadata": {**stranger["metadata"], "ownerReferences": [job]}})
    evicted = {**own, "metadata": {**own["metadata"], "name": "worker-evicted", "uid": "e-1"}}
    world.cluster.put({**evicted, "status": {"phase": "Failed"}})
    planned = restarts.plan(world.cluster, NAMESPACE, "A", "deployment/worker")
    assert len(planned.pods) == 5
    assert {"migration-x", "worker-evicted"}.isdisjoint(pod.name for pod in planned.pods)


def test_a_rollouts_surplus_is_no_measure_of_being_well() -> None:
    world = World()
    body = world.deployment
    world.cluster.put({**body, "spec": {**body["spec"], "replicas": 3}})
    assert restarts.plan(world.cluster, NAMESPACE, "A", "deployment/worker").ready == 3


def test_a_pod_whose_name_has_a_new_one_is_gone() -> None:
    world = World()
    (own, *_) = world.cluster.list("Pod", NAMESPACE, "app=worker")
    planned = restarts.plan(world.cluster, NAMESPACE, "A", "deployment/worker").pods[0]
    world.cluster.drop(Ref("Pod", NAMESPACE, planned.name))
    renewed = {**own, "metadata": {**own["metadata"], "name": planned.name, "uid": "new"}}
    renewed["metadata"].pop("resourceVersion", None)
    world.cluster.put(renewed)
    assert restarts.delete(world.cluster, NAMESPACE, planned) == ("gone", "")
