"""An experiment is checked against itself, and every contradiction is told at once with its place."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from harness.core.experiment import Experiment, FaultSpec, SelfCheckError, moment, renewed, split_object
from tests.core.test_judging import experiment


def problems(**changes: Any) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        experiment(**changes)
    (detail,) = caught.value.errors()
    error = detail["ctx"]["error"]
    assert isinstance(error, SelfCheckError)
    return {".".join(map(str, loc)): message for loc, message in error.problems}


SLA = {"from": "firing", "to": "acknowledged", "within": "5m"}
CONDITION = {"name": "s", "query": "q", "below": 20}
SECOND = {"id": "second", "kind": "any", "blast_radius": {"pods": 1}}
FAULT = {"id": "memory", "kind": "any", "blast_radius": {"pods": 1}}
ALERT = {"name": "A", "within": "1m", "of": "injected"}
ALERTS = {"alerts": [ALERT, ALERT | {"name": "B"}], "faults": [FAULT]}
CAUSE = {"object": "deployment/w", "reason": "r"}
TREE = {"look_at": "deployment/w", "steps": [{"do": "restore-memory-limit", "limit": "128Mi"}]}
RESTART = {"look_at": "deployment/w", "steps": [{"do": "restart", "target": "deployment/w"}]}


@pytest.mark.parametrize(
    ("changes", "where", "words"),
    [
        ({"slas": [SLA | {"to": "acknowleged"}]}, "slas.0.to", "did you mean `acknowledged`?"),
        ({"slas": [SLA | {"from": "l3.joined"}]}, "slas.0.from", "no clock produces the milestone 'l3.joined'"),
        ({"slas": [SLA | {"to": "firing"}]}, "slas.0.to", "two different ends"),
        ({"slas": [SLA | {"within": "0s"}]}, "slas.0.within", "no time"),
        ({"slas": [SLA, SLA | {"name": "again"}]}, "slas.1", "promised twice"),
        ({"faults": [FAULT, FAULT]}, "faults.1.id", "used twice"),
        ({"alerts": [{"name": "A", "within": "1m", "of": "memry.effective"}]}, "alerts.0.of", "did you mean"),
        ({"alerts": [{"name": "A", "within": "0s", "of": "injected"}]}, "alerts.0.within", "no time"),
        ({"faults": [], "alerts": [{"name": "A", "within": "1m", "of": "injected"}]}, "alerts", "no fault is declared"),
        ({"steady_state": [CONDITION, CONDITION]}, "steady_state.1.name", "used twice"),
        ({"must_hold": [CONDITION, CONDITION]}, "must_hold.1.name", "used twice"),
        ({"abort": [CONDITION, CONDITION]}, "abort.1.name", "used twice"),
        ({"facilitator": {"root_cause": {"object": "worker", "reason": "r"}}}, "facilitator.root_cause.object",
         "kind/name"),
        ({"profiles": {"smoke": {"timeout": "1m"}}}, "profiles.smoke", "`autopilot` is missing"),
        ({"profiles": {"smoke": {"timeout": "0s", "responder": "human"}}}, "profiles.smoke.timeout", "no time"),
        ({"autopilot": {"responses": [TREE], "escalate": ["l9"]}},
         "autopilot.escalate.0", "declared in `roles`: l2"),
        ({"autopilot": {"responses": [TREE | {"look_at": "worker"}]}}, "autopilot.responses.0.look_at",
         "kind/name"),
        ({"autopilot": {"responses": [TREE | {"alert": "B"}]}}, "autopilot.responses.0.alert", "is not expected"),
        ({"autopilot": {"responses": [TREE, RESTART]}}, "autopilot.responses.1", "answered twice"),
        ({"autopilot": {"responses": [{**TREE, "steps": [*TREE["steps"], *RESTART["steps"]]}]}},
         "autopilot.responses.0.steps", "the only step"),
        ({"facilitator": {"root_cause": CAUSE, "of_alerts": {"B": CAUSE}}}, "facilitator.of_alerts.B",
         "declared in `alerts`"),
        ({"facilitator": {"root_cause": CAUSE, "of_alerts": {"A": {"object": "w", "reason": "r"}}}, **ALERTS},
         "facilitator.of_alerts.A.object", "kind/name"),
        ({**ALERTS, "profiles": {"smoke": {"timeout": "1m", "responder": "human", "alerts": {"C": {}}}}},
         "profiles.smoke.alerts.C", "is not expected"),
        ({**ALERTS, "profiles": {"smoke": {"timeout": "1m", "responder": "human",
                                           "alerts": {"B": {"recovered": {"for": "2s"}}}}}},
         "profiles.smoke.alerts.B.recovered", "declares no `recovered`"),
        ({"alerts": [ALERT | {"recovered": {"query": "q", "below": 1}}], "faults": [FAULT]}, "alerts.0.recovered",
         "experiment's own"),
        ({**ALERTS, "slas": [SLA | {"to": "B.recovered"}]}, "slas.0.to", "no clock produces"),
        ({"faults": [FAULT, SECOND | {"after": "memry.effective"}]}, "faults.1.after", "did you mean"),
        ({"faults": [FAULT, SECOND | {"after": "firing", "at": "5s"}]}, "faults.1.after", "one time"),
        ({"faults": [FAULT | {"after": "memory.effective"}]}, "faults.0.after", "memory waits for memory"),
        ({"faults": [FAULT | {"after": "second.injected"}, SECOND | {"after": "memory.effective + 25s"}]},
         "faults.1.after", "second waits for memory waits for second"),
        ({"faults": [FAULT | {"after": "A.resolved"}], "alerts": [{"name": "A", "within": "1m", "of": "injected"}]},
         "faults.0.after", "none of them would ever be injected"),
        ({"faults": [FAULT | {"after": "acknowledged"}]}, "faults.0.after", "memory waits for memory"),
    ],
)  # fmt: skip
def test_contradictions(changes: dict[str, Any], where: str, words: str) -> None:
    assert words in problems(**changes)[where]


@pytest.mark.parametrize(
    "after", ["firing +25s", "firing + 0s", "firing + soon", "firing + ", "2 + 5s", "", "firing\n"]
)
def test_what_is_no_moment_is_refused(after: str) -> None:
    with pytest.raises(ValidationError, match="is not a"):
        experiment(faults=[FAULT, SECOND | {"after": after}])


def test_faults_may_wait_for_each_other_in_a_row() -> None:
    chain = [FAULT, SECOND | {"after": "memory.effective + 25s"}, FAULT | {"id": "third", "after": "second.injected"}]
    faults = experiment(faults=chain).faults
    assert [moment(fault.after) if fault.after else None for fault in faults] == [
        None, ("memory.effective", 25.0), ("second.injected", 0.0),
    ]  # fmt: skip


@pytest.mark.parametrize("object_", ["service/door", "job/load", "podchaos.chaos-mesh.org/cut-off"])
def test_the_root_cause_may_be_any_object(object_: str) -> None:
    cause = {"object": object_, "reason": "r"}
    assert experiment(facilitator={"root_cause": cause}).facilitator.root_cause.object == object_


def test_all_contradictions_are_told_at_once() -> None:
    found = problems(
        slas=[SLA | {"from": "x"}, SLA | {"to": "y"}], faults=[FAULT, FAULT], steady_state=[CONDITION, CONDITION]
    )
    assert set(found) == {"slas.0.from", "slas.1.to", "faults.1.id", "steady_state.1.name"}


@pytest.mark.parametrize("bounds", [{}, {"below": 1, "above": 2}, {"below": float("nan")}, {"above": float("inf")}])
def test_a_condition_has_exactly_one_finite_bound(bounds: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        experiment(recovered={"query": "q", **bounds})


def test_a_profile_tunes_windows_and_pace_and_nothing_else() -> None:
    base = experiment(
        autopilot={"responses": [TREE]},
        profiles={"smoke": {
            "timeout": "1m", "steady_for": "2s", "recovered": {"for": "1s"}, "mitigated": {"query": "e", "for": "2s"},
            "autopilot_pace": "7s",
        }},
    )  # fmt: skip
    tuned = base.tuned("smoke")
    assert tuned.autopilot is not None
    assert (tuned.steady_state[0].for_, tuned.recovered.for_, tuned.autopilot.step) == (2.0, 1.0, 7.0)
    assert (tuned.mitigated.query, tuned.mitigated.for_, tuned.recovered.query) == ("e", 2.0, "q")
    assert (tuned.slas, tuned.faults, tuned.alerts) == (base.slas, base.faults, base.alerts)


def test_a_profile_says_how_long_ranges_are() -> None:
    own = {"title": "t", "query": "sum(rate(a[$range]))"}
    tuning = {"mitigated": {"query": "deriv(d[$range])"}}
    base = experiment(
        autopilot={"responses": [TREE]}, signal=own,
        steady_state=[CONDITION | {"query": "max_over_time(e[$range:1s])"}],
        profiles={"smoke": {"timeout": "1m", "range": "10s", **tuning}, "gameday": {"timeout": "1h", "range": "90s"}},
    )  # fmt: skip
    smoke, gameday = base.tuned("smoke"), base.tuned("gameday")
    assert (smoke.signal.query, gameday.signal.query) == ("sum(rate(a[10s]))", "sum(rate(a[1m30s]))")
    assert smoke.steady_state[0].query == "max_over_time(e[10s:1s])"
    assert (smoke.mitigated.query, gameday.mitigated.query) == ("deriv(d[10s])", "d")
    assert smoke.profiles == base.profiles
    assert smoke.tuned("smoke") == smoke


def test_the_digest_is_of_what_is_said_and_not_of_how_it_is_spelled() -> None:
    one, same = experiment(slas=[SLA | {"within": "90s"}]), experiment(slas=[SLA | {"within": "1m30s"}])
    other = experiment(slas=[SLA | {"within": "91s"}])
    assert one.digest() == same.digest() != other.digest()
    assert Experiment[FaultSpec].model_validate(one.as_data()) == one


@pytest.mark.parametrize("text", ["worker", "deployment/", "pod/x", "deployment/x\n", "deployment/x/y", ""])
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write for example deployment/worker"):
        split_object(text)


def test_an_object_is_its_kind_and_name() -> None:
    assert split_object("deployment/worker") == ("deployment", "worker")


def test_an_alert_has_the_milestones_of_an_incident_of_its_own() -> None:
    own = {"recovered": {"query": "r", "below": 1, "for": "5s"}, "mitigated": {"query": "m", "below": 2}}
    base = experiment(
        faults=[FAULT],
        alerts=[ALERT, ALERT | {"name": "B"} | own],
        profiles={"smoke": {"timeout": "1m", "responder": "human", "alerts": {"B": {"recovered": {"for": "1s"}}}}},
    )
    assert {"A.recovered", "B.recovered", "B.acknowledged", "B.root_cause.declared"} <= base.milestones()
    assert base.goal("A", "recovered") == base.recovered
    tuned = base.tuned("smoke")
    goal = tuned.goal("B", "recovered")
    assert goal is not None
    assert (goal.query, goal.below, goal.for_) == ("r", 1.0, 1.0)
    assert tuned.goal("B", "mitigated") == base.goal("B", "mitigated")


def test_what_version_0_1_wrote_is_read_in_todays_words() -> None:
    old = {"look_at": "deployment/w", "fix": "restore-memory-limit", "limit": "128Mi", "scale_to": 8, "step": "2s"}
    step = {"do": "restore-memory-limit", "limit": "128Mi", "scale_to": 8}
    assert renewed({"name": "x", "autopilot": old}) == {
        "name": "x", "autopilot": {"step": "2s", "responses": [{"look_at": "deployment/w", "steps": [step]}]},
    }  # fmt: skip
    assert renewed({"autopilot": None}) == {"autopilot": None}
    today = {"autopilot": {"responses": [TREE]}}
    assert renewed(today) == today


@pytest.mark.parametrize(
    "after",
    ["B.acknowledged", "B.root_cause.declared", "B.resolved", "all_clear", "B.pending + 5s", "second.effective"],
)
def test_a_fault_that_waits_for_the_answer_to_itself_is_refused(after: str) -> None:
    alerts = [
        {"name": "A", "within": "1m", "of": "memory.effective"},
        {"name": "B", "within": "1m", "of": "second.effective"},
    ]
    found = problems(faults=[FAULT, SECOND | {"after": after}], alerts=alerts)
    assert "second waits for second" in found["faults.1.after"]
    assert experiment(faults=[FAULT, SECOND | {"after": "A.acknowledged"}], alerts=alerts)
