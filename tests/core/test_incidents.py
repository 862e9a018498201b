"""Two incidents at once: what each alert is counted from, which act is about which, and what cannot be told."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from harness.core.clock import Bounds
from harness.core.decide import decide, outstanding
from harness.core.event import (
    Action,
    AlertTransition,
    EffectProved,
    Event,
    InjectDone,
    ResponderActed,
    RunEnded,
    RunStarted,
    SignalRead,
)
from harness.core.experiment import AnyExperiment
from harness.core.milestone import milestones
from harness.core.verdict import Verdict, judge
from harness.report.model import build
from tests.core.test_judging import experiment, history

SLOW, REJECTED = "RegistrySlow", "KeyRejected"
Entry = tuple[float, Event]


def drill(**changes: Any) -> AnyExperiment:
    """The registry is slow from 10 on, the key is rejected from 40 on."""
    return experiment(
        faults=[
            {"id": "bulk", "kind": "any", "blast_radius": {"pods": 1}},
            {"id": "key", "kind": "any", "blast_radius": {"pods": 1}},
        ],
        alerts=[
            {"name": SLOW, "within": "1m", "of": "bulk.injected"},
            {
                "name": REJECTED, "within": "1m", "of": "key.injected",
                "mitigated": {"query": "e", "below": 0.5}, "recovered": {"query": "e", "below": 0.1, "for": "2s"},
            },
        ],
        facilitator={
            "root_cause": {"object": "deployment/registry", "reason": "r"},
            "of_alerts": {REJECTED: {"object": "secret/llm-key", "reason": "rotated"}},
        },
        slas=[
            {"from": "firing", "to": "acknowledged", "within": "10s", "required": True},
            {"from": f"{REJECTED}.firing", "to": f"{REJECTED}.acknowledged", "within": "10s", "required": True},
            {"from": f"{REJECTED}.firing", "to": f"{REJECTED}.recovered", "within": "60s", "required": True},
        ],
        **changes,
    )  # fmt: skip


def begin() -> Entry:
    return 0.0, RunStarted(
        run_id="r", experiment={}, experiment_path="p", digest="d", profile="gameday", responder="human",
        harness_version="0", cluster={}, identity="i",
    )  # fmt: skip


def inject(fault: str, at: float) -> list[Entry]:
    done = InjectDone(fault=fault, outcome="done", at=Bounds.at(at))
    return [(at, done), (at + 1, EffectProved(fault=fault, at=Bounds.at(at + 1), proof="seen", evidence=()))]


def moved(alert: str, to: Literal["pending", "firing", "resolved"], at: float) -> Entry:
    return at, AlertTransition(alert=alert, to=to, at=Bounds.at(at), evaluation=at, source="s")


def act(action: Action, at: float, alert: str = "", text: str = "") -> Entry:
    return at, ResponderActed(
        key=f"{action}{at}{alert}", action=action, actor="ann", actor_kind="human", verified="admission policy",
        at=Bounds.at(at), source="message m", text=text, alert=alert,
    )  # fmt: skip


def read(signal: str, start: float, values: list[float]) -> Entry:
    samples = tuple((start + i, value) for i, value in enumerate(values))
    return start + len(values), SignalRead(signal=signal, samples=samples, resolution=1.0, step=1.0)


BOTH = [begin(), *inject("bulk", 10), moved(SLOW, "firing", 20), *inject("key", 40), moved(REJECTED, "firing", 50)]


def test_each_alert_has_its_own_zero_and_its_own_ends() -> None:
    entries = [
        *BOTH, act("acknowledged", 22, SLOW), act("acknowledged", 55, REJECTED),
        read(f"{REJECTED}.recovered", 50, [1, 1, 0, 0, 0, 0]), read("recovered", 50, [30, 30, 30, 3, 3]),
        read(f"{REJECTED}.mitigated", 50, [1, 0.2, 0.2]),
    ]  # fmt: skip
    found = milestones(drill(), history(*entries))
    assert found["acknowledged"].at == found[f"{SLOW}.acknowledged"].at == Bounds.at(22)
    assert found[f"{REJECTED}.acknowledged"].at == Bounds.at(55)
    assert found[f"{REJECTED}.recovered"].at.latest == 52
    assert found[f"{REJECTED}.mitigated"].at.latest == 51
    assert "recovered" not in found
    slas = judge(drill(), history(*entries)).slas
    assert [sla.verdict for sla in slas] == [Verdict.MET, Verdict.MET, Verdict.MET]
    assert slas[1].duration is not None
    assert slas[1].duration.latest == 5


def test_an_act_without_an_alert_is_about_the_only_one_that_it_can_be_about() -> None:
    entries = [*BOTH[:4], act("acknowledged", 22), *BOTH[4:], act("acknowledged", 55)]
    found = milestones(drill(), history(*entries))
    assert (found[f"{SLOW}.acknowledged"].at, found[f"{REJECTED}.acknowledged"].at) == (Bounds.at(22), Bounds.at(55))
    assert found[f"{SLOW}.acknowledged"].note == found[f"{REJECTED}.acknowledged"].note == ""


def test_one_that_could_be_about_two_is_the_oldest_ones_and_cannot_be_decided() -> None:
    entries = [*BOTH, act("acknowledged", 55)]
    told = history(*entries)
    found = milestones(drill(), told)
    assert found[f"{SLOW}.acknowledged"].note.startswith(f"ambiguous: {SLOW} and {REJECTED} were firing")
    assert f"{REJECTED}.acknowledged" not in found
    sla = judge(drill(), told).slas[0]
    assert sla.verdict is Verdict.UNDECIDED
    assert "ambiguous" in sla.reason
    assert [f.title for f in build(drill(), told).findings if f.rule == "ambiguous"] == [
        f"Cannot be attributed: {SLOW}.acknowledged"
    ]


def test_an_alert_that_fired_before_its_own_fault_is_not_its_doing() -> None:
    early = [begin(), *inject("bulk", 10), moved(REJECTED, "firing", 30), *inject("key", 40)]
    told = history(*early)
    fired = milestones(drill(), told)[f"{REJECTED}.firing"]
    assert fired.note == "ambiguous: it fired before key.injected, so what raised it is not known"
    (_, alert) = judge(drill(), told).alerts
    assert alert.verdict is Verdict.UNDECIDED
    again = history(*early, moved(REJECTED, "resolved", 42), moved(REJECTED, "firing", 50))
    assert milestones(drill(), again)[f"{REJECTED}.firing"].at == Bounds.at(50)
    assert judge(drill(), again).alerts[1].verdict is Verdict.MET


def test_the_all_clear_is_given_for_all_or_by_one_word() -> None:
    one = [*BOTH, act("all_clear", 70, SLOW)]
    assert "all_clear" not in milestones(drill(), history(*one))
    both = milestones(drill(), history(*one, act("all_clear", 80, REJECTED)))
    assert both["all_clear"].at == Bounds.at(80)
    word = milestones(drill(), history(*BOTH, act("all_clear", 75)))
    assert word["all_clear"].at == word[f"{SLOW}.all_clear"].at == word[f"{REJECTED}.all_clear"].at == Bounds.at(75)
    assert word[f"{SLOW}.all_clear"].note == ""
    early = milestones(drill(), history(*BOTH[:4], act("all_clear", 30, SLOW)))
    assert "all_clear" not in early, "the second incident has not even begun"


def test_an_all_clear_is_for_what_has_fired_by_then() -> None:
    early = history(*BOTH[:4], act("all_clear", 30), *BOTH[4:])
    found = milestones(drill(), early)
    assert found[f"{SLOW}.all_clear"].at == Bounds.at(30)
    assert not {"all_clear", f"{REJECTED}.all_clear"} & set(found)
    assert f"{REJECTED}.acknowledged" in outstanding(drill(), early)
    later = milestones(drill(), history(*BOTH[:4], act("all_clear", 30), *BOTH[4:], act("all_clear", 80, REJECTED)))
    assert later["all_clear"].at == later[f"{REJECTED}.all_clear"].at == Bounds.at(80)


def test_an_act_about_an_alert_that_nobody_expects_is_about_none_of_these() -> None:
    found = milestones(drill(), history(*BOTH, act("acknowledged", 55, "DiskFull")))
    assert not {name for name in found if name.endswith("acknowledged")}


def test_a_firing_that_was_pending_before_its_own_fault_is_not_its_doing() -> None:
    told = [begin(), *inject("bulk", 10), moved(REJECTED, "pending", 35), *inject("key", 40)]
    rose = history(*told, moved(REJECTED, "firing", 45))
    fired = milestones(drill(), rose)[f"{REJECTED}.firing"]
    assert fired.note == "ambiguous: it was pending before key.injected, so what raised it is not known"
    assert judge(drill(), rose).alerts[1].verdict is Verdict.UNDECIDED
    anew = history(*told, moved(REJECTED, "pending", 42), moved(REJECTED, "firing", 45))
    assert milestones(drill(), anew)[f"{REJECTED}.firing"].note == ""


def test_without_alerts_an_sla_to_a_recovery_is_judged_and_breaks_nothing() -> None:
    sla = {"from": "bulk.injected", "to": "recovered", "within": "1m"}
    fault = {"id": "bulk", "kind": "any", "blast_radius": {"pods": 1}}
    quiet = experiment(faults=[fault], alerts=[], slas=[sla])
    told = history(begin(), *inject("bulk", 10), (99, RunEnded(reason="complete", detail="over")))
    assert judge(quiet, told).slas[0].verdict is Verdict.NOT_REACHED


def test_a_run_whose_fault_waits_for_what_never_comes_ends_with_its_timeout() -> None:
    fault = {"id": "late", "kind": "any", "blast_radius": {"pods": 1}, "after": "clean"}
    sla = {"from": "late.injected", "to": "late.effective", "within": "1m"}
    waiting = experiment(
        faults=[fault], alerts=[], slas=[sla], profiles={"gameday": {"timeout": "4m", "responder": "human"}}
    )
    profile, told = waiting.profile("gameday"), history(begin())
    assert decide(waiting, profile, told, 239.0).intents == ()
    (intent,) = decide(waiting, profile, told, 241.0).intents
    assert (intent.do, intent.reason) == ("end", "timeout")


def test_the_run_waits_for_every_incident() -> None:
    waiting = outstanding(drill(), history(*BOTH))
    assert {"recovered", f"{REJECTED}.recovered", f"{REJECTED}.resolved", f"{REJECTED}.acknowledged"} <= set(waiting)


@pytest.mark.parametrize(
    ("said", "rule"),
    [("secret/llm-key: rotated", "root-cause-named"), ("deployment/registry", "root-cause-differs")],
)
def test_the_second_root_cause_is_held_against_the_second_truth(said: str, rule: str) -> None:
    entries = [*BOTH, act("root_cause", 60, REJECTED, said), (90, RunEnded(reason="timeout", detail="over"))]
    found = [f for f in build(drill(), history(*entries)).findings if f.rule.startswith("root-cause")]
    assert [(f.rule, REJECTED in f.title) for f in found] == [(rule, True)]


def test_every_incident_with_a_signal_has_its_chart() -> None:
    own = {"title": "Rejected calls", "query": "e", "unit": "1/s"}
    body = drill().as_data()
    body["alerts"][1]["signal"] = own
    made = build(
        type(drill()).model_validate(body),
        history(*BOTH, read("curve", 50, [1, 2]), read(f"curve: {REJECTED}", 50, [0.9, 0.8, 0.0])),
    )
    assert [chart.title for chart in made.charts] == ["q", "Rejected calls"]
    (chart,) = made.incident_charts
    assert [value for _, value in chart.points] == [0.9, 0.8, 0.0]
    assert chart.lines[0].label == "recovered below 0.1"
    assert f"{REJECTED}.firing" in [marker.label for marker in chart.markers]
