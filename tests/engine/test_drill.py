"""The whole engine on a virtual clock: a drill from preflight to clean, and every way in which one may end."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from harness.core.decide import Phase, phase
from harness.core.errors import DrillError, ExitCode, Refused
from harness.core.event import (
    CheckDone,
    CleanChecked,
    EffectProved,
    InjectDone,
    InjectionPlanned,
    InjectStarted,
    RunEnded,
    SourceRestarted,
    StopAsked,
    UndoDone,
    UndoStored,
)
from harness.core.experiment import Sla
from harness.core.history import History
from harness.core.snapshot import snapshot
from harness.core.verdict import Verdict, judge, judge_sla
from harness.faults.pod_kill import PodKill
from harness.ports.cluster import Forbidden, Invalid, OutcomeUnknown, Ref
from harness.ports.metrics import Series
from tests.fakes.drill import FAULTS, Drill, experiment_data, fired, set_limit, set_replicas
from tests.fakes.world import KEY, KEYS, NAMESPACE, World, Written
from tests.hands import hand


def limit(world: World) -> str:
    return str(world.deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"])


def undo_records(world: World) -> list[Any]:
    return world.cluster.list("ConfigMap", NAMESPACE, "drill.internal/undo=true")


def test_a_drill_that_people_meet() -> None:
    drill = Drill()
    before = snapshot(drill.world.deployment)
    drill.respond()
    history = drill.run()
    judgement = judge(drill.experiment, history)
    assert {r.sla.to: r.verdict for r in judgement.slas} == dict.fromkeys(
        ("acknowledged", "assessed", "l2.joined", "engineering.joined", "client.notified", "mitigated", "recovered",
         "firing"), Verdict.MET,
    )  # fmt: skip
    assert judgement.exit_code is ExitCode.MET
    assert [g.verdict for g in judgement.guards] == [Verdict.MET]
    assert phase(history) is Phase.CLEAN
    assert snapshot(drill.world.deployment) == before
    assert undo_records(drill.world) == []


def test_firing_is_the_evaluation_instant_and_not_when_it_was_polled() -> None:
    drill = Drill()
    drill.respond()
    judgement = judge(drill.experiment, drill.run())
    firing = judgement.milestones["firing"].at
    true_instant = next(at for at, state in drill.world.alert_samples if state == "firing")
    assert firing.earliest <= true_instant <= firing.latest
    assert firing.width == pytest.approx(drill.metrics.offset_bounds.width, abs=1e-5)
    assert judgement.milestones["pending"].at.latest == pytest.approx(true_instant - 5.0, abs=0.01)


def test_the_effect_counts_from_the_third_kill() -> None:
    drill = Drill()
    drill.respond()
    judgement = judge(drill.experiment, drill.run())
    effective = judgement.milestones["memory.effective"]
    assert effective.at.earliest >= judgement.milestones["injected"].at.earliest
    assert "3 pods with limit 64Mi were OOM-killed, 2 left ready" in effective.source


def test_nobody_responds() -> None:
    drill = Drill()
    history = drill.run()
    judgement = judge(drill.experiment, history)
    assert judgement.verdict is Verdict.NOT_REACHED
    assert judgement.exit_code is ExitCode.MISSED
    ended = history.last(RunEnded)
    assert ended is not None
    assert ended.reason == "timeout"
    assert limit(drill.world) == "128Mi"


def test_the_all_clear_ends_the_wait_for_people_but_not_for_the_system() -> None:
    drill = Drill()
    drill.feed.when(fired(2.0), drill.send("acknowledged"))
    drill.feed.when(fired(3.0), drill.send("all_clear"))
    drill.feed.when(fired(9.0), lambda world: set_limit(world, "128Mi"))
    history = drill.run()
    ended = history.last(RunEnded)
    assert ended is not None
    assert ended.reason == "complete"
    verdicts = {r.sla.to: r.verdict for r in judge(drill.experiment, history).slas}
    assert verdicts["recovered"] is Verdict.MET
    assert verdicts["client.notified"] is Verdict.NOT_REACHED


@pytest.mark.parametrize("after_firing", [False, True])
def test_a_stop_request_undoes_everything(*, after_firing: bool) -> None:
    drill = Drill()
    drill.feed.stop_when(fired(1.0) if after_firing else lambda world: limit(world) == "64Mi")
    history = drill.run()
    assert limit(drill.world) == "128Mi"
    assert history.is_clean
    assert undo_records(drill.world) == []
    judgement = judge(drill.experiment, history)
    assert judgement.exit_code is ExitCode.UNDECIDED
    assert "cut short" in judgement.reason


def test_a_second_stop_request_is_recorded_and_cuts_nothing_short() -> None:
    drill = Drill()
    drill.feed.stop_when(lambda world: limit(world) == "64Mi")
    drill.feed.stop_when(lambda world: limit(world) == "64Mi")
    history = drill.run()
    assert len(history.all(StopAsked)) == 2
    assert history.is_clean


def test_an_abort_condition_undoes_everything() -> None:
    data = experiment_data()
    data["abort"] = [{"name": "queue explodes", "query": "depth", "above": 80}]
    drill = Drill(data=data)
    history = drill.run()
    ended = history.last(RunEnded)
    assert ended is not None
    assert ended.reason == "aborted"
    assert "queue explodes" in ended.detail
    assert limit(drill.world) == "128Mi"
    assert judge(drill.experiment, history).exit_code is ExitCode.UNDECIDED


def abortable(seen: Callable[[World], bool], above: float = 5000) -> Drill:
    """A drill with an abort condition of its own query, which answers only where `seen` says so."""
    data = experiment_data()
    data["abort"] = [{"name": "disk fills up", "query": "disk", "above": above}]
    drill = Drill(data=data)
    real = drill.metrics.grid

    def grid(query: str, *window: float) -> list[Series]:
        return real(query, *window) if query != "disk" or seen(drill.world) else []

    drill.metrics.grid = grid  # type: ignore[assignment,method-assign]
    return drill


def test_an_abort_condition_that_cannot_be_seen_ends_the_run() -> None:
    drill = abortable(lambda world: limit(world) != "64Mi")
    history = drill.run()
    ended = history.last(RunEnded)
    assert ended is not None
    assert ended.reason == "aborted"
    assert ended.detail.startswith("aborted: abort condition 'disk fills up' could not be seen for 3")
    assert "the query answers nothing" in ended.detail
    assert limit(drill.world) == "128Mi"
    assert history.is_clean
    injected, undone = (history.records(kind)[0][0].at for kind in (InjectDone, UndoDone))
    assert 30.0 <= undone - injected < 40.0


def test_an_abort_condition_that_is_missed_for_a_moment_ends_nothing() -> None:
    blind: list[float] = []

    def seen(world: World) -> bool:
        if limit(world) == "64Mi" and (not blind or world.clock.now() < blind[0] + 25.0):
            blind.append(world.clock.now())
            return False
        return True

    drill = abortable(seen)
    drill.respond()
    history = drill.run()
    assert blind
    ended = history.last(RunEnded)
    assert ended is not None
    assert ended.reason == "complete"


@pytest.mark.parametrize(("seen", "above", "slug"), [(False, 5000, "unseen"), (True, 0, "holds")])
def test_refused_where_an_abort_condition_cannot_be_seen_or_holds_already(
    *, seen: bool, above: float, slug: str
) -> None:
    drill = abortable(lambda _: seen, above)
    with pytest.raises(Refused) as caught:
        drill.run()
    assert caught.value.slug == f"abort-condition-{slug}"
    assert drill.history.all(InjectStarted) == []
    assert limit(drill.world) == "128Mi"


def test_a_fault_without_effect_is_no_drill() -> None:
    drill = Drill(world=World(kills=False, arrivals=7.0))
    history = drill.run()
    judgement = judge(drill.experiment, history)
    assert "no proved effect" in judgement.reason or "never proved" in judgement.reason
    assert judgement.exit_code is ExitCode.UNDECIDED
    assert limit(drill.world) == "128Mi"


def test_the_undo_record_is_durable_before_the_first_write() -> None:
    drill = Drill()
    drill.respond()
    history = drill.run()
    kinds = [type(record.event) for record in history]
    assert kinds.index(UndoStored) < kinds.index(InjectStarted) < kinds.index(InjectDone)
    writes = [(call.verb, call.ref.kind) for call in drill.world.cluster.writes()]
    assert writes.index(("create", "ConfigMap")) < writes.index(("patch", "Deployment"))


def test_no_record_no_fault() -> None:
    drill = Drill()
    drill.preflight()
    drill.lease.release()
    drill = Drill(world=drill.world, run_id="run-2")
    lost = OutcomeUnknown("lost", "the reply was lost", expected="a reply", remedy="none")
    drill.world.cluster.fail_write("create", "ConfigMap", lost)
    with pytest.raises(DrillError):
        drill.run()
    assert limit(drill.world) == "128Mi"
    assert not drill.history.all(InjectStarted)


def test_a_lost_reply_counts_as_injected_and_is_undone() -> None:
    drill = Drill()
    lost = OutcomeUnknown("lost", "the reply was lost", expected="a reply", remedy="none")
    drill.feed.stop_when(lambda world: limit(world) == "64Mi")
    drill.world.cluster.fail_write("patch", "Deployment", lost, after=True)
    history = drill.run()
    assert history.all(InjectDone)[0].outcome == "unknown"
    assert limit(drill.world) == "128Mi"
    assert history.is_clean


def test_somebody_elses_change_is_not_trampled() -> None:
    drill = Drill()
    drill.feed.when(fired(2.0), lambda world: set_limit(world, "256Mi"))
    history = drill.run()
    assert limit(drill.world) == "256Mi"
    assert history.all(UndoDone)[-1].outcome == "refused"
    assert "somebody else changed it" in history.all(UndoDone)[-1].detail
    assert history.is_clean is False
    assert history.last_at - history.records(UndoDone)[-1][0].at < 2.0, "it will not be back by waiting"
    assert judge(drill.experiment, history).exit_code is ExitCode.ROLLBACK_INCOMPLETE
    assert len(undo_records(drill.world)) == 1


def test_leftovers_of_responders_are_found() -> None:
    drill = Drill()
    drill.respond()

    def scale(world: World) -> None:
        body = world.deployment
        body["spec"]["replicas"] = 10
        world.cluster.put(body)

    drill.feed.when(fired(3.0), scale)
    history = drill.run()
    assert history.is_clean is False
    assert any("replicas: 5 -> 10" in d for d in history.all(CleanChecked)[-1].differences)


@pytest.mark.parametrize(("replicas", "clean"), [(5, True), (7, False)])
def test_an_object_made_anew_is_clean_only_where_it_equals_the_snapshot(*, replicas: int, clean: bool) -> None:
    drill = Drill()
    drill.respond()

    def anew(world: World) -> None:
        body = world.deployment
        world.cluster.drop(Ref("Deployment", NAMESPACE, "worker"))
        del body["metadata"]["uid"]
        body["spec"]["replicas"] = replicas
        world.cluster.put(body)

    drill.feed.when(fired(12.0), anew)
    history = drill.run()
    assert history.all(UndoDone)[-1].outcome == "vanished"
    assert history.is_clean is clean
    assert ("clean" in judge(drill.experiment, history).milestones) is clean


def test_prometheus_restarting_makes_times_undecided() -> None:
    drill = Drill()
    drill.respond()
    drill.feed.when(fired(1.0), lambda world: setattr(world, "process_started", world.clock.now()))
    history = drill.run()
    assert history.all(SourceRestarted)
    sla = Sla.model_validate({"from": "firing", "to": "acknowledged", "within": "5m"})
    judgement = judge(drill.experiment, history)
    assert judge_sla(sla, judgement.milestones, history).verdict is Verdict.UNDECIDED


def two_faults(**second: Any) -> Drill:
    """Memory first, and replicas taken away later."""
    data = experiment_data()
    data["faults"].append(copy.deepcopy(FAULTS["scale"]) | {"id": "fewer", **second})
    return Drill(data=data)


def injections(history: History) -> dict[str, float]:
    return {event.fault: record.at for record, event in history.records(InjectStarted)}


def test_a_fault_waits_for_the_effect_of_another_and_is_undone_before_it() -> None:
    drill = two_faults(after="memory.effective + 5s")
    before = snapshot(drill.world.deployment)
    drill.respond()
    history = drill.run()
    effective = judge(drill.experiment, history).milestones["memory.effective"]
    at = injections(history)
    assert effective.at.latest + 5.0 <= at["fewer"] <= effective.at.latest + 6.0
    assert [event.fault for event in history.all(UndoDone)] == ["fewer", "memory"]
    assert snapshot(drill.world.deployment) == before
    assert undo_records(drill.world) == []


def test_three_faults_on_one_workload_are_all_injected_and_go_back_in_reverse() -> None:
    """Two of them put variables into one list, and all were planned before any was there."""
    data = experiment_data("cpu-limit")
    for number, name in enumerate(("TRACE", "DEPTH"), 1):
        data["faults"].append(
            {
                "id": name.lower(), "kind": "config", "target": "deployment/worker", "container": "worker",
                "set": {name: "on"}, "blast_radius": {"pods": 5}, "after": "memory.effective + 1s",
                "effect": {"query": "depth", "above": 30 + 30 * number, "within": "60s"},
            }
        )  # fmt: skip
    data["faults"][2]["after"] = "trace.effective + 1s"
    drill = Drill(data=data)
    before = snapshot(drill.world.deployment)
    seen: list[list[str]] = []

    def all_there(world: World) -> bool:
        env = [one["name"] for one in world.deployment["spec"]["template"]["spec"]["containers"][0]["env"]]
        seen.append(env)
        return "depth.effective" in judge(drill.experiment, drill.history).milestones if "DEPTH" in env else False

    drill.feed.when(all_there, lambda _: drill.feed.put(StopAsked(by="test", detail="all are there")))
    history = drill.run()
    assert ["KEY", "TRACE", "DEPTH"] in seen
    assert [(done.fault, done.outcome) for done in history.all(InjectDone)] == [
        ("memory", "done"), ("trace", "done"), ("depth", "done"),
    ]  # fmt: skip
    assert [(done.fault, done.outcome) for done in history.all(UndoDone)] == [
        ("depth", "restored"), ("trace", "restored"), ("memory", "restored"),
    ]  # fmt: skip
    assert {event.fault for event in history.all(EffectProved)} == {"memory", "trace", "depth"}
    assert snapshot(drill.world.deployment) == before
    assert history.is_clean
    assert undo_records(drill.world) == []


def test_a_fault_is_injected_at_its_time() -> None:
    drill = two_faults(at="7s")
    drill.respond()
    history = drill.run()
    at = injections(history)
    assert at["memory"] < history.ready_at + 1.0
    assert history.ready_at + 7.0 <= at["fewer"] <= history.ready_at + 8.0


def test_a_fault_whose_moment_never_comes_leaves_the_run_undecided_and_says_so() -> None:
    drill = two_faults(after="acknowledged")
    history = drill.run()
    assert set(injections(history)) == {"memory"}
    judgement = judge(drill.experiment, history)
    assert "fault fewer was never injected" in judgement.reason or judgement.verdict is Verdict.MISSED
    assert judgement.verdict is not Verdict.MET
    assert undo_records(drill.world) == []


def test_a_second_run_is_refused() -> None:
    world = World()
    first = Drill(world=world, run_id="run-1")
    first.preflight()

    def renewing(seconds: float) -> bool:
        world.run_for(seconds)
        first.lease.renew()
        return True

    second = Drill(world=world, run_id="run-2")
    second.wait = renewing  # type: ignore[method-assign]
    with pytest.raises(Refused) as caught:
        second.preflight()
    assert caught.value.slug == "run-in-progress"
    assert "run-1" in caught.value.fact


def test_a_dead_runs_lock_lapses() -> None:
    world = World()
    Drill(world=world, run_id="run-1").preflight()
    second = Drill(world=world, run_id="run-2")
    second.preflight()
    assert any("run-1 holds the lock" in line for line in second.said)


def test_a_run_that_began_its_way_back_never_comes_to_life_again() -> None:
    data = experiment_data()
    data["faults"][0]["effect"]["within"] = "1s"  # the proof comes later than allowed, while it is being undone
    drill = Drill(data=data)
    history = drill.run()
    ended = history.last(RunEnded)
    assert ended is not None
    assert ended.reason == "aborted"
    assert history.last_at - history.all(InjectDone)[0].at.latest < 60.0
    assert limit(drill.world) == "128Mi"


@pytest.mark.parametrize("error", [Forbidden, Invalid], ids=lambda error: str(error.__name__))
def test_a_refused_patch_ends_the_run_at_once(error: type[DrillError]) -> None:
    drill = Drill()
    drill.world.cluster.fail_write("patch", "Deployment", error("refused", "refused", expected="", remedy=""))
    history = drill.run()
    ended = history.last(RunEnded)
    assert ended is not None
    assert ended.reason == "error"
    assert history.is_clean
    assert undo_records(drill.world) == []


def test_a_target_that_is_not_what_was_planned_ends_the_run_at_once() -> None:
    drill = Drill()
    ready = drill.preflight

    def change() -> Any:
        answer = ready()
        set_limit(drill.world, "100Mi")
        return answer

    drill.preflight = change  # type: ignore[method-assign]
    history = drill.run()
    ended = history.last(RunEnded)
    assert ended is not None
    assert (ended.reason, [done.outcome for done in history.all(InjectDone)]) == ("error", ["failed"])
    assert limit(drill.world) == "100Mi", "somebody else's value"


def test_a_key_that_its_owner_changed_since_the_plan_is_nobodys_loss_and_blocks_nobody() -> None:
    """The fault was never in force: there is nothing to bring back, nothing to compare, and no record."""
    drill = Drill(data=experiment_data("secret"))
    ready = drill.preflight

    def change() -> Any:
        answer = ready()
        drill.world.run_for(2.0)
        hand(drill.world.cluster).write(KEYS, KEY, b"rotated-by-its-owner")
        return answer

    drill.preflight = change  # type: ignore[method-assign]
    history = drill.run()
    assert [done.outcome for done in history.all(InjectDone)] == ["failed"]
    assert (history.all(UndoStored), history.all(UndoDone), undo_records(drill.world)) == ([], [], [])
    judgement = judge(drill.experiment, history)
    assert (judgement.exit_code, judgement.verdict) == (ExitCode.UNDECIDED, Verdict.UNDECIDED)
    assert "somebody changed it since" in judgement.reason


def test_a_later_fault_whose_effect_holds_already_is_not_injected() -> None:
    data = experiment_data("cpu-limit")
    data["faults"].append(FAULTS["patch"] | {"id": "nowhere", "after": "memory.effective + 5s"})
    drill = Drill(data=data)
    before = snapshot(drill.world.deployment)
    history = drill.run()
    assert set(injections(history)) == {"memory"}
    judgement = judge(drill.experiment, history)
    assert judgement.verdict is Verdict.UNDECIDED
    assert "fault nowhere would prove nothing: depth > 30 held already" in judgement.reason
    assert snapshot(drill.world.deployment) == before
    assert undo_records(drill.world) == []


def repeated(**changes: Any) -> Drill:
    data = experiment_data("pod-kill")
    data["faults"][0] |= {"every": "15s", "times": 3, **changes}
    return Drill(data=data)


def test_a_kill_that_is_repeated_hits_the_pods_that_live_by_then() -> None:
    drill = repeated(count=5, effect={"ready_at_most": 2, "within": "10s"}, blast_radius={"pods": 5})
    drill.respond()
    history = drill.run()
    at = injections(history)
    assert list(at) == ["memory", "memory-2", "memory-3"]
    began = at["memory"]
    assert [round(when - began) for when in at.values()] == [0, 15, 30]
    assert [proved.fault for proved in history.all(EffectProved)] == ["memory", "memory-2", "memory-3"]
    killed = [set(done.deleted) for done in history.all(InjectDone)]
    assert [len(uids) for uids in killed] == [5, 5, 5]
    assert len(set.union(*killed)) == 15, "each kill hits pods that took the place of the last one's"
    planned_at = [(record.seq, plan.fault) for record, plan in history.records(InjectionPlanned)]
    assert [fault for _, fault in planned_at] == ["memory", "memory-2", "memory-3", "memory-2", "memory-3"]
    stored_at = {stored.fault: record.seq for record, stored in history.records(UndoStored)}
    assert all(seq < stored_at[fault] for seq, fault in planned_at), "the choice is durable before anything else is"
    assert [done.fault for done in history.all(UndoDone)] == ["memory-3", "memory-2", "memory"]
    assert (history.is_clean, undo_records(drill.world)) == (True, [])
    assert judge(drill.experiment, history).verdict is Verdict.MET


def between_kills(drill: Drill, act: Callable[[World], Any]) -> None:
    """Do something once the first five pods are killed."""
    killed: list[Written] = []

    def note(write: Written) -> None:
        if write.after and write.what == "delete Pod":
            killed.append(write)

    drill.world.cluster.around = note
    drill.feed.when(lambda _: len(killed) == 5, act)


def test_a_kill_that_finds_too_few_pods_ends_the_run() -> None:
    drill = repeated(count=5, blast_radius={"pods": 5})
    between_kills(drill, lambda world: set_replicas(world, 2))
    history = drill.run()
    assert [done.outcome for done in history.all(InjectDone)] == ["done", "failed"]
    judgement = judge(drill.experiment, history)
    assert (judgement.verdict, "are to be killed, and 2 live" in judgement.reason) == (Verdict.UNDECIDED, True)


def test_a_choice_that_is_refused_is_no_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a pod without a controller that has come meanwhile: the choice of before must not be carried out."""

    def choose(*_: Any) -> None:
        raise Refused("pod-without-controller", "pod/stray has none", expected="one", remedy="choose others")

    drill = repeated(count=5, blast_radius={"pods": 5})
    between_kills(drill, lambda _: monkeypatch.setattr(PodKill, "choose", choose))
    history = drill.run()
    assert [(done.outcome, done.detail) for done in history.all(InjectDone)][1:] == [("failed", "pod/stray has none")]
    assert [started.fault for started in history.all(InjectStarted)] == ["memory"]


def test_nothing_injected_must_stay_silent_for_the_whole_time() -> None:
    data = experiment_data()
    data |= {"faults": [], "alerts": [], "slas": [{"from": "firing", "to": "acknowledged", "within": "5m"}]}
    drill = Drill(data=data)
    began = drill.world.clock.now()
    history = drill.run()
    ended = history.last(RunEnded)
    assert ended is not None
    assert ended.reason == "complete"
    assert drill.world.clock.now() - began >= 240.0
    assert not history.all(InjectStarted)


def refusal(drill: Drill) -> Refused | DrillError:
    before = drill.world.cluster.dump()
    with pytest.raises(DrillError) as caught:
        drill.preflight()
    if hasattr(drill, "lease"):
        drill.lease.release()
    assert drill.world.cluster.dump() == before, "a refusal must leave nothing changed"
    error = caught.value
    assert error.fact
    assert error.expected
    assert error.remedy
    return error


def test_refused_without_the_opt_in_label() -> None:
    drill = Drill()
    drill.world.cluster.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    error = refusal(drill)
    assert (error.slug, error.exit_code) == ("namespace-not-opted-in", ExitCode.REFUSED)


def test_refused_where_the_cluster_is_not_marked() -> None:
    drill = Drill()
    drill.world.cluster.delete(Ref("ConfigMap", "drill-system", "drills-allowed"))
    error = refusal(drill)
    assert (error.slug, error.exit_code) == ("cluster-not-marked", ExitCode.REFUSED)


@pytest.mark.parametrize(
    ("data", "slug"), [({"environment": "production"}, "cluster-not-staging"),
                       ({"environment": "staging", "halted": "true"}, "halted")]
)  # fmt: skip
def test_refused_by_the_marker(data: dict[str, str], slug: str) -> None:
    drill = Drill()
    marker = {"apiVersion": "v1", "kind": "ConfigMap", "data": data}
    drill.world.cluster.put({**marker, "metadata": {"name": "drills-allowed", "namespace": "drill-system"}})
    assert refusal(drill).slug == slug


def test_refused_without_prometheus() -> None:
    drill = Drill()
    drill.world.metrics_down = True
    assert refusal(drill).slug == "prometheus-unreachable"


def test_refused_without_the_rule() -> None:
    drill = Drill()
    drill.metrics.rule_name = "SomethingElse"
    error = refusal(drill)
    assert (error.slug, error.exit_code) == ("alert-rule-missing", ExitCode.REFUSED)
    assert "SomethingElse" in error.expected


def test_refused_while_the_alert_fires_already() -> None:
    world = World(arrivals=30.0)
    world.run_for(30.0)
    assert refusal(Drill(world=world)).slug == "alert-already-active"


def test_refused_while_a_silence_covers_the_alert() -> None:
    from harness.ports.metrics import Matcher

    drill = Drill()
    drill.notifier.silence([Matcher("alertname", "HighQueueDepth")], author="bob", comment="", seconds=600)
    assert refusal(drill).slug == "alert-silenced"


def test_refused_beyond_the_blast_radius() -> None:
    data = experiment_data()
    data["faults"][0]["blast_radius"] = {"pods": 4}
    assert refusal(Drill(data=data)).slug == "blast-radius"


def test_refused_where_the_system_is_not_steady() -> None:
    world = World(depth=30.0, arrivals=20.0)
    assert refusal(Drill(world=world)).slug == "not-steady"


def test_refused_without_a_permission() -> None:
    drill = Drill()
    drill.world.cluster.denied.add(("patch", "Deployment"))
    error = refusal(drill)
    assert error.slug == "permission-missing"
    assert "patch Deployment" in error.fact


def test_an_alert_that_cannot_be_in_time_is_refused() -> None:
    data = experiment_data()
    data["alerts"][0]["within"] = "4s"
    error = refusal(Drill(data=data))
    assert error.slug == "alert-cannot-meet-its-bound"
    assert "`for`" in error.fact


@pytest.mark.parametrize(
    ("part", "query", "held", "needs"),
    [
        ("mitigated", "deriv(depth[1s])", "1s", "2s"),
        ("must_hold", "budget + rate(spent[1500ms])", "1s500ms", "2s"),
        ("abort", "max_over_time(depth[500ms])", "500ms", "1s"),
    ],
)
def test_a_range_that_cannot_hold_its_samples_is_refused(part: str, query: str, held: str, needs: str) -> None:
    data = experiment_data()
    one = data[part][0] if isinstance(data[part], list) else data[part]
    one["query"] = query
    error = refusal(Drill(data=data))
    assert error.slug == "range-too-short"
    assert f" looks at {held}, and nothing here is scraped or recorded more often than every 1s" in error.fact
    assert f"{part}." in error.fact
    assert error.expected.startswith(f"a range of at least {needs};")


def test_a_rule_whose_range_cannot_hold_its_samples_is_refused() -> None:
    drill = Drill()
    drill.metrics.rule_query = "sum(rate(errors[1s])) > 0.5"
    error = refusal(drill)
    assert error.slug == "range-too-short"
    assert error.fact.startswith("errors[1s] of the rule of HighQueueDepth looks at 1s")


def test_a_range_that_is_too_short_for_some_targets_is_told() -> None:
    drill = Drill()
    drill.metrics.intervals = {"api": 1.0, "slow": 4.0}
    drill.preflight()
    done = next(one for one in drill.history.all(CheckDone) if one.name == "ranges hold enough samples")
    assert done.ok
    assert done.warning == "depth[5s] of mitigated.query cannot hold 2 samples of what slow scrapes every 4s"


def test_a_range_is_that_of_the_profile_from_the_preflight_on() -> None:
    data = experiment_data()
    data["mitigated"]["query"] = "deriv(depth[$range])"
    data["profiles"]["smoke"]["range"] = "5s"
    drill = Drill(data=data)
    drill.respond()
    assert "deriv(depth[5s])" in judge(drill.experiment, drill.run()).milestones["mitigated"].source
    data["profiles"]["smoke"]["range"] = "1s"
    assert "depth[1s] of mitigated.query looks at 1s" in refusal(Drill(data=data)).fact


def test_a_silence_acknowledges_and_is_marked_as_claimed() -> None:
    from harness.ports.metrics import Matcher

    drill = Drill()
    drill.respond()
    drill.feed.when(
        fired(1.2),
        lambda _: drill.notifier.silence(
            [Matcher("alertname", "HighQueueDepth")], author="alice", comment="mine", seconds=600
        ),
    )
    judgement = judge(drill.experiment, drill.run())
    acknowledged = judgement.milestones["acknowledged"]
    assert acknowledged.actor == "alice"
    assert "claimed" in acknowledged.source
