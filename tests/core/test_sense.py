"""Experiments that can be read and make no sense: each is refused at the place, and what makes sense is not."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from harness.core.experiment import AnyExperiment, measured_effect
from harness.core.sense import nonsense, queries
from harness.loading import parse

ERRORS = {"query": "sum(rate(errors[1m]))", "above": 1, "within": "60s"}
KEY = {
    "id": "key", "kind": "secret", "secret": "s", "key": "k", "how": "rotate", "effect": ERRORS,
    "blast_radius": {"pods": 1},
}  # fmt: skip
SCALE = {
    "id": "workers", "kind": "scale", "target": "deployment/worker", "replicas": 1,
    "effect": {"ready_at_most": 1, "within": "60s"}, "blast_radius": {"pods": 2},
}  # fmt: skip
FIRST = {"name": "Slow", "within": "3m", "of": "workers.effective"}
SECOND = {"name": "Errors", "within": "3m", "of": "key.effective"}
GOOD: dict[str, Any] = {
    "name": "x",
    "title": "t",
    "why": {"probability": "low", "tests": ["t"]},
    "namespace": "n",
    "narrative": "n",
    "facilitator": {"root_cause": {"object": "deployment/worker", "reason": "r"}},
    "roles": {"l2": ["ann"]},
    "severity": "P1",
    "signal": {"title": "t", "query": "depth"},
    "runbook": "r.md",
    "steady_state": [
        {"name": "queue is short", "query": "max(depth)", "below": 20, "for": "30s"},
        {"name": "it answers", "query": "sum(ok)", "above": 10},
    ],
    "faults": [SCALE, KEY],
    "alerts": [FIRST, SECOND],
    "mitigated": {"query": "max(depth)", "below": 50},
    "recovered": {"query": "max(depth)", "below": 20, "for": "8s"},
    "must_hold": [{"name": "budget", "query": "max(budget)", "below": 1}],
    "abort": [{"name": "out of hand", "query": "max(depth)", "above": 20000}],
    "slas": [
        {"from": "firing", "to": "acknowledged", "within": "5m"},
        {"from": "injected", "to": "clean", "within": "9m"},
    ],
    "autopilot": {
        "responses": [{"look_at": "deployment/worker", "steps": [{"do": "restart", "target": "deployment/worker"}]}]
    },
    "profiles": {"smoke": {"timeout": "4m"}, "gameday": {"timeout": "75m"}},
}


def experiment(**changes: Any) -> AnyExperiment:
    return parse({**copy.deepcopy(GOOD), **changes})


def found(**changes: Any) -> list[tuple[str, str]]:
    return [(".".join(map(str, loc)), message) for loc, message in nonsense(experiment(**changes))]


def sla(start: str, end: str) -> dict[str, Any]:
    return {"slas": [{"from": start, "to": end, "within": "5m"}]}


def faults(**changes: Any) -> dict[str, Any]:
    return {"faults": [SCALE, {**KEY, **changes}]}


def killing(**changes: Any) -> dict[str, Any]:
    body = {"kind": "pod-kill", "target": "deployment/worker", "effect": {"within": "60s"}, "count": 3}
    return {"faults": [{"id": "workers", "blast_radius": {"pods": 2}, **body, **changes}, KEY]}


def instead(kind: str, **changes: Any) -> dict[str, Any]:
    """One fault of another kind for the first."""
    return {"faults": [{"id": "workers", "kind": kind, "blast_radius": {"pods": 2}, **changes}, KEY]}


def ending(**changes: Any) -> dict[str, Any]:
    body = {"apiVersion": "x.io/v1", "kind": "Cut", "metadata": {"name": "x"}}
    effect = {"field": "status.phase", "equals": "Running", "within": "60s"}
    return instead("manifest", manifest=body, effect=effect, over_when={"field": "status.phase", **changes})


def condition(query: str, **bound: Any) -> dict[str, Any]:
    return {"name": "one", "query": query, **bound}


STEADY = GOOD["steady_state"]
RANGED = {"timeout": "4m", "range": "1m"}
NONSENSE: dict[str, tuple[dict[str, Any], str, str]] = {
    "more pods are killed than may be": (killing(), "faults.0.count", "3 pods are killed, and `blast_radius` allows 2"),
    "more pods run than may": (
        instead("job", image="x", command=["y"], parallelism=3, effect=ERRORS),
        "faults.0.parallelism",
        "3 pods run",
    ),
    "more pods must fail than may be touched": (
        instead("image", target="deployment/a", container="a", tag="b", effect={"failing": 3, "within": "60s"}),
        "faults.0.effect.failing",
        "3 pods must fail",
    ),
    "more pods must be killed than may be touched": (
        instead("memory-limit", deployment="a", container="a", limit="1Mi", effect={"oom_killed": 3, "within": "60s"}),
        "faults.0.effect.oom_killed",
        "3 pods must be OOM-killed",
    ),
    "a Job that ends before the run": (
        instead("job", image="x", command=["y"], deadline="20m", effect=ERRORS),
        "faults.0.deadline",
        "Kubernetes ends the Job after 20m, and a run may take 1h15m",
    ),
    "an object that is over once it works": (ending(equals="Running"), "faults.0.over_when", "the same as `effect`"),
    "a fault after the end": (faults(after="clean"), "faults.1.after", "nothing is injected or fires for it"),
    "a fault some time after the end": (faults(after="clean + 5s"), "faults.1.after", "comes when all is undone"),
    "an alert after the end": (
        {"alerts": [FIRST, SECOND | {"of": "clean"}]},
        "alerts.1.of",
        "comes when all is undone",
    ),
    "an alert that waits for itself": (
        {"alerts": [FIRST, SECOND | {"of": "Errors.firing"}]},
        "alerts.1.of",
        "comes only when",
    ),
    "an alert that waits for its own answer": (
        {"alerts": [FIRST | {"of": "acknowledged"}, SECOND]},
        "alerts.0.of",
        "acknowledged comes only when Slow fires",
    ),
    "two alerts that wait for each other": (
        {"alerts": [FIRST | {"of": "Errors.firing"}, SECOND | {"of": "firing"}]},
        "alerts.0.of",
        "comes only when Slow",
    ),
    "a fault of a time after the run": (faults(at="75m"), "faults.1.at", "the longest profile lasts for 1h15m"),
    "a fault of a time after another that is after the run": (
        faults(after="firing + 2h"),
        "faults.1.after",
        "the longest profile lasts for 1h15m",
    ),
    "a clock that starts at the end": (sla("clean", "acknowledged"), "slas.0.from", "clean comes last"),
    "a clock that runs backwards": (
        sla("acknowledged", "firing"),
        "slas.0.to",
        "firing always comes before acknowledged",
    ),
    "a clock from the alert to its fault": (
        sla("firing", "workers.injected"),
        "slas.0.to",
        "always comes before firing",
    ),
    "a clock from the recovery to the page": (
        sla("recovered", "pending"),
        "slas.0.to",
        "always comes before recovered",
    ),
    "a clock that ends at the beginning": (
        sla("key.effective", "injected"),
        "slas.0.to",
        "always comes before key.eff",
    ),
    "a clock backwards in another incident": (
        sla("Errors.resolved", "Errors.firing"),
        "slas.0.to",
        "always comes before",
    ),
    "a promise about an alert that is not there": (
        {"alerts": [], **sla("firing", "acknowledged")},
        "slas.0.from",
        "no alert is expected",
    ),
    "a fault that waits for an alert that is not there": (
        {"alerts": [], **sla("injected", "clean"), **faults(after="recovered")},
        "faults.1.after",
        "no alert is expected",
    ),
    "an effect that holds for longer than it has": (
        faults(effect=ERRORS | {"for": "2m"}),
        "faults.1.effect.for",
        "it must hold for 2m within 1m",
    ),
    "a recovery of longer than the run": (
        {"recovered": {"query": "max(depth)", "below": 20, "for": "5m"}},
        "profiles.smoke.recovered.for",
        "lasts for 4m",
    ),
    "steady states that exclude each other": (
        {"steady_state": [*STEADY, condition("max(depth)", above=30)]},
        "steady_state.2",
        "nothing would ever be steady",
    ),
    "an effect that is so from the start": (
        faults(effect={"query": "max( depth )", "below": 30, "within": "60s"}),
        "faults.1.effect",
        "proves nothing",
    ),
    "a guard that the steady state breaks": (
        {"must_hold": [condition("max(depth)", above=50)]},
        "must_hold.0",
        "so every run would miss it",
    ),
    "a guard that the effect breaks": (
        {"must_hold": [condition("sum(rate(errors[1m]))", below=0.5)]},
        "must_hold.0",
        "together with the effect of fault key",
    ),
    "a run that is aborted from the start": (
        {"abort": [condition("max(depth)", below=1000)]},
        "abort.0",
        "so every run would be aborted",
    ),
    "a run that is aborted by its effect": (
        {"abort": [condition("sum(rate(errors[1m]))", above=0.5)]},
        "abort.0",
        "wherever the effect of fault key does",
    ),
    "a recovery that is not the steady state": (
        {"recovered": {"query": "max(depth)", "above": 20}},
        "recovered",
        "the system would have to stay broken",
    ),
    "a recovery while it is broken": (
        {"mitigated": {"query": "sum(rate(errors[1m]))", "above": 0}},
        "mitigated",
        "nothing would have to be mended",
    ),
    "a window where there is none": (
        {"abort": [condition("max(depth)", above=900) | {"for": "30s"}]},
        "abort.0.for",
        "knows no `for`; leave it out",
    ),
    "the first alert's truth in two places": (
        {"facilitator": {**GOOD["facilitator"], "of_alerts": {"Slow": {"object": "secret/s", "reason": "r"}}}},
        "facilitator.of_alerts.Slow",
        "the truth behind the first alert is `root_cause`",
    ),
    "a memory limit of a Secret": (
        {
            "autopilot": {
                "responses": [{"look_at": "secret/s", "steps": [{"do": "restore-memory-limit", "limit": "1Mi"}]}]
            }
        },
        "autopilot.responses.0.look_at",
        "mends the Deployment that is looked at",
    ),
    "a bracket that is not closed": (
        {"recovered": {"query": "sum(rate(x[5m])", "below": 1}},
        "recovered.query",
        "( has no counterpart in the query",
    ),
    "a bracket of another kind": (
        {"profiles": {"smoke": {"timeout": "4m", "mitigated": {"query": "sum(x[5m)])"}}}},
        "profiles.smoke.mitigated.query",
        ") has no counterpart",
    ),
    "a quote that is not closed": (
        {"signal": {"title": "t", "query": 'x{a="b}'}},
        "signal.query",
        "has no counterpart",
    ),
    "an effect in no time": (
        {"faults": [SCALE | {"effect": {"ready_at_most": 1, "within": "0s"}}, KEY]},
        "faults.0.effect.within",
        "write a bound above 0s",
    ),
    "an answer after the end": (
        {"autopilot": {**GOOD["autopilot"], "acknowledge_after": "5m"}},
        "autopilot.acknowledge_after",
        "a run is over after 4m",
    ),
    "an alert of two names": (
        {"alerts": [FIRST | {"labels": {"alertname": "Other"}}, SECOND]},
        "alerts.0.labels.alertname",
        "no alert is called that and Slow",
    ),
    "two promises of one name": (
        {"slas": [{"name": "a", **one} for one in GOOD["slas"]]},
        "slas.1.name",
        "'a' is the name of two SLAs",
    ),
    "a promise about somebody who is not called": (
        {"slas": [{"from": "firing", "to": "l2.joined", "within": "5m", "required": True}]},
        "slas.0.to",
        "in profile smoke the autopilot responds, and it calls nobody as l2",
    ),
    "a range that no profile has": (
        {"mitigated": {"query": "deriv(depth[$range])", "below": 0}},
        "profiles.smoke",
        "mitigated.query looks at [$range]; say here how long that is, such as range: 1m",
    ),
    "a range that one profile lacks": (
        {
            "profiles": {"smoke": {"timeout": "4m"}, "gameday": RANGED},
            "signal": {"title": "t", "query": "max(x[$range])"},
        },
        "profiles.smoke",
        "signal.query looks at [$range]",
    ),
    "a range that nothing looks at": ({"profiles": {"smoke": RANGED}}, "profiles.smoke.range", "leave `range` out"),
    "a range of nothing": (
        {"profiles": {"smoke": RANGED | {"range": "0s"}}, "signal": {"title": "t", "query": "max(x[$range])"}},
        "profiles.smoke.range",
        "holds no samples",
    ),
    "a placeholder of somebody else": (
        {"recovered": {"query": "rate(x[$__rate_interval])", "below": 1}},
        "recovered.query",
        "nothing fills in $__rate_interval; write [$range], and `range` in each profile",
    ),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_found_at_its_place(name: str) -> None:
    changes, loc, words = NONSENSE[name]
    told = found(**changes)
    assert [message for where, message in told if where == loc and words in message], told


SENSE: dict[str, dict[str, Any]] = {
    "all of it": {},
    "as many pods are killed as may be": killing(count=2),
    "a share of pods": killing(count=None, percent=90),
    "a Job that outlives the run": instead("job", image="x", command=["y"], deadline="76m", effect=ERRORS),
    "an object that ends otherwise": ending(equals="Done"),
    "a text is no number": ending(equals=1),
    "a fault after an answer to another": faults(after="recovered + 5s"),
    "an alert after another": {"alerts": [FIRST, SECOND | {"of": "acknowledged"}]},
    "an alert that no fault could cause": {"alerts": [FIRST, SECOND, FIRST | {"name": "Else", "of": "injected"}]},
    "to the end": sla("acknowledged", "clean"),
    "from one incident to another": sla("firing", "Errors.firing"),
    "of a role": sla("firing", "l2.joined"),
    "without alerts": {"alerts": [], **sla("workers.injected", "workers.effective")},
    "two faults at long last": {"faults": [SCALE | {"at": "2h"}, KEY | {"at": "2h"}]},
    "a band": {"steady_state": [*STEADY, condition("max(depth)", above=1)]},
    "a wider guard": {"must_hold": [condition("max(depth)", below=900)]},
    "an effect beyond the recovery": faults(effect={"query": "max(depth)", "above": 20, "within": "60s"}),
    "a promise about somebody whom people call": {
        "slas": [{"from": "firing", "to": "l2.joined", "within": "5m", "required": True}],
        "profiles": {"gameday": {"timeout": "75m", "responder": "human"}},
    },
    "a promise about somebody who is called": {
        "slas": [{"from": "firing", "to": "l2.joined", "within": "5m", "required": True}],
        "autopilot": {**GOOD["autopilot"], "escalate": ["l2"]},
    },
    "an alert that names itself": {"alerts": [FIRST | {"labels": {"alertname": "Slow"}}, SECOND]},
    "a range that every profile has": {
        "profiles": {"smoke": RANGED, "gameday": RANGED},
        "mitigated": {"query": "deriv(depth[$range])", "below": 0},
    },
    "a range that only one profile's query has": {
        "profiles": {"smoke": RANGED | {"mitigated": {"query": "deriv(depth[$range])"}}, "gameday": {"timeout": "75m"}},
    },
    "quotes and comments with brackets": {"signal": {"title": "t", "query": 'sum(x{a="(]", b=\'"\'}) # (a'}},
}


@pytest.mark.parametrize("name", SENSE)
def test_sense_is_let_pass(name: str) -> None:
    assert found(**SENSE[name]) == []


def test_journals_are_read_whatever_they_hold() -> None:
    assert parse(experiment(**killing()).as_data())


def test_every_query_is_looked_at_but_what_is_somebody_elses() -> None:
    wild = ending(equals="Done")
    wild["faults"][0]["manifest"]["spec"] = {"query": "(("}
    tuned = {
        "smoke": {"timeout": "4m", "mitigated": {"query": "m"}, "alerts": {"Errors": {"recovered": {"query": "r"}}}}
    }
    alerts = [FIRST, SECOND | {"recovered": {"query": "own", "below": 1}, "signal": {"title": "t", "query": "curve"}}]
    response = {**GOOD["autopilot"]["responses"][0], "when": {"query": "w", "below": 1}}
    one = experiment(**wild, profiles=tuned, alerts=alerts, autopilot={"responses": [response]})
    assert {".".join(map(str, loc)): query for loc, query in queries(one)} == {
        "signal.query": "depth", "steady_state.0.query": "max(depth)", "steady_state.1.query": "sum(ok)",
        "faults.1.effect.query": ERRORS["query"], "alerts.1.recovered.query": "own", "alerts.1.signal.query": "curve",
        "mitigated.query": "max(depth)", "recovered.query": "max(depth)", "must_hold.0.query": "max(budget)",
        "abort.0.query": "max(depth)", "autopilot.responses.0.when.query": "w",
        "profiles.smoke.mitigated.query": "m", "profiles.smoke.alerts.Errors.recovered.query": "r",
    }  # fmt: skip


def test_a_fault_is_proved_over_the_range_of_the_profile() -> None:
    effect = ERRORS | {"query": "sum(rate(b[$range])) / sum(rate(c[ $range ]))"}
    tuned = experiment(**faults(effect=effect), profiles={"smoke": RANGED}).tuned("smoke")
    proved = measured_effect(tuned.faults[1])
    assert proved is not None
    assert proved.query == "sum(rate(b[1m])) / sum(rate(c[1m]))"
