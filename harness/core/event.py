"""The closed set of facts that a journal can hold, and their JSON form.

An event says what was seen or done, never what it means: milestones, verdicts and reports are computed from events
by pure functions and can be computed again. Instants are on the run's clock (see `clock`); facts that another
machine stamped are journalled with bounds on our clock, and with the raw stamp in `evidence`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, TypeAdapter

from harness.core.clock import Bounds, Instant, dated, parse_utc, utc
from harness.core.inert import escaped

SCHEMA_VERSION = 2
CHAINED_SINCE = 2
"""The schema version from which on every line carries the digest of the line before."""
NOTHING_BEFORE = "0" * 64
"""What a journal's first line carries in place of a digest."""
RUN_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[a-z0-9-]{1,40}-[0-9a-f]{4}")
"""What a run is called: when it began, its experiment, four digits. It becomes part of paths and of object names."""


def _no_nan(value: object) -> object:
    return None if isinstance(value, float) and math.isnan(value) else value


def _plain_number(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)


def _dated(at: Bounds) -> Bounds:
    dated(at.earliest)
    dated(at.latest)
    return at


Dated = Annotated[Instant, AfterValidator(dated)]
"""An instant that a report can show."""
When = Annotated[Bounds, AfterValidator(_dated)]
"""An interval between two of them."""
_Infinite = Annotated[float, Field(allow_inf_nan=True)]
Sample = Annotated[_Infinite | None, BeforeValidator(_no_nan), PlainSerializer(_plain_number, when_used="json")]
"""A measured value, or None where there was none. Prometheus' NaN (0/0) says that there was none; its infinities are
values, written as strings because JSON has no number for them."""


class Fact(BaseModel):
    """The manner of every event."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Change(Fact):
    """One value of one object, before and after."""

    object: str
    path: str
    before: Any
    after: Any


class PodState(Fact):
    """What one pod shows of its main container. `oom_killed_at` is the kubelet's whole-second stamp."""

    name: str
    uid: str
    ready: bool
    restarts: int
    waiting: str = ""
    oom_kills: int = 0
    oom_killed_at: Dated | None = None
    memory_limit: str = ""
    image: str = ""
    template: str = ""
    """Which version of its controller's pod template it was made from, as that names it."""
    leaving: bool = False
    """Whether it is being deleted: it may finish its work, and gets no more."""


class RunStarted(Fact):
    """First event of every journal: everything that judging needs."""

    type: Literal["run.started"] = "run.started"
    schema_version: int = SCHEMA_VERSION
    run_id: str
    experiment: dict[str, Any]
    experiment_path: str
    digest: str
    profile: str
    responder: str
    harness_version: str
    cluster: dict[str, str]
    identity: str


class PhaseTimed(Fact):
    """How long a part of the set-up took, in seconds."""

    type: Literal["phase.timed"] = "phase.timed"
    phase: str
    seconds: float


class ClockCompared(Fact):
    """Bounds on (the peer's clock - ours), in seconds, and how it was measured."""

    type: Literal["clock.compared"] = "clock.compared"
    peer: str
    offset: Bounds
    method: str


class CheckDone(Fact):
    """One preflight check. `warning` is what the check lets pass and people should know all the same."""

    type: Literal["check.done"] = "check.done"
    name: str
    ok: bool
    fact: str
    warning: str = ""
    slug: str = ""
    expected: str = ""
    remedy: str = ""


class AlertingRead(Fact):
    """The alerting chain as it is configured: the fingerprint under which times may be compared. Seconds."""

    type: Literal["alerting.read"] = "alerting.read"
    alert: str
    group: str
    file: str
    query: str
    for_seconds: float = Field(ge=0)
    evaluation_interval: float = Field(ge=0)
    scrape_interval: float = Field(ge=0)
    group_wait: float | None = Field(ge=0)
    group_interval: float | None = Field(ge=0)
    receiver: str
    labels: dict[str, str]
    runbook_url: str
    floor: Bounds
    """Theoretical bounds of symptom -> firing under this configuration."""


class InjectionPlanned(Fact):
    """What will be changed and how it will be undone, before anything is. `undo` is plain data."""

    type: Literal["injection.planned"] = "injection.planned"
    fault: str
    kind: str
    summary: str
    changes: tuple[Change, ...]
    undo: dict[str, Any]


class UndoStored(Fact):
    """The undo record is durable in the cluster."""

    type: Literal["undo.stored"] = "undo.stored"
    fault: str
    where: str


class InjectStarted(Fact):
    """The write is about to be sent; from here on the fault counts as open until it is undone."""

    type: Literal["inject.started"] = "inject.started"
    fault: str


class InjectDone(Fact):
    """How the write ended. `unknown` (a lost reply, or only some of several writes landed) counts as injected and is
    undone. `deleted` are the uids of what it surely deleted."""

    type: Literal["inject.done"] = "inject.done"
    fault: str
    outcome: Literal["done", "failed", "unknown"]
    at: When
    detail: str = ""
    deleted: tuple[str, ...] = ()


class PodsSeen(Fact):
    """All pods of a fault's target after a change, as the watch told it."""

    type: Literal["pods.seen"] = "pods.seen"
    fault: str
    pods: tuple[PodState, ...]


class ObjectSeen(Fact):
    """One object in which a fault's effect shows, after a change of what is looked at, as the watch told it. `uid` is
    empty where the object is not there."""

    type: Literal["object.seen"] = "object.seen"
    fault: str
    object: str
    uid: str = ""
    leaving: bool = False
    """Whether it is being deleted."""
    fields: dict[str, Any] = {}
    """What it holds at the paths that the fault looks at; nothing for a path that leads nowhere."""


class FaultEnded(Fact):
    """A fault is not in force any more although nobody undid it: what it does ended by itself."""

    type: Literal["fault.ended"] = "fault.ended"
    fault: str
    detail: str


class EffectProved(Fact):
    """The fault does what it was meant to do; `evidence` are sequence numbers of the events that prove it."""

    type: Literal["effect.proved"] = "effect.proved"
    fault: str
    at: When
    proof: str
    evidence: tuple[int, ...]


class RestartPlanned(Fact):
    """A recovery is about to be put to the test: these pods of a workload will be restarted, one at a time. `detail`
    says why none can be, where none can."""

    type: Literal["restart.planned"] = "restart.planned"
    alert: str
    workload: str
    selector: str = ""
    container: str = ""
    pods: tuple[PodState, ...] = ()
    ready: int = 0
    """How many of them were ready."""
    detail: str = ""


class RestartStarted(Fact):
    """The deletion of one of those pods is about to be sent; its controller makes it anew."""

    type: Literal["restart.started"] = "restart.started"
    alert: str
    pod: str
    uid: str


class RestartDone(Fact):
    """How it ended. `gone` means that the pod was not there any more; what was not done is tried again."""

    type: Literal["restart.done"] = "restart.done"
    alert: str
    pod: str
    uid: str
    outcome: Literal["done", "gone", "failed", "unknown"]
    at: When
    detail: str = ""


class RestartSeen(Fact):
    """All pods of a workload that is restarted, after a change, as the watch told it."""

    type: Literal["restart.seen"] = "restart.seen"
    workload: str
    pods: tuple[PodState, ...]


class AlertSeen(Fact):
    """A change of an alert's state in the rules API, for the live view; never used to time anything."""

    type: Literal["alert.seen"] = "alert.seen"
    alert: str
    state: Literal["inactive", "pending", "firing"]
    evaluated_at: Dated | None
    value: Sample = None


class AlertTransition(Fact):
    """A transition read from raw ALERTS samples: an evaluation instant of the rule group.

    `at` is that instant on our clock: its width is the clock offset's, and more where evaluations were missed around
    it. `evaluation` is the stamp as Prometheus has it.
    """

    type: Literal["alert.transition"] = "alert.transition"
    alert: str
    to: Literal["pending", "firing", "resolved"]
    at: When
    evaluation: Dated
    labels: dict[str, str] = {}
    source: str
    missed: int = 0
    """How many evaluations of the group are missing around it."""


class NotifierSeen(Fact):
    """What Alertmanager holds for the alert."""

    type: Literal["notifier.seen"] = "notifier.seen"
    alert: str
    fingerprint: str
    state: str
    starts_at: Dated
    silenced_by: tuple[str, ...] = ()


class PageReceived(Fact):
    """A notification arrived at the pager."""

    type: Literal["page.received"] = "page.received"
    alert: str
    status: Literal["firing", "resolved"]
    at: When
    starts_at: Dated
    receiver: str
    source: str
    labels: dict[str, str] = {}


Action = Literal[
    "acknowledged", "assessed", "escalated", "joined", "notified", "root_cause", "looked", "fix_applied", "all_clear",
    "note",
]  # fmt: skip


class ResponderActed(Fact):
    """Something a responder did or declared, through a public door.

    `verified` says who vouches for the actor ("admission policy" when the API server enforced it, "claimed" when the
    door does not authenticate). `counted` is false for what is shown but must not move a clock, with the reason.
    """

    type: Literal["responder.acted"] = "responder.acted"
    key: str
    """Identity of the message (object uid, silence id): duplicates are dropped by it."""
    action: Action
    actor: str
    actor_kind: Literal["human", "automation"]
    verified: str
    at: When
    source: str
    role: str = ""
    text: str = ""
    alert: str = ""
    """Which alert it is about, where the door said so."""
    counted: bool = True
    reason: str = ""


class SignalRead(Fact):
    """Samples of a condition or of the drawn curve on Prometheus' grid: (instant on our clock, value or None)."""

    type: Literal["signal.read"] = "signal.read"
    signal: str
    samples: tuple[tuple[Dated, Sample], ...]
    resolution: float
    """How old a sample may be, in seconds: the scrape interval plus the clock offset's width."""
    step: float = Field(default=0.0, ge=0)
    """Seconds between the grid's points, so that a hole is seen for what it is; 0 where the reader did not say."""
    missing: str = ""
    """Why samples without a value have none, where any has."""


class ChannelChanged(Fact):
    """An observer lost or regained its source."""

    type: Literal["channel.changed"] = "channel.changed"
    channel: str
    up: bool
    detail: str = ""


class SourceRestarted(Fact):
    """Prometheus restarted during the run: what it says about times across that point is not to be trusted."""

    type: Literal["source.restarted"] = "source.restarted"
    source: str
    detail: str


class StopAsked(Fact):
    """A signal, the stop switch or a lost lease asks the run to end."""

    type: Literal["stop.asked"] = "stop.asked"
    by: str
    detail: str = ""


class Decided(Fact):
    """What `decide` wanted and its one sentence of why, before it is acted upon."""

    type: Literal["decided"] = "decided"
    intent: str
    why: str


class UndoStarted(Fact):
    """The undo write is about to be sent."""

    type: Literal["undo.started"] = "undo.started"
    fault: str


class UndoDone(Fact):
    """How an undo ended. `already` means the value was found back at what it was before the fault; `taken over`, that
    whoever took the namespace's lock from this run has removed its undo record, which is only done after an undo."""

    type: Literal["undo.done"] = "undo.done"
    fault: str
    outcome: Literal["restored", "already", "refused", "vanished", "failed", "taken over"]
    at: When
    detail: str = ""


class CleanChecked(Fact):
    """The cluster compared with the snapshots; `differences` is empty when clean."""

    type: Literal["clean.checked"] = "clean.checked"
    clean: bool
    differences: tuple[str, ...] = ()


class RunEnded(Fact):
    """Last event of a run. `by` names who ended it: the runner itself or a recovery."""

    type: Literal["run.ended"] = "run.ended"
    reason: Literal["complete", "timeout", "aborted", "stopped", "refused", "error", "recovered"]
    detail: str
    by: str = "runner"


Event = Annotated[
    RunStarted | PhaseTimed | ClockCompared | CheckDone | AlertingRead | InjectionPlanned | UndoStored | InjectStarted
    | InjectDone | PodsSeen | ObjectSeen | FaultEnded | EffectProved | RestartPlanned | RestartStarted | RestartDone
    | RestartSeen | AlertSeen | AlertTransition | NotifierSeen | PageReceived | ResponderActed | SignalRead
    | ChannelChanged | SourceRestarted | StopAsked | Decided | UndoStarted | UndoDone | CleanChecked | RunEnded,
    Field(discriminator="type"),
]  # fmt: skip


class Record(BaseModel):
    """One line of a journal: a dense sequence number, when we wrote it, and the fact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seq: int = Field(ge=0)
    at: Dated
    event: Event


_RECORD: TypeAdapter[Record] = TypeAdapter(Record)


def encode(record: Record, prev: str = "") -> str:
    """One JSON line without its newline. `utc` repeats the instant for people's eyes and is ignored on reading;
    `prev`, where it is given, is the digest of the line before."""
    body = record.model_dump(mode="json")
    body["utc"] = utc(record.at)
    ordered = {k: body[k] for k in ("seq", "utc", "at", "event")}
    if prev:
        ordered["prev"] = prev
    return escaped(json.dumps(ordered, ensure_ascii=False, separators=(",", ":"), allow_nan=False))


def digest_of_line(line: bytes) -> str:
    """What the next line carries as `prev`: SHA-256 over the line's bytes without its newline, in hexadecimal."""
    return hashlib.sha256(line).hexdigest()


def decode(line: str) -> Record:
    """The record in a line. Raises ValueError where it is not one."""
    return parse(line)[0]


def parse(line: str) -> tuple[Record, str]:
    """The record in a line and the digest of the line before that it carries, "" where it carries none. Raises
    ValueError where it is not a record."""
    try:
        body = json.loads(line)
    except RecursionError as error:
        raise ValueError("a journal line is not nested that deep") from error
    if not isinstance(body, dict):
        raise ValueError("a journal line must be a JSON object")
    stamp, prev = body.pop("utc", None), body.pop("prev", "")
    if not isinstance(prev, str):
        raise ValueError("`prev` must be a digest")
    record = _RECORD.validate_python(body)
    if isinstance(stamp, str) and abs(parse_utc(stamp) - record.at) > 0.002:
        raise ValueError(f"the line's two stamps disagree: {stamp} and {record.at}")
    return record, prev
