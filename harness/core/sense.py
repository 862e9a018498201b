"""What an experiment says that cannot be, although each part of it can: it would waste a drill.

Asked of files, before anything is broken, and never of journals: a run that was made is judged, whatever it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from pydantic import BaseModel

from harness.core.experiment import (
    GOALS,
    RESPONSES,
    AnyExperiment,
    Condition,
    Loc,
    RestoreMemoryLimit,
    effect_within,
    measured_effect,
    moment,
)
from harness.core.promql import placeholders, unbalanced
from harness.core.quantity import format_duration

Doubt = tuple[Loc, str]


def nonsense(experiment: AnyExperiment) -> list[Doubt]:
    """Everything of that kind, each with the path of the value at fault."""
    longest = max(profile.timeout for profile in experiment.profiles.values())
    found = [
        *_never(experiment),
        *_backwards(experiment),
        *_too_late(experiment, longest),
        *_at_odds(experiment),
        *_without_meaning(experiment),
        *_unreadable(experiment),
        *_unfilled(experiment),
    ]
    for index, fault in enumerate(experiment.faults):
        found += [(("faults", index, *loc), message) for loc, message in fault.nonsense(longest)]
    return found


# Milestones


def _never(experiment: AnyExperiment) -> Iterator[Doubt]:
    """Milestones that cannot come, or not before the run is over."""
    without_alerts = {"injected", "clean"} | {
        f"{fault.id}.{what}" for fault in experiment.faults for what in ("injected", "effective")
    }
    used: list[tuple[Loc, str]] = [
        (("slas", i, end), name)
        for i, sla in enumerate(experiment.slas)
        for end, name in (("from", sla.from_), ("to", sla.to))
    ]
    before: list[tuple[Loc, str]] = [(("alerts", i, "of"), alert.of) for i, alert in enumerate(experiment.alerts)]
    before += [(("faults", i, "after"), moment(f.after)[0]) for i, f in enumerate(experiment.faults) if f.after]
    for loc, name in [*used, *before]:
        if not experiment.alerts and name not in without_alerts:
            yield loc, f"{name} cannot come: no alert is expected; declare in `alerts` the one that has to fire"
        elif name == "clean" and loc[-1] in {"after", "of"}:
            yield loc, "clean comes when all is undone, and nothing is injected or fires for it then"
        elif name == "clean" and loc[-1] == "from":
            yield loc, "clean comes last, and no clock starts there; write it as `to`, or another milestone"


def _backwards(experiment: AnyExperiment) -> Iterator[Doubt]:
    """Clocks whose end comes before their start."""
    for i, sla in enumerate(experiment.slas):
        if sla.from_ != sla.to and (sla.to == "injected" or _is_behind(experiment, sla.from_, sla.to)):
            yield ("slas", i, "to"), f"{sla.to} always comes before {sla.from_}; write the earlier one as `from`"
    for i, alert in enumerate(experiment.alerts):
        firing = f"{alert.name}.firing"
        if _plain(experiment, alert.of) == firing or _is_behind(experiment, alert.of, firing):
            yield (
                ("alerts", i, "of"),
                f"{alert.of} comes only when {alert.name} fires; count from what raises it, such as a fault's effect",
            )


def _is_behind(experiment: AnyExperiment, later: str, earlier: str) -> bool:
    """Whether one milestone cannot come before another."""
    wanted, seen, todo = _plain(experiment, earlier), set[str](), [later]
    while todo:
        for name in experiment.waits_for(todo.pop()):
            if _plain(experiment, name) == wanted:
                return True
            if name not in seen:
                seen.add(name)
                todo.append(name)
    return False


def _plain(experiment: AnyExperiment, name: str) -> str:
    """A milestone's one name: the plain names are those of the first alert."""
    if not experiment.alerts or name == "all_clear":
        return name
    own = {"pending", "firing", "paged", "resolved", *GOALS, *RESPONSES}
    return f"{experiment.alerts[0].name}.{name}" if name in own else name


# Times


def _too_late(experiment: AnyExperiment, longest: float) -> Iterator[Doubt]:
    first = min((fault.at for fault in experiment.faults if fault.after is None), default=0.0)
    for i, fault in enumerate(experiment.faults):
        wait = moment(fault.after)[1] if fault.after else fault.at - first
        if wait >= longest:
            loc: Loc = ("faults", i, "after" if fault.after else "at")
            message = f"the longest profile lasts for {format_duration(longest)}: it is over before; write less"
            yield loc, message
        if effect_within(fault) == 0:
            yield ("faults", i, "effect", "within"), "no effect is proved within no time; write a bound above 0s"
        effect = measured_effect(fault)
        if effect is not None and effect.within and effect.for_ > effect.within:
            message = f"it must hold for {format_duration(effect.for_)} within {format_duration(effect.within)}; "
            yield ("faults", i, "effect", "for"), message + "write a shorter `for`, or a longer `within`"
    for name, profile in experiment.profiles.items():
        tuned = experiment.tuned(name)
        goals = [(goal, ("profiles", name, goal), getattr(tuned, goal)) for goal in GOALS]
        for goal, loc, condition in goals:
            if condition.for_ >= profile.timeout:
                spelled = f"`{goal}` must hold for {format_duration(condition.for_)}"
                yield (
                    (*loc, "for"),
                    f"{spelled}, and the run lasts for {format_duration(profile.timeout)}; write a shorter `for` here",
                )

    pace = experiment.autopilot
    unattended = [p.timeout for p in experiment.profiles.values() if p.responder == "autopilot"]
    if pace is not None and unattended and pace.acknowledge_after >= min(unattended):
        message = f"a run is over after {format_duration(min(unattended))}, and nobody would have answered; write less"
        yield ("autopilot", "acknowledge_after"), message


# Conditions


class _Told(NamedTuple):
    """A condition, where it stands, and what it is called."""

    loc: Loc
    name: str
    condition: Condition


def _at_odds(experiment: AnyExperiment) -> Iterator[Doubt]:
    """Conditions on one query of which the one rules out what the other is for."""
    steady = [_Told(("steady_state", i), f"steady state {c.name!r}", c) for i, c in enumerate(experiment.steady_state)]
    effects = [
        _Told(("faults", i, "effect"), f"effect of fault {fault.id}", effect)
        for i, fault in enumerate(experiment.faults)
        if (effect := measured_effect(fault)) is not None
    ]
    guards = [_Told(("must_hold", i), "", c) for i, c in enumerate(experiment.must_hold)]
    aborts = [_Told(("abort", i), "", c) for i, c in enumerate(experiment.abort)]
    goals = [_Told((goal,), "", getattr(experiment, goal)) for goal in GOALS]
    apart, follows = "it cannot hold together with the", "it holds wherever the"
    rules: list[tuple[list[_Told], list[_Told], Callable[[Condition, Condition], bool], str, str]] = [
        (steady, steady, _exclude, apart, ": nothing would ever be steady"),
        (effects, steady, _implied, follows, " does, so it proves nothing; write what only the fault brings about"),
        (guards, steady + effects, _exclude, apart, ", so every run would miss it"),
        (aborts, steady + effects, _implied, follows, " does, so every run would be aborted"),
        (goals, steady, _exclude, apart, ": the system would have to stay broken"),
        (goals, effects, _implied, follows, " does, so nothing would have to be mended"),
    ]
    for those, others, clash, words, why in rules:
        for one in those:
            for other in others:
                if (one.loc > other.loc or those is not others) and clash(one.condition, other.condition):
                    yield one.loc, f"{words} {other.name}{why}"


def _implied(one: Condition, other: Condition) -> bool:
    """Whether a value that meets the other condition always meets the one."""
    if not _same_query(one, other):
        return False
    if one.below is not None and other.below is not None:
        return other.below <= one.below
    return one.above is not None and other.above is not None and other.above >= one.above


def _exclude(one: Condition, other: Condition) -> bool:
    """Whether no value meets both conditions."""
    if not _same_query(one, other):
        return False
    low, high = (one, other) if one.below is not None else (other, one)
    return low.below is not None and high.above is not None and high.above >= low.below


def _same_query(one: Condition, other: Condition) -> bool:
    return "".join(one.query.split()) == "".join(other.query.split())


# The rest


def _without_meaning(experiment: AnyExperiment) -> Iterator[Doubt]:
    """What is written and would not be looked at, or could not be done."""
    for where, conditions in (("must_hold", experiment.must_hold), ("abort", experiment.abort)):
        for i, condition in enumerate(conditions):
            if condition.for_:
                message = f"`{where}` looks at single samples and knows no `for`; leave it out"
                yield (where, i, "for"), f"{message}, or take the mean in the query (avg_over_time)"
    first = experiment.alerts[0].name if experiment.alerts else ""
    if first in experiment.facilitator.of_alerts:
        yield (
            ("facilitator", "of_alerts", first),
            "the truth behind the first alert is `root_cause`; write it there, or name another alert",
        )
    for i, alert in enumerate(experiment.alerts):
        if alert.labels.get("alertname", alert.name) != alert.name:
            yield ("alerts", i, "labels", "alertname"), f"no alert is called that and {alert.name}; leave it out"
    titles = [sla.title for sla in experiment.slas]
    for i, title in enumerate(titles):
        if title in titles[:i]:
            yield ("slas", i, "name"), f"{title!r} is the name of two SLAs, and reports tell them by it; give another"
    yield from _nobody_called(experiment)
    for i, response in enumerate(experiment.autopilot.responses if experiment.autopilot else ()):
        restores = any(isinstance(step, RestoreMemoryLimit) for step in response.steps)
        if restores and not response.look_at.startswith("deployment/"):
            yield (
                ("autopilot", "responses", i, "look_at"),
                "restore-memory-limit mends the Deployment that is looked at; name that, such as deployment/worker",
            )


def _nobody_called(experiment: AnyExperiment) -> Iterator[Doubt]:
    """Required promises about roles that the autopilot never calls, where it is the one to respond."""
    unattended = [name for name, profile in experiment.profiles.items() if profile.responder == "autopilot"]
    called = experiment.autopilot.escalate if experiment.autopilot else ()
    for i, sla in enumerate(experiment.slas if unattended else ()):
        for end, name in (("from", sla.from_), ("to", sla.to)):
            role = name.partition(".")[0]
            if sla.required and role in experiment.roles and role not in called:
                message = f"in profile {unattended[0]} the autopilot responds, and it calls nobody as {role}"
                yield ("slas", i, end), f"{message}; add {role} to `autopilot.escalate`, or require something else"


def _unreadable(experiment: AnyExperiment) -> Iterator[Doubt]:
    for loc, query in queries(experiment):
        odd = unbalanced(query)
        if odd:
            yield loc, f"{odd} has no counterpart in the query; balance its brackets and quotes"


def _unfilled(experiment: AnyExperiment) -> Iterator[Doubt]:
    """Ranges that a profile would leave open, and such as nothing asks for."""
    for loc, query in queries(experiment):
        strange = [one for one in placeholders(query) if not one.startswith("[")]
        if strange:
            yield loc, f"nothing fills in {strange[0]}; write [$range], and `range` in each profile"
    for name, profile in experiment.profiles.items():
        plain = experiment.model_copy(update={"profiles": {name: profile.model_copy(update={"range": None})}})
        asked = [".".join(map(str, loc)) for loc, query in of_run(plain.tuned(name)) if placeholders(query)]
        if asked and profile.range is None:
            yield ("profiles", name), f"{asked[0]} looks at [$range]; say here how long that is, such as range: 1m"
        elif profile.range is not None and not asked:
            yield ("profiles", name, "range"), "no query of this profile looks at [$range]; leave `range` out"
        elif profile.range is not None and profile.range <= 0:
            yield ("profiles", name, "range"), "a range of no time holds no samples; write one above 0s"


def of_run(experiment: AnyExperiment) -> Iterator[tuple[Loc, str]]:
    """The queries of a tuned experiment, without what its profiles had for other runs."""
    return ((loc, query) for loc, query in queries(experiment) if loc[0] != "profiles")


def queries(said: object, at: Loc = ()) -> Iterator[tuple[Loc, str]]:
    """Every PromQL expression of a model of the file, and of those in it, with its path."""
    items: Iterable[tuple[str | int, object]] = ()
    if isinstance(said, BaseModel):
        fields = type(said).model_fields
        items = ((fields[name].alias or name, value) for name, value in said)
    elif isinstance(said, dict):
        items = said.items()
    elif isinstance(said, tuple):
        items = enumerate(said)
    for key, value in items:
        if key == "query" and isinstance(value, str) and isinstance(said, BaseModel):
            yield (*at, key), value
        else:
            yield from queries(value, (*at, key))
