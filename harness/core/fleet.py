"""What a fleet's file says: which experiment is drilled on which cluster, all of them at the same time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from harness.core.address import Address, AddressOrNone
from harness.core.experiment import Frozen, Loc, Name, ProfileName, ResponderMode, SelfCheckError
from harness.core.quantity import Duration

MOST_TARGETS = 100
"""Each is watched on threads of its own."""
ClusterName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]


class Target(Frozen):
    """One drill of the fleet: an experiment and its cluster. Exactly one of `context`, `local` and `kind`."""

    name: Name
    experiment: str = Field(min_length=1)
    """The name of one that ships, or the path of a file, which starts beside this one."""
    context: str | None = Field(default=None, min_length=1)
    kubeconfig: str | None = Field(default=None, min_length=1)
    local: ClusterName | None = None
    kind: ClusterName | None = None
    profile: ProfileName | None = None
    responder: ResponderMode | None = None
    prometheus: Address | None = None
    alertmanager: Address | None = None
    pager: AddressOrNone | None = None

    @model_validator(mode="after")
    def _one_cluster(self) -> Self:
        if sum(one is not None for one in (self.context, self.local, self.kind)) != 1:
            raise ValueError("a target is on one cluster; write exactly one of `context`, `local` and `kind`")
        if self.kubeconfig is not None and self.context is None:
            raise ValueError("`kubeconfig` says where a `context` is found, and has no meaning without one")
        return self


class Fleet(Frozen):
    """One file: the targets, and what holds for those that do not say otherwise."""

    targets: tuple[Target, ...] = Field(min_length=1, max_length=MOST_TARGETS)
    profile: ProfileName = "smoke"
    responder: ResponderMode | None = None
    start_within: Duration = Field(default=120.0, gt=0)
    """How long a cluster has to start a drill's pod, its image pulled. One that does not is left alone."""

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        names = [target.name for target in self.targets]
        twice: list[tuple[Loc, str]] = [
            (("targets", index, "name"), f"another target is called {name}; give each a name of its own")
            for index, name in enumerate(names)
            if name in names[:index]
        ]
        if twice:
            raise SelfCheckError(twice)
        return self


@dataclass(frozen=True, slots=True)
class Ground:
    """What a target needs for itself alone. `cluster` and `prometheus` are whatever tells them apart."""

    target: str
    cluster: str
    namespace: str
    prometheus: str
    alerts: tuple[str, ...]


def collisions(grounds: Iterable[Ground]) -> list[str]:
    """Why targets cannot be drilled at the same time, a sentence each: a namespace holds one drill, and an alert that
    fires for two says of neither when it began."""
    found: list[str] = []
    seen: list[Ground] = []
    for one in grounds:
        for other in seen:
            if one.cluster != other.cluster:
                continue
            if one.namespace == other.namespace:
                found.append(f"{other.target} and {one.target} both drill namespace {one.namespace} of one cluster")
            elif one.prometheus == other.prometheus and (both := sorted({*one.alerts} & {*other.alerts})):
                found.append(
                    f"{other.target} and {one.target} both wait for the alert {both[0]} of one Prometheus, which tells "
                    "them apart by its name only"
                )
        seen.append(one)
    return found
