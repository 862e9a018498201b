"""Named instants with bounds, computed from a history.

A milestone is an interval on the run's clock, who or what says so, and the events that are its evidence. Several
sources may tell of one; the rule for choosing is fixed per milestone and written beside it. Nothing here reads a
clock, and nothing here times anything by when a poll came round.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.core.clock import Bounds, Instant
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
from harness.core.experiment import AnyExperiment, ExpectedAlert, goal_signal, signal_of
from harness.core.held import held_since
from harness.core.history import History
from harness.core.restart import Attempts, tested
from harness.core.samples import described, samples


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
FROM_PROMETHEUS = frozenset({"pending", "firing", "resolved", MITIGATED, RECOVERED})
"""The last words of the milestones that Prometheus tells."""


def operand_signal(alert: str) -> str:
    """The signal name under which it is journalled how many series an alert's rule has to look at."""
    return f"alert: {alert}"


def milestones(experiment: AnyExperiment, history: History) -> dict[str, Milestone]:
    """Every milestone that the history proves, by name. The experiment must be tuned to the run's profile."""
    found: dict[str, Milestone] = {}

    def put(name: str, milestone: Milestone) -> None:
        found.setdefault(name, milestone)

    _faults(history, put_into=found)
    _alerts(experiment, history, found)
    _responders(experiment, history, found)
    for index, alert in enumerate(experiment.alerts):
        _goals(experiment, history, found, alert.name, is_first=index == 0)
    for record, event in history.records(CleanChecked):
        if not event.clean:
            found.pop("clean", None)  # what became dirty again was not clean for good
        else:
            put("clean", Milestone("clean", Bounds.at(record.at), "comparison with the snapshots", (record.seq,)))
    return dict(sorted(found.items(), key=lambda item: (item[1].at.latest, item[1].at.earliest, item[0])))


def _goals(
    experiment: AnyExperiment, history: History, found: dict[str, Milestone], alert: str, *, is_first: bool
) -> None:
    """When an alert's incident was mitigated, and recovered: those of the first are the experiment's."""
    firing = found.get(f"{alert}.firing")
    for goal in (MITIGATED, RECOVERED) if firing is not None else ():
        condition = experiment.goal(alert, goal)
        signal = signal_of(experiment, alert, goal)
        if firing is None or condition is None:
            continue
        since, proof = firing.at.earliest, experiment.restart_proofs().get(alert)
        if goal == RECOVERED and proof is not None:
            held = tested(history, alert, signal, condition, proof, since).stood
        else:
            held = held_since(history, signal, condition, not_before=since)
        if held is not None:
            for name in [goal_signal(alert, goal)] + ([goal] if is_first else []):
                found[name] = Milestone(name, held.at, held.source, held.evidence, note=held.note)


def restarts(experiment: AnyExperiment, history: History, found: dict[str, Milestone]) -> dict[str, Attempts]:
    """What came of putting recoveries to the test of a restart, by alert: those that have fired and must stand it."""
    known: dict[str, Attempts] = {}
    for alert, proof in experiment.restart_proofs().items():
        firing, condition = found.get(f"{alert}.firing"), experiment.goal(alert, RECOVERED)
        if firing is not None and condition is not None:
            signal = signal_of(experiment, alert, RECOVERED)
            known[alert] = tested(history, alert, signal, condition, proof, firing.at.earliest)
    return known


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
    for index, alert in enumerate(experiment.alerts):
        own = _attributed(experiment, alert, history, found)
        firing = own.get("firing")
        for record, page in history.records(PageReceived):
            mine = page.alert == alert.name and page.status == "firing" and alert.matches(page.labels)
            if firing is not None and mine and page.at.latest >= firing.at.earliest and _is_of(page, firing, history):
                own.setdefault("paged", Milestone("paged", page.at, page.source, (record.seq,)))
        for what, milestone in own.items():
            for name in [f"{alert.name}.{what}"] + ([what] if index == 0 else []):
                found[name] = replace(milestone, name=name)


def _attributed(
    experiment: AnyExperiment, alert: ExpectedAlert, history: History, found: dict[str, Milestone]
) -> dict[str, Milestone]:
    """The states of an alert since the fault that it is counted from was injected. One that fires only from before
    that, with another fault in force, is shown with a note: what raised it is not known."""
    zero, first = zero_of(experiment, alert), found.get("injected")
    since = found.get(zero)
    own = _alert_states(alert.name, history, not_before=since.at.earliest) if since is not None else {}
    if first is None or zero == "injected":
        return own
    before = _alert_states(alert.name, history, not_before=first.at.earliest)
    if "firing" not in before:
        return own
    if "firing" not in own:
        note = f"{AMBIGUOUS}: it fired before {zero}, so what raised it is not known"
        return before | {"firing": replace(before["firing"], note=note)}
    # It fired behind its own fault, from a `pending` of before: what raised it was there already.
    rising = before.get("pending")
    if "pending" not in own and rising is not None and rising.at.earliest < own["firing"].at.earliest:
        note = f"{AMBIGUOUS}: it was pending before {zero}, so what raised it is not known"
        return own | {"firing": replace(own["firing"], note=note)}
    return own


AMBIGUOUS = "ambiguous"
"""How the note of a milestone begins that cannot be attributed."""


def zero_of(experiment: AnyExperiment, alert: ExpectedAlert) -> str:
    """The milestone before which an alert cannot be this drill's doing: the injection of the fault that it is counted
    from, or the first injection."""
    owner = alert.of.partition(".")[0]
    return f"{owner}.injected" if any(fault.id == owner for fault in experiment.faults) else "injected"


def _alert_states(alert: str, history: History, *, not_before: float) -> dict[str, Milestone]:
    """When it was first pending (for the firing that counts), first fired, and was resolved for good.

    A flapping alert fires at its first firing and is resolved at its last resolution. A firing from before the
    injection is not this drill's, and neither is its end, nor what follows the run's own undo. An alert whose rule
    has nothing to look at is resolved as well, so a resolution stands once data from after it is known.
    """
    own: dict[str, Milestone] = {}
    began = history.undo_began
    for record, event in history.records(AlertTransition):
        if event.alert != alert or event.at.latest < not_before:
            continue
        if began is not None and record.seq > began.seq and event.at.earliest > began.at:
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
    resolved = own.get("resolved")
    looked = samples(history, operand_signal(alert))
    if resolved is not None and looked:
        after = next((one for one in looked if one.at >= resolved.at.latest), None)
        if after is None:
            del own["resolved"]
        elif after.value is None:
            words = f"its rule had nothing to look at then ({described(after)})"
            own["resolved"] = replace(resolved, note=f"{NO_DATA}: {words}", evidence=(*resolved.evidence, after.seq))
    return own


NO_DATA = "not known"
"""How the note of a milestone begins that only lack of data shows."""


def _is_of(page: PageReceived, firing: Milestone, history: History) -> bool:
    """Whether a page tells of this firing or a later one: its startsAt is the evaluation that fired. An older page
    that somebody sends again is not it. Where evaluations were missed, the one that fired may be any of them."""
    (began,) = (event for record, event in history.records(AlertTransition) if record.seq == firing.evidence[0])
    return page.starts_at >= began.evaluation - began.at.width - AGREEMENT


def _disagreement(history: History, event: AlertTransition) -> str:
    """What to note where evaluations are missing around it, or where Alertmanager holds a different start of the same
    firing (its startsAt is that evaluation)."""
    if event.missed > MISSED_EVALUATIONS:
        return f"{NO_DATA}: {event.missed} evaluations of its rule were missed before it"
    held = [seen.starts_at for seen in history.all(NotifierSeen) if seen.alert == event.alert]
    if event.to != "firing" or not held or any(abs(at - event.evaluation) <= AGREEMENT for at in held):
        return ""
    return "Alertmanager's stamp differs by more than a millisecond"


MISSED_EVALUATIONS = 1
"""One evaluation that is missing only widens the bounds. Where more are, the chain that is judged was not at work."""
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


def _responders(experiment: AnyExperiment, history: History, found: dict[str, Milestone]) -> None:
    """What responders did, each act about one alert: the one that it names, or else the one that it can be about.
    The plain names are those of the first alert; the all clear is given once it is given for all that fired."""
    begun = history.last(RunStarted)
    people_respond = begun is not None and begun.responder == "human"
    names = [alert.name for alert in experiment.alerts]
    cleared = "all_clear"
    for record, event in history.records(ResponderActed):
        if not event.counted:
            continue
        if people_respond and event.action == "acknowledged" and event.actor_kind == "automation":
            continue  # law: where people respond, acknowledged means a person
        alert, note = _about(event, names, found)
        firing = found.get(f"{alert}.firing")
        is_for_all = event.action == cleared and not event.alert
        if firing is None or event.at.latest < firing.at.earliest:
            continue  # law: acknowledged means after firing
        match event.action:
            case "escalated" | "joined" if not event.role:
                continue
            case "escalated":
                known = [f"{event.role}.paged"]
            case "joined":
                known = [f"{event.role}.joined"]
            case action if action in _BY_ACTION:
                what = _BY_ACTION[action]
                about = _fired_by(event.at.latest, names, found) if is_for_all else [alert]
                known = [f"{name}.{what}" for name in about]
                known += [what] if alert == names[0] and what != cleared else []
            case _:
                continue
        at = event.at.clipped(not_before=firing.at.earliest)
        source = event.source if event.verified != "claimed" else f"{event.source} (identity claimed, not verified)"
        for name in known:
            found.setdefault(
                name,
                Milestone(
                    name, at, source, (record.seq,), actor=event.actor, actor_kind=event.actor_kind, note=note
                ),
            )  # fmt: skip
    given = [found.get(f"{name}.{cleared}") for name in names if f"{name}.firing" in found]
    last = max((one for one in given if one is not None), key=lambda one: one.at.latest, default=None)
    if last is not None and None not in given and len(given) == len(names):
        found.setdefault(cleared, replace(last, name=cleared))


def _fired_by(at: Instant, names: list[str], found: dict[str, Milestone]) -> list[str]:
    return [name for name in names if f"{name}.firing" in found and found[f"{name}.firing"].at.earliest <= at]


def _about(event: ResponderActed, names: list[str], found: dict[str, Milestone]) -> tuple[str, str]:
    """Which alert an act is about, and what to note of that: the one that it names; else the only one that fired
    before it and has not yet been answered so; of several the oldest, marked."""
    if event.alert:
        return event.alert, ""  # also one that nobody expects: then it is about nothing here
    fired = [name for name in names if f"{name}.firing" in found]
    before = _fired_by(event.at.latest, names, found) or fired[:1]
    what = _BY_ACTION.get(event.action, "")
    due = [name for name in before if f"{name}.{what}" not in found] or before
    if not due:
        return "", ""
    oldest = min(due, key=lambda name: found[f"{name}.firing"].at.earliest)
    named = f"{AMBIGUOUS}: {' and '.join(due)} were firing, and it does not say which it is about"
    return oldest, named if what not in {"", "all_clear"} and len(due) > 1 else ""
