"""What an experiment file says, as frozen values that are checked against themselves.

The core knows the shape of every experiment and nothing of any particular fault: `Experiment` is generic in its
fault specs, and the catalog closes it over the faults that exist. Field names are the field's standard terms; every
duration in a file names its two ends.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from harness.core.quantity import Duration

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]
"""A DNS-safe short name: it becomes part of object names and of paths."""
AlertName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,80}$")]
MilestoneName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_-]*(\.[a-z_]+)?$")]
Severity = Literal["P1", "P2", "P3", "P4"]
ProfileName = Literal["smoke", "gameday"]
ResponderMode = Literal["autopilot", "human"]


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
    below: float | None = None
    above: float | None = None
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


class NamedCondition(Condition):
    """A condition that the report calls by a name."""

    name: str = Field(min_length=1)


class Signal(Frozen):
    """The curve that the live view and the report draw."""

    query: str = Field(min_length=1)
    title: str
    unit: str = ""


class BlastRadius(Frozen):
    """The declared maximum of what a fault may touch, enforced against the live cluster before the first write."""

    pods: int = Field(ge=1)
    objects: int = Field(default=1, ge=1)


class FaultSpec(Frozen):
    """What every fault in a file has; each fault's own spec adds its parameters and a literal `kind`."""

    id: Name
    kind: str
    blast_radius: BlastRadius


class ExpectedAlert(Frozen):
    """An alert that must fire, by when, counted from which milestone."""

    name: AlertName
    within: Duration
    of: MilestoneName


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


class Autopilot(Frozen):
    """How the automated responder paces itself; the steps are those of the runbook."""

    acknowledge_after: Duration = 2.0
    step: Duration = 1.0
    severity: Severity = "P1"
    escalate: tuple[Name, ...] = ()
    client_notice: str = ""
    look_at: str
    """The workload whose pods are read first, e.g. "deployment/worker"."""
    fix: Literal["restore-memory-limit"]
    limit: str
    """What the runbook says the limit should be."""


class ConditionTuning(Frozen):
    """What a profile may change of a condition: its window and the expression that contains a window."""

    query: str | None = None
    for_: Duration | None = Field(default=None, alias="for")


class Profile(Frozen):
    """A profile changes timing only: never a fault, an alert, an SLA's bound or a threshold."""

    timeout: Duration
    steady_for: Duration | None = None
    mitigated: ConditionTuning = ConditionTuning()
    recovered: ConditionTuning = ConditionTuning()
    responder: ResponderMode = "autopilot"
    autopilot_pace: Duration | None = None


F_co = TypeVar("F_co", bound=FaultSpec, covariant=True)

_FIXED_MILESTONES = frozenset({
    "injected", "pending", "firing", "paged", "acknowledged", "assessed", "root_cause.declared", "fix.applied",
    "client.notified", "mitigated", "recovered", "resolved", "all_clear", "clean",
})  # fmt: skip


class Experiment(Frozen, Generic[F_co]):
    """One experiment file. `self_check` has run: every name that is used is declared."""

    name: Name
    title: str
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
    recovered: Condition
    must_hold: tuple[NamedCondition, ...] = ()
    abort: tuple[NamedCondition, ...] = ()
    slas: tuple[Sla, ...] = Field(min_length=1)
    runbook: str
    autopilot: Autopilot | None = None
    profiles: dict[ProfileName, Profile] = Field(min_length=1)

    @model_validator(mode="after")
    def _self_check(self) -> Self:
        ids = [fault.id for fault in self.faults]
        if len(set(ids)) != len(ids):
            raise ValueError(f"fault ids must differ; found {', '.join(sorted(ids))}")
        if self.alerts and not self.faults:
            raise ValueError("alerts are expected but no fault is declared that could raise them")
        known = self.milestones()
        used = [(f"slas.{i}.{end}", name) for i, sla in enumerate(self.slas)
                for end, name in (("from", sla.from_), ("to", sla.to))]  # fmt: skip
        used += [(f"alerts.{i}.of", alert.of) for i, alert in enumerate(self.alerts)]
        for where, name in used:
            if name not in known:
                raise ValueError(
                    f"{where}: no clock produces the milestone {name!r}; known: {', '.join(sorted(known))}"
                )
        if any(sla.from_ == sla.to for sla in self.slas):
            raise ValueError("an SLA needs two different ends")
        return self

    def milestones(self) -> frozenset[str]:
        """Every milestone name that a run of this experiment can produce."""
        roles = {f"{role}.{what}" for role in self.roles for what in ("paged", "joined")}
        faults = {f"{fault.id}.{what}" for fault in self.faults for what in ("injected", "effective")}
        alerts = {
            f"{alert.name}.{what}" for alert in self.alerts for what in ("pending", "firing", "paged", "resolved")
        }
        return _FIXED_MILESTONES | roles | faults | alerts

    def profile(self, name: ProfileName) -> Profile:
        """The profile called `name`. Raises KeyError where the file has none."""
        return self.profiles[name]

    def tuned(self, name: ProfileName) -> Self:
        """This experiment with the profile's windows applied."""
        profile = self.profiles[name]
        steady = tuple(
            c if profile.steady_for is None else c.model_copy(update={"for_": profile.steady_for})
            for c in self.steady_state
        )
        return self.model_copy(update={
            "steady_state": steady,
            "mitigated": _tuned(self.mitigated, profile.mitigated),
            "recovered": _tuned(self.recovered, profile.recovered),
        })  # fmt: skip

    def fault(self, fault_id: str) -> F_co:
        """The declared fault called `fault_id`."""
        return next(fault for fault in self.faults if fault.id == fault_id)

    def as_data(self) -> dict[str, Any]:
        """The experiment as JSON-able data, with units as they are written in files."""
        return self.model_dump(mode="json", by_alias=True)

    def digest(self) -> str:
        """SHA-256 over the canonical form: thresholds cannot be moved afterwards without changing it."""
        canonical = json.dumps(self.as_data(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def _tuned(condition: Condition, tuning: ConditionTuning) -> Condition:
    changes = {key: value for key, value in (("query", tuning.query), ("for_", tuning.for_)) if value is not None}
    return condition.model_copy(update=changes)


AnyExperiment = Experiment[FaultSpec]

_OBJECT = re.compile(r"^(deployment|statefulset|secret|configmap)/([a-z0-9.-]+)$")


def split_object(text: str) -> tuple[str, str]:
    """("deployment", "worker") of "deployment/worker". Raises ValueError."""
    match = _OBJECT.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not kind/name; write for example deployment/worker")
    return match[1], match[2]
