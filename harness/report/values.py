"""What a report holds: plain frozen values, all of them computed from one journal.

Formats render these and compute nothing. `evidence` holds sequence numbers of journal events. `who` tells a person
from a program; it is never left out where a human milestone is shown.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from harness.core.clock import Bounds, Instant
from harness.core.errors import ExitCode
from harness.report.wording import clean

Who = Literal["human", "automation", "machine", ""]
Severity = Literal["critical", "important", "minor", "note"]
SEVERITIES: tuple[Severity, ...] = ("critical", "important", "minor", "note")


@dataclass(frozen=True, slots=True)
class Header:
    """Which run this is."""

    title: str
    experiment: str
    run_id: str
    profile: str
    responder: str
    automated: bool
    cluster: tuple[tuple[str, str], ...]
    namespace: str
    severity: str
    started: Instant
    ended: Instant | None
    end_reason: str
    end_detail: str
    ended_by: str
    planned: float | None
    actual: float
    digest: str
    harness_version: str
    journal_head: str
    """The digest of the journal's last line, which stands for all of it; "" where the journal is not chained."""
    identity: str
    experiment_file: str
    runbook: str
    probability: str
    tests: tuple[str, ...]
    narrative: tuple[str, ...]
    root_cause_object: str
    root_cause_reason: str


@dataclass(frozen=True, slots=True)
class Headline:
    """The verdict in one sentence. `caveat` is what must be read with it, or empty."""

    verdict: str
    sentence: str
    caveat: str
    exit_code: int
    exit_meaning: str


@dataclass(frozen=True, slots=True)
class SlaRow:
    """One promise with what was measured. `who_text` spells out who brought its end about."""

    name: str
    from_: str
    to: str
    target: float
    measured: Bounds | None
    verdict: str
    required: bool
    who: Who
    who_text: str
    reason: str
    evidence: tuple[int, ...]
    cut_short: bool
    """Not reached, in a run that was cut short or whose fault was never proved: it says nothing of the people."""


@dataclass(frozen=True, slots=True)
class GuardRow:
    """One condition that had to hold all through."""

    name: str
    condition: str
    verdict: str
    reason: str
    evidence: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """One stretch of the alerting chain: what the configuration allows beside what was measured."""

    from_: str
    to: str
    theory: Bounds | None
    measured: Bounds | None
    evidence: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Chain:
    """The alerting chain of one alert. `knobs` in seconds; `dominant` names the largest."""

    alert: str
    group: str
    file: str
    query: str
    receiver: str
    runbook_url: str
    labels: tuple[tuple[str, str], ...]
    knobs: tuple[tuple[str, float], ...]
    dominant: str
    floor: Bounds
    windows: tuple[Window, ...]
    evidence: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Moment:
    """One line of the timeline. Offsets are in seconds, from the middle of one interval to the middle of another."""

    at: Bounds
    name: str
    is_milestone: bool
    detail: str
    source: str
    who: Who
    who_text: str
    actor: str
    from_firing: float | None
    from_injection: float | None
    evidence: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ChangeMade:
    """One value that a fault changed, and whether it is back."""

    fault: str
    kind: str
    object: str
    path: str
    before: str
    after: str
    undo: str
    undo_detail: str
    evidence: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Clean:
    """The last comparison with the snapshots. `clean` is None where there was none."""

    clean: bool | None
    differences: tuple[str, ...]
    evidence: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """One preflight check."""

    name: str
    ok: bool
    fact: str
    expected: str
    remedy: str
    evidence: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ClockRow:
    """A peer's clock against ours, in seconds."""

    peer: str
    offset: Bounds
    method: str
    evidence: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Phase:
    """How long a part of the set-up took."""

    name: str
    seconds: float
    evidence: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule has to say. `rule` is stable and machine-readable."""

    rule: str
    severity: Severity
    title: str
    detail: str
    evidence: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """A horizontal line of the chart."""

    value: float
    label: str
    kind: Literal["recovered", "alert"]


@dataclass(frozen=True, slots=True)
class Band:
    """A stretch of time on a lane of the chart, in seconds from the chart's zero."""

    lane: str
    label: str
    kind: Literal["fault", "pending", "firing"]
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Marker:
    """A milestone on the chart."""

    at: float
    label: str
    who: Who


@dataclass(frozen=True, slots=True)
class Chart:
    """The drawn curve. Times are seconds from `zero`; a None breaks the line."""

    title: str
    unit: str
    zero: str
    start: float
    end: float
    points: tuple[tuple[float, float | None], ...]
    lines: tuple[Line, ...]
    bands: tuple[Band, ...]
    markers: tuple[Marker, ...]
    ready: tuple[tuple[float, int, int], ...]
    """(time, ready pods, pods) at each change."""
    wanted: int
    """How many pods there were when they were first seen, before any fault."""
    evidence: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """One cited event of the journal."""

    seq: int
    at: Instant
    type: str
    text: str


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that any format shows."""

    header: Header
    headline: Headline
    slas: tuple[SlaRow, ...]
    alerts: tuple[SlaRow, ...]
    guards: tuple[GuardRow, ...]
    chains: tuple[Chain, ...]
    timeline: tuple[Moment, ...]
    chart: Chart | None
    incident_charts: tuple[Chart, ...]
    """Of the alerts that declare a signal of their own."""
    changes: tuple[ChangeMade, ...]
    clean: Clean
    findings: tuple[Finding, ...]
    checks: tuple[Check, ...]
    clocks: tuple[ClockRow, ...]
    phases: tuple[Phase, ...]
    evidence: tuple[Evidence, ...]

    @property
    def charts(self) -> tuple[Chart, ...]:
        """All that is drawn, the experiment's own first."""
        return (*filter(None, [self.chart]), *self.incident_charts)

    @property
    def exit_code(self) -> ExitCode:
        """What the process that judges this run ends with."""
        return ExitCode(self.headline.exit_code)


V = TypeVar("V")


def cleaned(value: V) -> V:
    """`value` with every text in it cleaned (see `wording.clean`), all the way down."""
    plain: Any = value
    if isinstance(plain, str):
        plain = clean(plain)
    elif isinstance(plain, tuple):
        plain = tuple(cleaned(item) for item in plain)
    elif dataclasses.is_dataclass(plain) and not isinstance(plain, type):
        changed = {field.name: cleaned(getattr(plain, field.name)) for field in dataclasses.fields(plain)}
        plain = dataclasses.replace(plain, **changed)
    return plain  # type: ignore[no-any-return]
