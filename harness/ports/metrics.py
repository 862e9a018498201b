"""Prometheus, Alertmanager and the pager as the harness needs them. All stamps are the peer's own, in UTC epoch
seconds; `offset` tells how the peer's clock relates to ours. Every call is bounded in time and raises Unreachable
with what was asked and what came instead; an empty answer is an empty list, never an error and never a zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from harness.core.clock import Bounds, Instant


@dataclass(frozen=True, slots=True)
class Series:
    """Raw or gridded samples of one label set, oldest first."""

    labels: Mapping[str, str]
    samples: tuple[tuple[Instant, float], ...]


@dataclass(frozen=True, slots=True)
class ActiveAlert:
    """One active instance of an alerting rule. `active_at` is the evaluation that first saw it."""

    labels: Mapping[str, str]
    state: Literal["pending", "firing"]
    active_at: Instant
    value: float


@dataclass(frozen=True, slots=True)
class Rule:
    """A loaded alerting rule with its group. Durations in seconds."""

    alert: str
    group: str
    file: str
    query: str
    for_seconds: float
    interval: float
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    health: str
    last_error: str
    state: Literal["inactive", "pending", "firing"]
    last_evaluation: Instant | None
    active: tuple[ActiveAlert, ...]


class Metrics(Protocol):
    """Prometheus' HTTP API v1."""

    def ready(self) -> str:
        """The version, when it is ready to answer queries."""

    def started_at(self) -> Instant:
        """When the process started: a change during a run means a restart."""

    def offset(self) -> Bounds:
        """Bounds on (Prometheus' clock - ours), from an instant query of time() and its round trip."""

    def vector(self, query: str, at: Instant | None = None) -> list[Series]:
        """An instant query; each series has exactly one sample. A scalar answers as one series without labels.
        Raises BadInput where PromQL refuses the expression."""

    def grid(self, query: str, start: Instant, end: Instant, step: float) -> list[Series]:
        """A range query on whole seconds. Staleness is Prometheus' own: a gap is a missing sample."""

    def raw(self, selector: str, window: float) -> list[Series]:
        """The raw samples of a plain selector over the last `window` seconds, at their own stamps (a range
        selector in an instant query: no step, no grid, no rounding)."""

    def rules(self) -> list[Rule]:
        """All loaded alerting rules."""

    def scrape_intervals(self) -> dict[str, float]:
        """Seconds by scrape pool, of the active targets."""

    def notified(self) -> list[str]:
        """The URLs of the Alertmanagers to which alerts are sent."""


@dataclass(frozen=True, slots=True)
class NotifierAlert:
    """An alert as Alertmanager holds it. `state` is unprocessed, active or suppressed."""

    fingerprint: str
    labels: Mapping[str, str]
    starts_at: Instant
    ends_at: Instant
    state: str
    silenced_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Matcher:
    """One matcher of a silence."""

    name: str
    value: str
    is_regex: bool = False
    is_equal: bool = True


@dataclass(frozen=True, slots=True)
class Silence:
    """A silence. `state` is pending, active or expired."""

    id: str
    matchers: tuple[Matcher, ...]
    starts_at: Instant
    ends_at: Instant
    updated_at: Instant
    created_by: str
    comment: str
    state: str


@dataclass(frozen=True, slots=True)
class Route:
    """Where an alert with given labels goes, and how long it waits. Seconds. `through` are the ways on which the
    receiver tells people ("webhook", "pagerduty"): none means that nobody is told, None that it is not known."""

    receiver: str
    group_wait: float
    group_interval: float
    through: tuple[str, ...] | None = None


class Notifier(Protocol):
    """Alertmanager's API v2."""

    def ready(self) -> str:
        """The version."""

    def offset(self) -> Bounds:
        """Bounds on (Alertmanager's clock - ours), from HTTP Date."""

    def alerts(self, name: str) -> list[NotifierAlert]:
        """Alerts with that alertname, active and suppressed."""

    def silences(self) -> list[Silence]:
        """All silences that Alertmanager remembers."""

    def silence(self, matchers: Sequence[Matcher], *, author: str, comment: str, seconds: float) -> str:
        """Create a silence from now on; its id."""

    def expire(self, silence_id: str) -> None:
        """End a silence now; ending an ended one is fine."""

    def route(self, labels: Mapping[str, str]) -> Route:
        """The first matching route of the configuration for these labels, with inherited timing and the ways of its
        receiver."""


@dataclass(frozen=True, slots=True)
class Notification:
    """One alert of one webhook that reached the pager."""

    seq: int
    received_at: Instant
    receiver: str
    status: Literal["firing", "resolved"]
    labels: Mapping[str, str]
    starts_at: Instant
    fingerprint: str


class Pager(Protocol):
    """What stands for the pager."""

    def offset(self) -> Bounds:
        """Bounds on (the pager's clock - ours)."""

    def notifications(self, since: int) -> list[Notification]:
        """Everything received with a sequence number above `since`."""
