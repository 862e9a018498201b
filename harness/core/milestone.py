"""Named instants with bounds, computed from a history.

A milestone is an interval on the run's clock, who or what says so, and the events that are its evidence. Several
sources may tell of one; the rule for choosing is fixed per milestone and written beside it. Nothing here reads a
clock, and nothing here times anything by when a poll came round.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.core.clock import Bounds
from harness.core.event import (
    AlertTransition,
    CleanChecked,
    EffectProved,
    InjectDone,
    NotifierSeen,
    PageReceived,
    ResponderActed,
    RunStarted,
)
from harness.core.experiment import AnyExperiment, Condition
from harness.core.history import History
from harness.core.samples import Sampled, samples


@dataclass(frozen=True, slots=True)
class Milestone:
    """A named instant. `actor` is empty for machine milestones; `note` says what a reader must know of the bounds."""

    name: str
    at: Bounds
    source: str
    evidence: tuple[int, ...]
    actor: str = ""
    actor_kind: str = ""
    note: str = ""


MITIGATED = "mitigated"
RECOVERED = "recovered"


def milestones(experiment: AnyExperiment, history: History) -> dict[str, Milestone]:
    """Every milestone that the history proves, by name. The experiment must be tuned to the run's profile."""
    found: dict[str, Milestone] = {}

    def put(name: str, milestone: Milestone) -> None:
        found.setdefault(name, milestone)

    _faults(history, put_into=found)
    _alerts(experiment, history, found)
    firing = found.get("firing")
    _responders(history, found, firing)
    if firing is not None:
        for name, condition in ((MITIGATED, experiment.mitigated), (RECOVERED, experiment.recovered)):
            held = held_since(history, name, condition, not_before=firing.at.earliest)
            if held is not None:
                put(name, held)
    for record, event in history.records(CleanChecked):
        if not event.clean:
            found.pop("clean", None)  # what became dirty again was not clean for good
        else:
            put("clean", Milestone("clean", Bounds.at(record.at), "comparison with the snapshots", (record.seq,)))
    return dict(sorted(found.items(), key=lambda item: (item[1].at.latest, item[1].at.earliest, item[0])))


def _faults(history: History, put_into: dict[str, Milestone]) -> None:
    for record, event in history.records(InjectDone):
        if event.outcome == "failed":
            continue
        note = "the reply was lost" if event.outcome == "unknown" else ""
        for name in (f"{event.fault}.injected", "injected"):
            put_into.setdefault(name, Milestone(name, event.at, "API server reply", (record.seq,), note=note))
    for record, proved in history.records(EffectProved):
        name = f"{proved.fault}.effective"
        put_into.setdefault(name, Milestone(name, proved.at, proved.proof, (*proved.evidence, record.seq)))


def _alerts(experiment: AnyExperiment, history: History, found: dict[str, Milestone]) -> None:
    injected = found.get("injected")
    if injected is None:
        return
    for index, alert in enumerate(experiment.alerts):
        own = _alert_states(alert.name, history, not_before=injected.at.earliest)
        firing = own.get("firing")
        for record, page in history.records(PageReceived):
            mine = page.alert == alert.name and page.status == "firing"
            if firing is not None and mine and page.at.latest >= firing.at.earliest and _is_of(page, firing, history):
                own.setdefault("paged", Milestone("paged", page.at, page.source, (record.seq,)))
        for what, milestone in own.items():
            for name in [f"{alert.name}.{what}"] + ([what] if index == 0 else []):
                found[name] = replace(milestone, name=name)


def _alert_states(alert: str, history: History, *, not_before: float) -> dict[str, Milestone]:
    """When it was first pending (for the firing that counts), first fired, and was resolved for good.

    A flapping alert fires at its first firing and is resolved at its last resolution. A firing from before the
    injection is not this drill's, and neither is its end.
    """
    own: dict[str, Milestone] = {}
    for record, event in history.records(AlertTransition):
        if event.alert != alert or event.at.latest < not_before:
            continue
        milestone = Milestone(event.to, event.at, event.source, (record.seq,), note=_disagreement(history, event))
        match event.to:
            case "pending" if "firing" not in own:
                own["pending"] = milestone
            case "firing":
                own.setdefault("firing", milestone)
                own.pop("resolved", None)
            case "resolved" if "firing" in own:
                own["resolved"] = milestone
            case _:
                pass
    return own


def _is_of(page: PageReceived, firing: Milestone, history: History) -> bool:
    """Whether a page tells of this firing or a later one: its startsAt is the evaluation that fired. An older page
    that somebody sends again is not it. Where evaluations were missed, the one that fired may be any of them."""
    (began,) = (event for record, event in history.records(AlertTransition) if record.seq == firing.evidence[0])
    return page.starts_at >= began.evaluation - began.at.width - AGREEMENT


def _disagreement(history: History, event: AlertTransition) -> str:
    """What to note where Alertmanager holds a different start of the same firing (its startsAt is that evaluation)."""
    held = [seen.starts_at for seen in history.all(NotifierSeen) if seen.alert == event.alert]
    if event.to != "firing" or not held or any(abs(at - event.evaluation) <= AGREEMENT for at in held):
        return ""
    return "Alertmanager's stamp differs by more than a millisecond"


AGREEMENT = 0.0015
"""Seconds: a millisecond, and half of one for rounding in either API."""

_BY_ACTION = {
    "acknowledged": "acknowledged",
    "assessed": "assessed",
    "notified": "client.notified",
    "root_cause": "root_cause.declared",
    "fix_applied": "fix.applied",
    "all_clear": "all_clear",
}


def _responders(history: History, found: dict[str, Milestone], firing: Milestone | None) -> None:
    begun = history.last(RunStarted)
    people_respond = begun is not None and begun.responder == "human"
    for record, event in history.records(ResponderActed):
        if not event.counted or firing is None:
            continue
        if event.at.latest < firing.at.earliest:
            continue  # law: acknowledged means after firing
        if people_respond and event.action == "acknowledged" and event.actor_kind == "automation":
            continue  # law: where people respond, acknowledged means a person
        match event.action:
            case "escalated" | "joined" if not event.role:
                continue
            case "escalated":
                name = f"{event.role}.paged"
            case "joined":
                name = f"{event.role}.joined"
            case action if action in _BY_ACTION:
                name = _BY_ACTION[action]
            case _:
                continue
        at = event.at.clipped(not_before=firing.at.earliest)
        source = event.source if event.verified != "claimed" else f"{event.source} (identity claimed, not verified)"
        found.setdefault(
            name, Milestone(name, at, source, (record.seq,), actor=event.actor, actor_kind=event.actor_kind)
        )


def held_since(history: History, signal: str, condition: Condition, *, not_before: float) -> Milestone | None:
    """When `condition` began to hold for its whole window, back-dated to the window's start, or None.

    The earliest bound is the last sample that is known not to have held (less the samples' resolution), or
    `not_before`: the true change lies between it and the window's first sample. A missing value or a hole between
    samples breaks a window, so that no data never passes.
    """
    known_bad = not_before
    start: Sampled | None = None
    for sample in samples(history, signal):
        if sample.at < not_before:
            continue
        if sample.value is None:
            start = None
            continue
        if not condition.holds(sample.value):
            known_bad, start = sample.at, None
            continue
        start = sample if start is None or sample.hole else start
        if sample.at - start.at >= condition.for_:
            earliest = max(not_before, min(start.at, known_bad) - sample.resolution)
            note = f"held for {condition.for_:g} s; back-dated to the start of that window"
            return Milestone(
                signal, Bounds(earliest=min(earliest, start.at), latest=start.at), f"Prometheus: {condition}",
                (start.seq, sample.seq), note=note,
            )  # fmt: skip
    return None
