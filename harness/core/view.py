"""What a person who watches a run sees at this instant, as a pure function of its history.

The live display, the plain lines of a pipe and any other renderer show this value and compute nothing themselves, so
that they cannot disagree with the report: clocks and verdicts come from the same `judge` that writes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.core.clock import Bounds, Instant
from harness.core.decide import Phase, phase
from harness.core.event import (
    AlertSeen,
    AlertTransition,
    ChannelChanged,
    CheckDone,
    CleanChecked,
    Decided,
    InjectStarted,
    PodsSeen,
    SignalRead,
)
from harness.core.experiment import AnyExperiment, ProfileName
from harness.core.history import History
from harness.core.milestone import Milestone
from harness.core.verdict import Judgement, SlaResult, Verdict, judge

PhaseWord = Literal["preparing", "steady", "injecting", "observing", "rolling back", "clean", "dirty"]
AlertWord = Literal["inactive", "pending", "firing", "resolved"]
CURVE = "curve"
"""The signal name under which the experiment's drawn signal is journalled."""
RECENT = 60
"""How many of the newest samples a view carries."""


@dataclass(frozen=True, slots=True)
class RunningClock:
    """One SLA, or one expected alert, as a clock between its two ends. Durations in seconds.

    `elapsed` is None while it has not started. `is_late` is set as soon as the target is surely passed, also while it
    still runs.
    """

    title: str
    start: str
    end: str
    target: float
    required: bool
    state: Literal["not started", "running", "done"]
    elapsed: float | None = None
    is_late: bool = False
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class AlertView:
    """An expected alert's present state, as far as it was seen."""

    name: str
    state: AlertWord
    is_paged: bool


@dataclass(frozen=True, slots=True)
class PodsView:
    """The pods that the faults are aimed at. OOM kills are counted since the run began to watch."""

    ready: int
    total: int
    oom_kills: int


@dataclass(frozen=True, slots=True)
class SignalView:
    """The drawn signal. `samples` are the newest, oldest first; None is a sample without data."""

    title: str
    unit: str
    value: float | None
    samples: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Who took the alert, and what kind of actor that is."""

    actor: str
    kind: Literal["human", "automation"]


@dataclass(frozen=True, slots=True)
class LostChannel:
    """A source that cannot be seen now: since when in seconds, and why."""

    channel: str
    seconds: float
    detail: str


@dataclass(frozen=True, slots=True)
class View:
    """A run at one instant. Seconds; `elapsed` and `remaining` are those of the run's timeout, which starts at the
    injection: before it `elapsed` is 0 and `prepared` grows."""

    run_id: str
    experiment: str
    profile: str
    responder: str
    phase: PhaseWord
    prepared: float
    elapsed: float
    remaining: float
    clocks: tuple[RunningClock, ...]
    alerts: tuple[AlertView, ...]
    signal: SignalView
    pods: PodsView | None
    acknowledged: Acknowledged | None
    decided: str
    lost: tuple[LostChannel, ...]
    differences: tuple[str, ...]
    """How the cluster still differs from its snapshots; empty unless the run is dirty."""


def view(experiment: AnyExperiment, history: History, now: Instant) -> View:
    """What to show of a run at `now`. `experiment` is tuned to the run's profile; the history has its first event."""
    start = history.start
    ended = history.ended is not None
    at = history.last_at if ended else max(now, history.last_at)
    injected = next((record.at for record, _ in history.records(InjectStarted)), None)
    elapsed = 0.0 if injected is None else at - injected
    judgement = judge(experiment, history)
    decided = history.last(Decided)
    word = phase_word(history)
    return View(
        run_id=start.run_id,
        experiment=experiment.name,
        profile=start.profile,
        responder=start.responder,
        phase=word,
        prepared=(at if injected is None else injected) - history.started_at,
        elapsed=elapsed,
        remaining=max(0.0, _timeout(experiment, start.profile) - elapsed),
        clocks=tuple(_clock(result, at, ended=ended) for result in _promises(experiment, judgement)),
        alerts=tuple(_alert(alert.name, history, judgement) for alert in experiment.alerts),
        signal=_signal(experiment, history),
        pods=_pods(history),
        acknowledged=_acknowledged(judgement),
        decided="" if decided is None else decided.why,
        lost=_lost(history, at),
        differences=_differences(history) if word == "dirty" else (),
    )


def phase_word(history: History) -> PhaseWord:
    """The phase that the events imply. Steady is the part of preparing in which the faults are planned and the
    steady state is being watched: from there on only the system itself can hold the run up."""
    known = phase(history)
    if known is not Phase.PREPARING:
        return known.value  # type: ignore[return-value]  # the words of Phase are a subset of PhaseWord; tested
    watched = history.plans() or any(check.name.startswith("steady state") for check in history.all(CheckDone))
    return "steady" if watched else "preparing"


def _timeout(experiment: AnyExperiment, profile: str) -> float:
    names: dict[str, ProfileName] = {name: name for name in experiment.profiles}
    return experiment.profiles[names[profile]].timeout if profile in names else 0.0


def _promises(experiment: AnyExperiment, judgement: Judgement) -> list[SlaResult]:
    """Expected alerts and SLAs in one list; an SLA that promises the same as an alert is shown once."""
    first = experiment.alerts[0].name if experiment.alerts else ""
    known = {(result.sla.from_, result.sla.to, result.sla.within) for result in judgement.alerts}
    named = {"firing": f"{first}.firing"}
    return [
        *judgement.alerts,
        *(r for r in judgement.slas if (r.sla.from_, named.get(r.sla.to, r.sla.to), r.sla.within) not in known),
    ]


def _clock(result: SlaResult, now: Instant, *, ended: bool) -> RunningClock:
    sla = result.sla
    state: Literal["not started", "running", "done"] = "done"
    if not ended and result.end is None:
        state = "not started" if result.start is None else "running"
    spent = _spent(result, now, running=state == "running")
    return RunningClock(
        title=sla.title,
        start=sla.from_,
        end=sla.to,
        target=sla.within,
        required=sla.required,
        state=state,
        elapsed=None if spent is None else spent.middle,
        is_late=spent is not None and spent.earliest > sla.within,
        verdict=result.verdict if state == "done" else None,
    )


def _spent(result: SlaResult, now: Instant, *, running: bool) -> Bounds | None:
    if running and result.start is not None:
        return result.start.at.until(Bounds.at(max(now, result.start.at.latest))).clipped(not_before=0.0)
    return result.duration


def _alert(name: str, history: History, judgement: Judgement) -> AlertView:
    """The newest word on an alert, by when it was evaluated: raw samples are read after the fact."""
    told: list[tuple[Instant, int, AlertWord]] = [
        (record.at if seen.evaluated_at is None else seen.evaluated_at, record.seq, seen.state)
        for record, seen in history.records(AlertSeen)
        if seen.alert == name
    ]
    told += [
        (change.at.latest, record.seq, change.to)
        for record, change in history.records(AlertTransition)
        if change.alert == name
    ]
    told.sort()
    state: AlertWord = told[-1][2] if told else "inactive"
    if state == "inactive" and any(word in {"firing", "resolved"} for _, _, word in told):
        state = "resolved"
    return AlertView(name=name, state=state, is_paged=f"{name}.paged" in judgement.milestones)


def _signal(experiment: AnyExperiment, history: History) -> SignalView:
    samples: list[float | None] = []
    for _, event in reversed(history.records(SignalRead)):
        if event.signal == CURVE:
            samples[:0] = [value for _, value in event.samples]
        if len(samples) >= RECENT:
            break
    recent = tuple(samples[-RECENT:])
    value = recent[-1] if recent else None
    return SignalView(title=experiment.signal.title, unit=experiment.signal.unit, value=value, samples=recent)


def _pods(history: History) -> PodsView | None:
    newest: dict[str, PodsSeen] = {}
    kills: set[tuple[str, Instant]] = set()
    for _, event in history.records(PodsSeen):
        newest[event.fault] = event
        kills |= {(pod.uid, pod.oom_killed_at) for pod in event.pods if pod.oom_killed_at is not None}
    if not newest:
        return None
    ready = {pod.uid: pod.ready for event in newest.values() for pod in event.pods}
    since = int(history.started_at)  # the kubelet's stamps are whole seconds
    recent = sum(1 for _, killed_at in kills if killed_at >= since)
    return PodsView(ready=sum(ready.values()), total=len(ready), oom_kills=recent)


def _acknowledged(judgement: Judgement) -> Acknowledged | None:
    milestone: Milestone | None = judgement.milestones.get("acknowledged")
    if milestone is None:
        return None
    return Acknowledged(milestone.actor, "automation" if milestone.actor_kind == "automation" else "human")


def _lost(history: History, now: Instant) -> tuple[LostChannel, ...]:
    down: dict[str, LostChannel] = {}
    for record, event in history.records(ChannelChanged):
        if event.up:
            down.pop(event.channel, None)
        elif event.channel not in down:
            down[event.channel] = LostChannel(event.channel, now - record.at, event.detail)
    return tuple(down.values())


def _differences(history: History) -> tuple[str, ...]:
    checked = history.last(CleanChecked)
    return () if checked is None else checked.differences
