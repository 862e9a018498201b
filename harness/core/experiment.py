"""What an experiment file says, as frozen values that are checked against themselves.

The core knows the shape of every experiment and nothing of any particular fault: `Experiment` is generic in its
fault specs, and the catalog closes it over the faults that exist. Field names are the field's standard terms; every
duration in a file names its two ends.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from harness.core.quantity import Duration, Memory, format_duration, parse_duration

MOST_NAME = 40
Name = Annotated[str, StringConstraints(pattern=rf"^[a-z0-9]([a-z0-9-]{{0,{MOST_NAME - 2}}}[a-z0-9])?$")]
"""A DNS-safe short name: it becomes part of object names and of paths."""
AlertName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,80}$")]
LabelName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]{0,80}$")]
_MILESTONE = re.compile(r"^[A-Za-z_][A-Za-z0-9_-]*(\.[a-z_]+){0,2}$")
MilestoneName = Annotated[str, StringConstraints(pattern=_MILESTONE.pattern)]
ObjectName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$", max_length=253)]
WorkloadName = Annotated[str, StringConstraints(pattern=r"^(deployment|statefulset)/[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")]
"""A workload in the form kind/name."""
Severity = Literal["P1", "P2", "P3", "P4"]
ProfileName = Literal["smoke", "gameday"]
ResponderMode = Literal["autopilot", "human"]


Loc = tuple[str | int, ...]


class SelfCheckError(ValueError):
    """Everything in which an experiment contradicts itself, each with the path of the value at fault."""

    def __init__(self, problems: list[tuple[Loc, str]]) -> None:
        super().__init__("; ".join(f"{'.'.join(map(str, loc))}: {message}" for loc, message in problems))
        self.problems = tuple(problems)


class Frozen(BaseModel):
    """The manner of every model read from a file: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Why(Frozen):
    """Why this drill is worth people's time."""

    probability: Literal["low", "medium", "high"]
    tests: tuple[str, ...] = Field(min_length=1)
    source: str = ""


class Condition(Frozen):
    """A PromQL expression held below or above a bound for a time. Exactly one of `below` and `above`."""

    query: str = Field(min_length=1)
    below: float | None = Field(default=None, allow_inf_nan=False)
    above: float | None = Field(default=None, allow_inf_nan=False)
    for_: Duration = Field(default=0.0, alias="for")

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if (self.below is None) == (self.above is None):
            raise ValueError("a condition needs exactly one of `below` and `above`")
        return self

    def holds(self, value: float) -> bool:
        """Whether `value` is strictly inside the bound. NaN is never inside."""
        if self.below is not None:
            return value < self.below
        return self.above is not None and value > self.above

    def __str__(self) -> str:
        bound = f"< {self.below:g}" if self.below is not None else f"> {self.above:g}"
        return f"{self.query} {bound}"


class RestartProof(Frozen):
    """Whose restart a recovery must outlast: the run restarts its pods, one at a time."""

    of: WorkloadName
    within: Duration = Field(default=60.0, gt=0)
    """How long a restarted pod may take to be replaced by a ready one, and the condition to hold behind the last."""


class Recovery(Condition):
    """When an incident is over. With `restart_proof`, only if a restart does not bring it back."""

    restart_proof: RestartProof | None = None


class NamedCondition(Condition):
    """A condition that the report calls by a name."""

    name: str = Field(min_length=1)


class MeasuredEffect(Condition):
    """An effect that Prometheus shows: the fault counts from when the condition holds. It must not hold before."""

    within: Duration


class Signal(Frozen):
    """The curve that the live view and the report draw."""

    query: str = Field(min_length=1)
    title: str
    unit: str = ""


class BlastRadius(Frozen):
    """The declared maximum of what a fault may touch, enforced against the live cluster before the first write."""

    pods: int = Field(ge=1)
    objects: int = Field(default=1, ge=1)


def _moment(text: str) -> str:
    name, plus, offset = text.partition(" + ")
    if not _MILESTONE.fullmatch(name) or (plus and parse_duration(offset) <= 0):
        raise ValueError(f"{text[:40]!r} is not a moment; write a milestone, and how long after it: firing + 25s")
    return text


Moment = Annotated[str, AfterValidator(_moment)]
"""A milestone, or a duration after one: "memory.effective + 25s"."""


def moment(text: str) -> tuple[str, float]:
    """The milestone of a moment, and the seconds after it."""
    name, plus, offset = text.partition(" + ")
    return name, parse_duration(offset) if plus else 0.0


class FaultSpec(Frozen):
    """What every fault in a file has; each fault's own spec adds its parameters and a literal `kind`.

    A fault is injected as soon as the checks have passed, or later: `at` counts from there, `after` from a milestone.
    """

    id: Name
    kind: str
    at: Duration = 0.0
    after: Moment | None = None
    blast_radius: BlastRadius
    accepted_owners: tuple[str, ...] = ()
    """Controllers that manage the changed field and were suspended for the drill, as the refusal names them."""

    def rounds(self) -> tuple[Self, ...]:
        """The faults that this one stands for in a file: itself, or its repeats, each with a name of its own."""
        return (self,)

    def postponed(self, seconds: float) -> dict[str, Any]:
        """The fields that say when, so many seconds later."""
        if self.after is None:
            return {"at": self.at + seconds}
        name, later = moment(self.after)
        return {"after": f"{name} + {later + seconds:g}s"}

    def tuned(self, timeout: float) -> Self:
        """This fault for a run of that many seconds. A profile changes nothing of what a fault does; how long its own
        dead man's switch waits may depend on it."""
        del timeout
        return self

    def nonsense(self, timeout: float) -> list[tuple[Loc, str]]:
        """What is wrong with this fault although it can be read, each with its path from here: what would waste a
        drill whose longest run takes `timeout` seconds. Asked of files, and never of what a journal holds."""
        del timeout
        return []


def measured_effect(spec: FaultSpec) -> MeasuredEffect | None:
    """The condition by which a fault is proved, where it is proved by one."""
    effect = getattr(spec, "effect", None)
    return effect if isinstance(effect, MeasuredEffect) else None


def effect_within(spec: FaultSpec) -> float | None:
    """Seconds in which a fault's effect must be proved, where it declares them."""
    within = getattr(getattr(spec, "effect", None), "within", None)
    return float(within) if within is not None else None


def too_many(spec: FaultSpec, loc: Loc, pods: int, what: str) -> list[tuple[Loc, str]]:
    """That a fault says of more pods than it may touch that they are hit."""
    most = spec.blast_radius.pods
    remedy = f"write at most {most}, or raise `blast_radius` on purpose"
    return [(loc, f"{pods} {what}, and `blast_radius` allows {most}; {remedy}")] if pods > most else []


def effect_signal(fault_id: str) -> str:
    """The signal name under which the samples of a measured effect are journalled."""
    return f"effect: {fault_id}"


def goal_signal(alert: str, goal: str) -> str:
    """The signal name under which the samples of an alert's own `mitigated` or `recovered` are journalled: that of
    the milestone."""
    return f"{alert}.{goal}"


def signal_of(experiment: AnyExperiment, alert: str, goal: str) -> str:
    """The signal name under which the samples of an alert's `mitigated` or `recovered` are journalled, whether they are
    its own or, as those of the first alert, the experiment's."""
    return goal if experiment.alerts[0].name == alert else goal_signal(alert, goal)


def curve_signal(alert: str) -> str:
    """The signal name under which an alert's own drawn signal is journalled."""
    return f"curve: {alert}"


class ExpectedAlert(Frozen):
    """An alert that must fire, by when, counted from which milestone: one incident.

    The first alert of an experiment is what its `mitigated`, `recovered` and `signal` are about. Every other one may
    declare its own, and is an incident of its own by that.
    """

    name: AlertName
    within: Duration
    of: MilestoneName
    labels: dict[LabelName, str] = {}
    """Labels that it must carry, exactly: on a shared Prometheus other systems may have alerts of that name."""
    mitigated: Condition | None = None
    recovered: Recovery | None = None
    signal: Signal | None = None

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an alert of that name with these labels is this one."""
        return all(labels.get(name, "") == value for name, value in self.labels.items())


class Sla(Frozen):
    """An upper bound on the time between two named milestones."""

    name: str = ""
    from_: MilestoneName = Field(alias="from")
    to: MilestoneName
    within: Duration
    required: bool = False

    @property
    def title(self) -> str:
        """What reports call it; both ends are always printed beside it."""
        return self.name or f"{self.from_} to {self.to}"


class RootCause(Frozen):
    """The hidden truth that a responder's declaration is compared with."""

    object: str
    reason: str


class Facilitator(Frozen):
    """What responders must not see."""

    root_cause: RootCause
    of_alerts: dict[AlertName, RootCause] = {}
    """The truth behind other alerts than the first."""


class RestoreMemoryLimit(Frozen):
    """Look at the pods of the workload; put the limit back where they were OOM-killed, scale where all are healthy."""

    do: Literal["restore-memory-limit"]
    limit: Memory
    """What the runbook says the limit should be."""
    scale_to: int | None = Field(default=None, ge=1)
    """How many replicas the runbook asks for where the pods are healthy; without it nothing is scaled."""


class ScaleTo(Frozen):
    """Set the replicas of a workload."""

    do: Literal["scale"]
    target: WorkloadName
    replicas: int = Field(ge=0)


class SetEnvironment(Frozen):
    """Set environment variables of a container; its workload rolls out by that."""

    do: Literal["set-env"]
    target: WorkloadName
    container: str = Field(min_length=1)
    set: dict[str, str] = Field(min_length=1)


class SetConfig(Frozen):
    """Set keys of a ConfigMap."""

    do: Literal["set-config"]
    configmap: ObjectName
    set: dict[str, str] = Field(min_length=1)


class SetImage(Frozen):
    """Set the image of a container; its workload rolls out by that."""

    do: Literal["set-image"]
    target: WorkloadName
    container: str = Field(min_length=1)
    image: str = Field(min_length=1)


class Restart(Frozen):
    """Restart the pods of a workload, as `kubectl rollout restart` does."""

    do: Literal["restart"]
    target: WorkloadName


class DeleteJobs(Frozen):
    """Delete the Jobs that carry these labels."""

    do: Literal["delete-jobs"]
    labels: dict[str, str] = Field(min_length=1)


class NewKey(Frozen):
    """Put a fresh random key into a Secret. Nobody but the cluster ever holds it."""

    do: Literal["new-key"]
    secret: ObjectName
    key: str = Field(pattern=r"^[-._a-zA-Z0-9]+$")


Step = Annotated[
    RestoreMemoryLimit | ScaleTo | SetEnvironment | SetConfig | SetImage | Restart | DeleteJobs | NewKey,
    Field(discriminator="do"),
]
"""One thing that a runbook tells a responder to do."""


class Response(Frozen):
    """What the automated responder does about one alert."""

    alert: AlertName | None = None
    """Which one; the first expected alert where it is not said."""
    look_at: str
    """The workload whose pods are read first, e.g. "deployment/worker"."""
    when: Condition | None = None
    """What the runbook expects to see before it lets anybody act; where it is not so, nothing is touched."""
    cause: str = ""
    """The root cause that is declared where it is so."""
    steps: tuple[Step, ...] = Field(min_length=1)


class Autopilot(Frozen):
    """How the automated responder paces itself; the steps are those of the runbook."""

    door: Literal["inbox", "silence"] = "inbox"
    """Through which door it acknowledges: a message in the cluster, or a silence in Alertmanager."""
    acknowledge_after: Duration = 2.0
    step: Duration = 1.0
    severity: Severity = "P1"
    escalate: tuple[Name, ...] = ()
    client_notice: str = ""
    responses: tuple[Response, ...] = Field(min_length=1)


class ConditionTuning(Frozen):
    """What a profile may change of a condition: its window and the expression that contains a window."""

    query: str | None = None
    for_: Duration | None = Field(default=None, alias="for")


class AlertTuning(Frozen):
    """What a profile may change of an alert's own conditions."""

    mitigated: ConditionTuning = ConditionTuning()
    recovered: ConditionTuning = ConditionTuning()


class Profile(Frozen):
    """A profile changes timing only: never a fault, an alert, an SLA's bound or a threshold."""

    timeout: Duration
    range: Duration | None = None
    """What `[$range]` in queries stands for: long enough for the scrape interval of the profile's alerting chain."""
    steady_for: Duration | None = None
    mitigated: ConditionTuning = ConditionTuning()
    recovered: ConditionTuning = ConditionTuning()
    alerts: dict[AlertName, AlertTuning] = {}
    """Of alerts that have conditions of their own."""
    responder: ResponderMode = "autopilot"
    autopilot_pace: Duration | None = None


_ALERT_STATES = ("pending", "firing", "paged", "resolved")
RESPONSES = ("acknowledged", "assessed", "client.notified", "root_cause.declared", "fix.applied", "all_clear")
"""What responders do about an incident; each alert has them under its own name too."""
GOALS = ("mitigated", "recovered")
F_co = TypeVar("F_co", bound=FaultSpec, covariant=True)

_FIXED_MILESTONES = frozenset({
    "injected", "pending", "firing", "paged", "acknowledged", "assessed", "root_cause.declared", "fix.applied",
    "client.notified", "mitigated", "recovered", "resolved", "all_clear", "clean",
})  # fmt: skip


class Experiment(Frozen, Generic[F_co]):
    """One experiment file. `self_check` has run: every name that is used is declared."""

    name: Name
    title: str = Field(min_length=1)
    why: Why
    namespace: Name
    narrative: str
    facilitator: Facilitator
    roles: dict[Name, tuple[str, ...]] = {}
    severity: Severity
    signal: Signal
    steady_state: tuple[NamedCondition, ...] = Field(min_length=1)
    faults: tuple[F_co, ...] = ()
    alerts: tuple[ExpectedAlert, ...] = ()
    mitigated: Condition
    recovered: Recovery
    must_hold: tuple[NamedCondition, ...] = ()
    abort: tuple[NamedCondition, ...] = ()
    slas: tuple[Sla, ...] = ()
    runbook: str
    autopilot: Autopilot | None = None
    profiles: dict[ProfileName, Profile] = Field(min_length=1)

    @field_validator("faults")
    @classmethod
    def _each_round(cls, faults: tuple[F_co, ...]) -> tuple[F_co, ...]:
        return tuple(once for fault in faults for once in fault.rounds())

    @model_validator(mode="after")
    def _self_check(self) -> Self:
        problems = [*self._twice(), *self._unknown_names(), *self._pointless(), *self._unordered()]
        if problems:
            raise SelfCheckError(problems)
        return self

    def _twice(self) -> list[tuple[Loc, str]]:
        named: list[tuple[str, str, list[str]]] = [
            ("faults", "id", [fault.id for fault in self.faults]),
            ("alerts", "name", [alert.name for alert in self.alerts]),
            ("steady_state", "name", [condition.name for condition in self.steady_state]),
            ("must_hold", "name", [condition.name for condition in self.must_hold]),
            ("abort", "name", [condition.name for condition in self.abort]),
        ]
        found: list[tuple[Loc, str]] = [
            ((where, index, key), f"{name!r} is used twice in `{where}`; give each its own {key}")
            for where, key, names in named
            for index, name in enumerate(names)
            if name in names[:index]
        ]
        ends = [(sla.from_, sla.to) for sla in self.slas]
        found += [
            (("slas", index), f"{a} to {b} is promised twice; keep one bound")
            for index, (a, b) in enumerate(ends)
            if (a, b) in ends[:index]
        ]
        return found

    def _unknown_names(self) -> list[tuple[Loc, str]]:
        known = self.milestones()
        used: list[tuple[Loc, str]] = [
            (("slas", i, end), name)
            for i, sla in enumerate(self.slas)
            for end, name in (("from", sla.from_), ("to", sla.to))
        ]
        used += [(("alerts", i, "of"), alert.of) for i, alert in enumerate(self.alerts)]
        used += [(("faults", i, "after"), moment(fault.after)[0]) for i, fault in enumerate(self.faults) if fault.after]
        found = [
            (loc, f"no clock produces the milestone {name!r}{closest(name, known)}; known: {', '.join(sorted(known))}")
            for loc, name in used
            if name not in known
        ]
        for i, role in enumerate(self.autopilot.escalate if self.autopilot else ()):
            if role not in self.roles:
                roles = ", ".join(self.roles) or "none"
                found.append((
                    ("autopilot", "escalate", i),
                    f"{role!r} is not a role{closest(role, self.roles)}; declared in `roles`: {roles}",
                ))  # fmt: skip
        causes: list[tuple[Loc, str]] = [(("facilitator", "root_cause", "object"), self.facilitator.root_cause.object)]
        causes += [
            (("facilitator", "of_alerts", name, "object"), cause.object)
            for name, cause in self.facilitator.of_alerts.items()
        ]
        looks: list[tuple[Loc, str]] = [
            (("autopilot", "responses", i, "look_at"), response.look_at)
            for i, response in enumerate(self.autopilot.responses if self.autopilot else ())
        ]
        found += [(loc, _NO_OBJECT.format(text)) for loc, text in causes if not _CAUSE.fullmatch(text)]
        found += [(loc, _NO_OBJECT.format(text)) for loc, text in looks if not _OBJECT.fullmatch(text)]
        return [*found, *self._unknown_alerts()]

    def _unknown_alerts(self) -> list[tuple[Loc, str]]:
        names = [alert.name for alert in self.alerts]
        used: list[tuple[Loc, str]] = [
            (("facilitator", "of_alerts", name), name) for name in self.facilitator.of_alerts
        ]
        used += [
            (("autopilot", "responses", i, "alert"), response.alert)
            for i, response in enumerate(self.autopilot.responses if self.autopilot else ())
            if response.alert is not None
        ]
        used += [
            (("profiles", profile, "alerts", name), name)
            for profile, tuning in self.profiles.items()
            for name in tuning.alerts
        ]
        found = [
            (loc, f"{name!r} is not expected{closest(name, names)}; declared in `alerts`: {', '.join(names) or 'none'}")
            for loc, name in used
            if name not in names
        ]
        for profile, tuning in self.profiles.items():
            for name, tuned in tuning.alerts.items():
                found += [
                    (("profiles", profile, "alerts", name, goal), f"{name} declares no `{goal}` that could be tuned")
                    for goal in GOALS
                    if getattr(tuned, goal) != ConditionTuning()
                    and any(alert.name == name and getattr(alert, goal) is None for alert in self.alerts)
                ]
        return found

    def _pointless(self) -> list[tuple[Loc, str]]:
        found: list[tuple[Loc, str]] = []
        if self.faults and not self.slas:
            found.append((("slas",), "something is broken, but nothing is promised; write at least one SLA"))
        if not self.faults and not self.must_hold:
            found.append((("must_hold",), "nothing is broken; write in `must_hold` what has to hold all the same"))
        if self.alerts and not self.faults:
            found.append((("alerts",), "alerts are expected but no fault is declared that could raise them"))
        first = self.alerts[0] if self.alerts else None
        found += [
            (("alerts", 0, goal), f"the first alert's is the experiment's own `{goal}`; write it there")
            for goal in (*GOALS, "signal")
            if first is not None and getattr(first, goal) is not None
        ]
        answered = [response.alert or (first.name if first else "") for response in self.autopilot.responses] if (
            self.autopilot
        ) else []  # fmt: skip
        found += [
            (("autopilot", "responses", i), f"{name} is answered twice; keep one response")
            for i, name in enumerate(answered)
            if name in answered[:i]
        ]
        found += [
            (
                ("autopilot", "responses", i, "steps"),
                "restore-memory-limit decides what to do; write it as the only step",
            )
            for i, response in enumerate(self.autopilot.responses if self.autopilot else ())
            if len(response.steps) > 1 and any(isinstance(step, RestoreMemoryLimit) for step in response.steps)
        ]
        for i, sla in enumerate(self.slas):
            if sla.from_ == sla.to:
                found.append((("slas", i, "to"), f"an SLA needs two different ends; both are {sla.to}"))
            if sla.within <= 0:
                found.append((("slas", i, "within"), "nothing can be done within no time; write a bound above 0s"))
        found += [
            (("alerts", i, "within"), "no alert fires within no time; write a bound above 0s")
            for i, alert in enumerate(self.alerts)
            if alert.within <= 0
        ]
        for name, profile in self.profiles.items():
            if profile.timeout <= 0:
                found.append((("profiles", name, "timeout"), "a run of no time sees nothing; write a timeout above 0s"))
            if profile.responder == "autopilot" and self.autopilot is None:
                found.append((
                    ("profiles", name),
                    "the responder is the autopilot, but `autopilot` is missing; add it or write responder: human",
                ))  # fmt: skip
        return found

    def _unordered(self) -> list[tuple[Loc, str]]:
        """Faults that are told to wait for two things, or for something that only they bring about."""
        found: list[tuple[Loc, str]] = []
        for i, fault in enumerate(self.faults):
            if fault.after is None:
                continue
            if fault.at:
                found.append((("faults", i, "after"), "a fault has one time; keep one of `at` and `after`"))
            waiting = self._way_to(f"{fault.id}.injected", moment(fault.after)[0])
            if waiting:
                chain = [name.partition(".")[0] for name in waiting if name.endswith(".injected")]
                words = " waits for ".join([fault.id, *chain])
                found.append((("faults", i, "after"), f"{words}: none of them would ever be injected"))
        return found

    def _way_to(self, wanted: str, name: str, seen: frozenset[str] = frozenset()) -> tuple[str, ...]:
        """The milestones from `name` to `wanted`, each of which waits for the next; none where it does not wait for it
        in the end."""
        if name == wanted:
            return (name,)
        ways = (self._way_to(wanted, one, seen | {name}) for one in self.waits_for(name) if one not in seen)
        return next(((name, *way) for way in ways if way), ())

    def waits_for(self, name: str) -> tuple[str, ...]:
        """The milestones without which the one called `name` cannot come. The plain names are those of the first
        alert, and are answered as its own."""
        first = self.alerts[0].name if self.alerts else ""
        for alert in self.alerts:
            match name.removeprefix(f"{alert.name}."):
                case what if what == name:
                    continue
                case "pending":
                    return (alert.of,)
                case "firing":
                    return (f"{alert.name}.pending",)
                case _:
                    return (f"{alert.name}.firing",)
        for fault in self.faults:
            if name == f"{fault.id}.injected":
                return (moment(fault.after)[0],) if fault.after else ()
            if name == f"{fault.id}.effective":
                return (f"{fault.id}.injected",)
        if name == "injected":
            at_once = next((fault for fault in self.faults if fault.after is None), None)
            return tuple(f"{fault.id}.injected" for fault in ([at_once] if at_once else self.faults))
        if name == "all_clear":
            return tuple(f"{alert.name}.all_clear" for alert in self.alerts)
        if name.partition(".")[0] in self.roles:
            return (f"{first}.firing",) if len(self.alerts) == 1 else ()
        return (f"{first}.{name}",) if first and name != "clean" else ()

    def milestones(self) -> frozenset[str]:
        """Every milestone name that a run of this experiment can produce."""
        roles = {f"{role}.{what}" for role in self.roles for what in ("paged", "joined")}
        faults = {f"{fault.id}.{what}" for fault in self.faults for what in ("injected", "effective")}
        alerts = {f"{alert.name}.{what}" for alert in self.alerts for what in (*_ALERT_STATES, *RESPONSES)}
        goals = {f"{alert.name}.{goal}" for alert in self.alerts for goal in GOALS if self.goal(alert.name, goal)}
        return _FIXED_MILESTONES | roles | faults | alerts | goals

    def goal(self, alert: str, what: str) -> Condition | None:
        """The condition by which an alert's incident is `mitigated` or `recovered`: the first alert's is the
        experiment's, another's its own; None where it has none."""
        found: Condition | None = None
        for index, one in enumerate(self.alerts):
            if one.name == alert:
                found = getattr(self if index == 0 else one, what)
        return found

    def restart_proofs(self) -> dict[str, RestartProof]:
        """What the recovery of an alert's incident must outlast, by alert, where it must."""
        goals = {alert.name: self.goal(alert.name, "recovered") for alert in self.alerts}
        return {
            alert: goal.restart_proof
            for alert, goal in goals.items()
            if isinstance(goal, Recovery) and goal.restart_proof is not None
        }

    def profile(self, name: ProfileName) -> Profile:
        """The profile called `name`. Raises KeyError where the file has none."""
        return self.profiles[name]

    def tuned(self, name: ProfileName) -> Self:
        """This experiment with the profile's windows, range and pace applied."""
        profile = self.profiles[name]
        steady = tuple(
            c if profile.steady_for is None else c.model_copy(update={"for_": profile.steady_for})
            for c in self.steady_state
        )
        tuned = self.model_copy(update={
            "faults": tuple(fault.tuned(profile.timeout) for fault in self.faults),
            "steady_state": steady,
            "mitigated": _tuned(self.mitigated, profile.mitigated),
            "recovered": _tuned(self.recovered, profile.recovered),
            "alerts": tuple(_tuned_alert(alert, profile.alerts.get(alert.name)) for alert in self.alerts),
            "autopilot": _paced(self.autopilot, profile.autopilot_pace),
        })  # fmt: skip
        return tuned if profile.range is None else _ranged(tuned, format_duration(profile.range))

    def fault(self, fault_id: str) -> F_co:
        """The declared fault called `fault_id`."""
        return next(fault for fault in self.faults if fault.id == fault_id)

    def as_data(self) -> dict[str, Any]:
        """The experiment as JSON-able data, with units as they are written in files."""
        return self.model_dump(mode="json", by_alias=True)

    def digest(self) -> str:
        """SHA-256 over the canonical form: thresholds cannot be moved afterwards without changing it."""
        return digest_of(self.as_data())


def renewed(data: Mapping[str, Any]) -> dict[str, Any]:
    """The data of an experiment that an older version wrote, in today's words: the autopilot of version 0.1 had the
    one fix that there was, beside its paces."""
    autopilot = data.get("autopilot")
    if not isinstance(autopilot, dict) or "fix" not in autopilot:
        return dict(data)
    kept = {key: value for key, value in autopilot.items() if key not in {"look_at", "fix", "limit", "scale_to"}}
    step = {"do": autopilot["fix"], "limit": autopilot.get("limit"), "scale_to": autopilot.get("scale_to")}
    return {**data, "autopilot": {**kept, "responses": [{"look_at": autopilot.get("look_at"), "steps": [step]}]}}


def digest_of(data: Mapping[str, Any]) -> str:
    """The digest of an experiment that is already data, as a journal holds it."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


_RANGE = re.compile(r"\[\s*\$range\s*(?=[\]:])")
T = TypeVar("T")


def _ranged(said: T, text: str) -> T:
    """A model, or what is in one, whose queries have a range for `[$range]`. Profiles, a mapping, stay as declared."""
    if isinstance(said, BaseModel):
        changes = {
            name: _RANGE.sub(f"[{text}", value) if name == "query" and isinstance(value, str) else _ranged(value, text)
            for name, value in said
        }
        return said.model_copy(update=changes)
    return tuple(_ranged(one, text) for one in said) if isinstance(said, tuple) else said  # type: ignore[return-value]


def _tuned(condition: Condition, tuning: ConditionTuning) -> Condition:
    changes = {key: value for key, value in (("query", tuning.query), ("for_", tuning.for_)) if value is not None}
    return condition.model_copy(update=changes)


def _tuned_alert(alert: ExpectedAlert, tuning: AlertTuning | None) -> ExpectedAlert:
    if tuning is None:
        return alert
    own = ((goal, getattr(alert, goal), getattr(tuning, goal)) for goal in GOALS)
    return alert.model_copy(update={goal: _tuned(have, tuned) for goal, have, tuned in own if have is not None})


def _paced(autopilot: Autopilot | None, pace: float | None) -> Autopilot | None:
    return autopilot if autopilot is None or pace is None else autopilot.model_copy(update={"step": pace})


def closest(name: str, known: Iterable[str]) -> str:
    """The question `did you mean ...?`, ready to be appended, where a known name is close to `name`; else ""."""
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean `{near[0]}`?" if near else ""


AnyExperiment = Experiment[FaultSpec]

_OBJECT = re.compile(r"^(deployment|statefulset|secret|configmap)/([a-z0-9.-]+)$")
_CAUSE = re.compile(r"^[a-z]([-.a-z0-9]*[a-z0-9])?/[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")
"""A root cause may be any object: a Service, a Job, what another chaos engine made."""
_NO_OBJECT = "{!r} is not kind/name; write for example deployment/worker"


def split_object(text: str) -> tuple[str, str]:
    """("deployment", "worker") of "deployment/worker". Raises ValueError."""
    match = _OBJECT.fullmatch(text)
    if match is None:
        raise ValueError(_NO_OBJECT.format(text))
    return match[1], match[2]
