"""What proves the effect of a fault: nothing that was so before it was injected."""

from __future__ import annotations

import pytest

from harness.core.clock import Bounds
from harness.core.decide import decide
from harness.core.event import CheckDone, EffectProved, InjectDone, InjectionPlanned, InjectStarted, RunEnded
from harness.core.evidence import evidence
from harness.core.experiment import Experiment, FaultSpec, MeasuredEffect
from harness.core.verdict import Verdict, judge
from harness.report.model import build
from tests.core.test_judging import Entry, experiment, history, read, started

SIGNAL = "effect: key"


class Measured(FaultSpec):
    """A fault that shows in what is measured."""

    effect: MeasuredEffect


def drill() -> Experiment[Measured]:
    effects = {"memory": {"query": "q", "above": 1, "within": "9s"}, "key": {"query": "e", "above": 30, "within": "9s"}}
    faults = [
        {"id": name, "kind": "any", "blast_radius": {"pods": 1}, "effect": effect} for name, effect in effects.items()
    ]
    faults[1]["after"] = "memory.injected + 30s"
    return Experiment[Measured].model_validate(experiment().as_data() | {"faults": faults})


def begun(fault: str, at: float, *, proved: bool = False) -> list[Entry]:
    told: list[Entry] = [
        (at, InjectionPlanned(fault=fault, kind="any", summary="s", changes=(), undo={})),
        (at, InjectStarted(fault=fault)),
        (at, InjectDone(fault=fault, outcome="done", at=Bounds.at(at))),
    ]
    return [*told, (at, EffectProved(fault=fault, at=Bounds.at(at), proof="p", evidence=()))] if proved else told


FIRST: list[Entry] = [(0.0, started()), (1.0, CheckDone(name="c", ok=True, fact="f")), *begun("memory", 5, proved=True)]


@pytest.mark.parametrize(
    ("before", "proved"),
    [
        ([5, 5, 5, 5], True),
        ([5, 60, 60, 5], True),
        ([None, None, None, None], True),
        ([5, 5, 60, 60], False),
        ([5, 60, 60, None], False),
    ],
    ids=["never", "held and ceased", "nothing is known", "holds", "holds in the last that is known"],
)
def test_what_held_before_an_injection_is_no_proof_of_it(before: list[float | None], *, proved: bool) -> None:
    told = history(*FIRST, read(SIGNAL, 31, before), *begun("key", 35), read(SIGNAL, 35.5, [60, 60, 60]))
    found = evidence(drill().fault("key"), told)
    assert found is not None
    assert (found.measured is not None) == proved


def test_a_fault_that_can_never_be_proved_ends_the_run_at_once_and_says_why() -> None:
    entries = [*FIRST, read(SIGNAL, 31, [60, 60, 60, 60]), *begun("key", 35), read(SIGNAL, 35.5, [60])]
    told = history(*entries)
    decision = decide(drill(), drill().profile("gameday"), told, 36.0)
    assert [(intent.do, intent.fault) for intent in decision.intents] == [("undo", "key")]
    why = "e > 30 held already 1.0 s before it: 60"
    assert decision.why == f"aborted: the effect of fault key can never be proved: {why}"
    over = history(*entries, (40.0, RunEnded(reason="timeout", detail="over")))
    judged = judge(drill(), over)
    assert judged.verdict is Verdict.UNDECIDED
    assert f"fault key: its effect was never proved ({why})" in judged.reason
    (finding,) = [one for one in build(drill(), over).findings if one.rule == "effect-not-proved"]
    assert finding.detail == why


def test_a_fault_that_would_prove_nothing_is_not_injected() -> None:
    profile = drill().profile("gameday")
    (due,) = decide(drill(), profile, history(*FIRST, read(SIGNAL, 31, [5, 5, 5, 5])), 36.0).intents
    assert (due.do, due.fault) == ("inject", "key")
    decision = decide(drill(), profile, history(*FIRST, read(SIGNAL, 31, [5, 5, 60, 60])), 36.0)
    assert [(intent.do, intent.fault) for intent in decision.intents] == [("undo", "memory")]
    assert decision.why == "aborted: fault key would prove nothing: e > 30 held already 2.0 s before it: 60"


def test_a_fault_that_was_never_in_force_needs_no_comparison() -> None:
    refused = InjectDone(fault="memory", outcome="failed", at=Bounds.at(5), detail="it changed since")
    for done, told in ((refused, []), (refused.model_copy(update={"outcome": "unknown"}), ["not-compared"])):
        over = history((0.0, started()), (5.0, done), (6.0, RunEnded(reason="error", detail="over")))
        assert [one.rule for one in build(drill(), over).findings if one.rule == "not-compared"] == told
