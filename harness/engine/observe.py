"""What is looked at during a run, and how it becomes events.

Each watcher turns one source into events and remembers only what it has already told. A watcher is a plain object
with a `look` that makes one round; `ThreadedFeed` gives each a thread, tests call `look` themselves on a virtual
clock. A source that fails is told once as lost and once as back, and never read as "nothing there".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Event as Flag
from threading import Thread
from typing import Protocol

from harness.core.alerting import AlertSeries, transitions
from harness.core.clock import Bounds, Clock, Instant
from harness.core.decide import abort_signal
from harness.core.errors import DrillError
from harness.core.event import (
    AlertSeen,
    AlertTransition,
    ChannelChanged,
    Event,
    NotifierSeen,
    PageReceived,
    PodsSeen,
    ResponderActed,
    SignalRead,
    SourceRestarted,
)
from harness.core.experiment import AnyExperiment
from harness.core.inbox import read as read_message
from harness.core.pods import pod_state
from harness.core.verdict import guard_signal
from harness.ports.cluster import Cluster, WatchEvent
from harness.ports.fault import PodSelector
from harness.ports.metrics import Matcher, Metrics, Notifier, NotifierAlert, Pager, Rule, Series, Silence

Emit = Callable[[Event], None]
CURVE = "curve"
_SCRAPE_SETTLES = 0.2
"""Seconds after which a scrape of an instant has surely been stored: sampling closer to now would alias."""
AGE = "time() - max(timestamp(up))"
"""How long ago Prometheus scraped anything. Where it stood still it repeats its newest samples for minutes, and a
value that is repeated is not data. What one target withholds, Prometheus itself marks as stale."""


class Round(Protocol):
    """One watcher that asks again and again."""

    name: str

    def look(self, now: Instant) -> tuple[list[Event], Instant]:
        """Make one round; what is new, and when to come again. Raises DrillError where the source fails."""


def fresh_instants(metrics: Metrics, start: Instant, end: Instant, step: float, scrape: float) -> frozenset[Instant]:
    """The instants of a grid at which Prometheus had scraped anything lately. At all others it only repeats what it
    knew before it stood still. One scrape may be late."""
    oldest = 2 * scrape + 0.5
    return frozenset(at for one in metrics.grid(AGE, start, end, step) for at, age in one.samples if age <= oldest)


def signals(experiment: AnyExperiment) -> dict[str, str]:
    """Every PromQL expression that a run samples, by the name under which its samples are journalled."""
    named = {CURVE: experiment.signal.query, "mitigated": experiment.mitigated.query}
    named["recovered"] = experiment.recovered.query
    named |= {guard_signal(c): c.query for c in experiment.must_hold}
    named |= {abort_signal(c.name): c.query for c in experiment.abort}
    return named


@dataclass
class PrometheusRound:
    """Rules, raw ALERTS samples and signals, in phase with the rule group's evaluations."""

    metrics: Metrics
    experiment: AnyExperiment
    offset: Bounds
    scrape_interval: float
    since: Instant
    """Start of the run on our clock."""
    started_at: Instant
    name: str = "Prometheus"
    _states: dict[str, str] = field(default_factory=dict)
    _told: dict[str, int] = field(default_factory=dict)
    _sampled_to: float = 0.0

    def look(self, now: Instant) -> tuple[list[Event], Instant]:
        """See `Round`."""
        found: list[Event] = []
        theirs = now + self.offset.middle
        rules = [r for r in self.metrics.rules() if any(r.alert == a.name for a in self.experiment.alerts)]
        for rule in rules:
            found += self._rule(rule, now)
        found += self._signals(theirs)
        found += self._restart()
        return found, self._next(rules, now)

    def _rule(self, rule: Rule, now: Instant) -> list[Event]:
        found: list[Event] = []
        if self._states.get(rule.alert) != rule.state:
            self._states[rule.alert] = rule.state
            value = max((a.value for a in rule.active), default=None)
            evaluated = None if rule.last_evaluation is None else self._ours(rule.last_evaluation).latest
            found.append(AlertSeen(alert=rule.alert, state=rule.state, evaluated_at=evaluated, value=value))
        window = max(now - self.since, 0.0) + 60.0
        raw = self.metrics.raw(f'ALERTS{{alertname="{rule.alert}"}}', window)
        known = transitions(
            [_alert_series(one) for one in raw],
            interval=rule.interval,
            since=self.since + self.offset.earliest,
            evaluated=rule.last_evaluation,
        )
        found += [
            AlertTransition(
                alert=rule.alert,
                to=transition.to,
                at=transition.at.shifted(self.offset),
                evaluation=transition.at.latest,
                labels=dict(transition.labels),
                source="Prometheus: raw ALERTS samples at the rule group's evaluations",
            )
            for transition in known[self._told.get(rule.alert, 0) :]
        ]
        self._told[rule.alert] = max(len(known), self._told.get(rule.alert, 0))
        return found

    def _signals(self, theirs: Instant) -> list[Event]:
        """New samples of every signal on the grid of whole seconds (or of the scrape interval where it is longer)."""
        step = max(1.0, float(round(self.scrape_interval)))
        newest = ((theirs - _SCRAPE_SETTLES) // step) * step
        if self._sampled_to == 0.0:
            self._sampled_to = newest - step
        if newest <= self._sampled_to:
            return []
        start = self._sampled_to + step
        fresh = fresh_instants(self.metrics, start, newest, step, self.scrape_interval)
        found: list[Event] = []
        for name, query in signals(self.experiment).items():
            series = self.metrics.grid(query, start, newest, step)
            values = dict(series[0].samples) if len(series) == 1 else {}
            values = {at: value for at, value in values.items() if at in fresh}
            count = round((newest - start) / step) + 1
            grid = [start + i * step for i in range(count)]
            samples = tuple((self._middle(at), _finite(values.get(at))) for at in grid)
            resolution = self.scrape_interval + self.offset.width
            found.append(SignalRead(signal=name, samples=samples, resolution=resolution, step=step))
        self._sampled_to = newest
        return found

    def _restart(self) -> list[Event]:
        started = self.metrics.started_at()
        if abs(started - self.started_at) < 1.0:
            return []
        self.started_at = started
        return [SourceRestarted(source="Prometheus", detail="its process is not the one that the run began with")]

    def _ours(self, stamp: Instant) -> Bounds:
        return Bounds.at(stamp).shifted(self.offset)

    def _middle(self, stamp: Instant) -> Instant:
        return round(self._ours(stamp).middle, 3)

    def _next(self, rules: Sequence[Rule], now: Instant) -> Instant:
        """Just after the next evaluation of the group: the earliest moment at which anything can be new."""
        lag = 0.1
        for rule in rules:
            if rule.last_evaluation is not None and rule.interval > 0:
                due = self._ours(rule.last_evaluation).latest + rule.interval + lag
                if due <= now:  # an evaluation is late: look again soon, but not hotly
                    return now + min(0.5, rule.interval)
                return min(due, now + max(1.0, self.scrape_interval))
        return now + 1.0


@dataclass
class NotifierRound:
    """Alertmanager's alerts, and silences that acknowledge them."""

    notifier: Notifier
    experiment: AnyExperiment
    offset: Bounds
    since: Instant
    name: str = "Alertmanager"
    _held: set[tuple[str, str, Instant, str]] = field(default_factory=set)
    _acks: set[str] = field(default_factory=set)

    def look(self, now: Instant) -> tuple[list[Event], Instant]:
        """See `Round`."""
        found: list[Event] = []
        for expected in self.experiment.alerts:
            held = self.notifier.alerts(expected.name)
            for alert in held:
                key = (alert.fingerprint, alert.state, alert.starts_at, ",".join(alert.silenced_by))
                if key not in self._held:
                    self._held.add(key)
                    found.append(
                        NotifierSeen(
                            alert=expected.name,
                            fingerprint=alert.fingerprint,
                            state=alert.state,
                            starts_at=alert.starts_at,
                            silenced_by=alert.silenced_by,
                        )
                    )
            if held:
                found += [
                    self._acknowledged(silence)
                    for silence in self.notifier.silences()
                    if silence.id not in self._acks and any(acknowledges(silence, one) for one in held)
                ]
        return found, now + 1.0

    def _acknowledged(self, silence: Silence) -> ResponderActed:
        """A silence that covers the alert and began during the run. Its own start is the server's stamp."""
        self._acks.add(silence.id)
        at = Bounds.at(silence.starts_at).shifted(self.offset)
        counted = at.latest >= self.since
        return ResponderActed(
            key=silence.id,
            action="acknowledged",
            actor=silence.created_by,
            actor_kind="automation" if silence.created_by.startswith("system:serviceaccount:") else "human",
            verified="claimed",
            at=at,
            source=f"Alertmanager silence {silence.id}",
            text=silence.comment[:400],
            counted=counted,
            reason="" if counted else "the silence is older than the run: muting, not an acknowledgement",
        )


@dataclass
class PagerRound:
    """What reached the pager."""

    pager: Pager
    offset: Bounds
    since: Instant
    name: str = "pager"
    _seen: int = 0

    def look(self, now: Instant) -> tuple[list[Event], Instant]:
        """See `Round`."""
        found: list[Event] = []
        for page in self.pager.notifications(self._seen):
            self._seen = max(self._seen, page.seq)
            at = Bounds.at(page.received_at).shifted(self.offset)
            if at.latest < self.since:
                continue
            found.append(
                PageReceived(
                    alert=page.labels.get("alertname", ""),
                    status=page.status,
                    at=at,
                    starts_at=page.starts_at,
                    receiver=page.receiver,
                    source="pager: receipt of Alertmanager's webhook",
                )
            )
        return found, now + 1.0


def covers(silence: Silence, labels: Mapping[str, str]) -> bool:
    """Whether a silence mutes an alert with these labels (matchers as in Alertmanager: anchored regular expressions).

    An expression that is not plain is not tried and taken for a hit: whoever wants to start a drill is better told
    of a silence too many.
    """
    return silence.state != "expired" and all(
        (_hits(matcher, labels.get(matcher.name, "")) is not False) for matcher in silence.matchers
    )


def acknowledges(silence: Silence, alert: NotifierAlert) -> bool:
    """Whether a silence is somebody's answer to this alert: Alertmanager or we find that it mutes it, and its matcher
    on alertname is about this alert in particular. One that mutes any alert is maintenance."""
    name = alert.labels.get("alertname", "")
    named = any(
        m.name == "alertname" and m.is_equal and _hits(m, name) and not _hits(m, _ANY_OTHER) for m in silence.matchers
    )
    if not named or silence.state != "active":
        return False
    return silence.id in alert.silenced_by or all(_hits(m, alert.labels.get(m.name, "")) for m in silence.matchers)


_ANY_OTHER = "AnyOtherAlert\0"
_LONGEST_PATTERN = 200
_MOST_REPEATS = 3


def _hits(matcher: Matcher, value: str) -> bool | None:
    """Whether a matcher agrees with a label's value; None where its expression is not tried.

    Alertmanager's expressions need no backtracking, Python's do: `((.*)*)*!` would hold this process, and its undo,
    for ever. So only few repeats are tried, and none of a group.
    """
    if not matcher.is_regex:
        return (value == matcher.value) == matcher.is_equal
    pattern = matcher.value
    if len(pattern) > _LONGEST_PATTERN or len(re.findall(r"[*+?{]", pattern)) > _MOST_REPEATS:
        return None
    if re.search(r"\)[*+?{]", pattern):
        return None
    try:
        return bool(re.fullmatch(pattern, value)) == matcher.is_equal
    except (re.error, RecursionError, OverflowError):
        return None


class PodsTracker:
    """The present set of a target's pods, from a watch, as one event per change."""

    def __init__(self, fault: str, selector: PodSelector) -> None:
        self._fault = fault
        self._container = selector.container
        self._pods: dict[str, dict[str, object]] = {}
        self._told: PodsSeen | None = None

    def update(self, event: WatchEvent) -> list[Event]:
        """The event to record for a watch event: nothing where no fact changed."""
        if event.type == "sync":
            self._pods = {item["metadata"]["uid"]: item for item in event.items}
        for item in event.items if event.type != "sync" else ():
            if event.type == "deleted":
                self._pods.pop(item["metadata"]["uid"], None)
            else:
                self._pods[item["metadata"]["uid"]] = item
        states = sorted((pod_state(pod, self._container) for pod in self._pods.values()), key=lambda p: p.name)
        seen = PodsSeen(fault=self._fault, pods=tuple(states))
        if seen == self._told:
            return []
        self._told = seen
        return [seen]


class InboxTracker:
    """Responders' messages, from a watch; each is told once. Messages older than the run are not this run's."""

    def __init__(self, *, verified: bool, offset: Bounds, since: Instant, clock: Clock) -> None:
        self._verified = verified
        self._offset = offset
        self._since = since
        self._clock = clock
        self._told: set[str] = set()

    def update(self, event: WatchEvent) -> list[Event]:
        """The acts in a watch event."""
        found: list[Event] = []
        for item in event.items if event.type != "deleted" else ():
            uid = item["metadata"]["uid"]
            if uid in self._told:
                continue
            self._told.add(uid)
            act = read_message(item, verified=self._verified, offset=self._offset, seen_at=self._clock.now())
            if act is not None and act.at.latest >= self._since:
                found.append(act)
        return found


class ThreadedFeed:
    """Watchers on threads behind one queue. `put` may be called from a signal handler."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._queue: SimpleQueue[Event] = SimpleQueue()
        self._stop = Flag()
        self._threads: list[Thread] = []

    def put(self, event: Event) -> None:
        """Add an observation from outside (a stop request). Reentrant."""
        self._queue.put(event)

    def next(self, until: Instant) -> Event | None:
        """See ports.feed."""
        try:
            return self._queue.get(timeout=max(0.0, until - self._clock.now()))
        except Empty:
            return None

    def poll(self, round_: Round) -> None:
        """Run a round's watcher from now on."""
        self._start(round_.name, lambda: self._poll(round_))

    def watch(
        self,
        name: str,
        cluster: Cluster,
        kind: str,
        namespace: str,
        labels: str,
        update: Callable[[WatchEvent], list[Event]],
        *,
        only: str = "",
    ) -> None:
        """Run a watch from now on, of all objects or only of the one of that name."""

        def stream() -> Iterator[WatchEvent]:
            return cluster.watch(kind, namespace, labels, self._stop, name=only)

        self._start(name, lambda: self._watch(name, stream, update))

    def close(self) -> None:
        """Stop all watchers and wait for them."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=5.0)

    def _start(self, name: str, body: Callable[[], None]) -> None:
        thread = Thread(target=body, name=f"drill-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _poll(self, round_: Round) -> None:
        channel = Channel(round_.name, self.put)
        while not self._stop.is_set():
            due = self._clock.now() + 1.0
            try:
                events, due = round_.look(self._clock.now())
            except DrillError as error:
                channel.lost(error.fact)
            except Exception as error:  # noqa: BLE001 - a watcher that dies silently would read as "nothing there"
                channel.lost(f"{type(error).__name__}: {error}")
            else:
                channel.back()
                for event in events:
                    self.put(event)
            self._stop.wait(max(0.0, due - self._clock.now()))

    def _watch(
        self, name: str, stream: Callable[[], Iterator[WatchEvent]], update: Callable[[WatchEvent], list[Event]]
    ) -> None:
        channel = Channel(name, self.put)
        while not self._stop.is_set():
            try:
                for event in stream():
                    channel.back()
                    for told in update(event):
                        self.put(told)
            except DrillError as error:
                channel.lost(error.fact)
            except Exception as error:  # noqa: BLE001 - as above
                channel.lost(f"{type(error).__name__}: {error}")
            self._stop.wait(1.0)


class Channel:
    """Tells the loss and the return of a source once each."""

    def __init__(self, name: str, put: Emit) -> None:
        self._name = name
        self._put = put
        self._up = True

    def lost(self, why: str) -> None:
        """The source does not answer."""
        if self._up:
            self._up = False
            self._put(ChannelChanged(channel=self._name, up=False, detail=why[:400]))

    def back(self) -> None:
        """The source answers."""
        if not self._up:
            self._up = True
            self._put(ChannelChanged(channel=self._name, up=True))


def _alert_series(series: Series) -> AlertSeries:
    state = series.labels.get("alertstate", "")
    labels = {k: v for k, v in series.labels.items() if k not in {"__name__", "alertname", "alertstate"}}
    return AlertSeries("firing" if state == "firing" else "pending", labels, tuple(at for at, _ in series.samples))


def _finite(value: float | None) -> float | None:
    """NaN and infinity are not data."""
    return value if value is not None and abs(value) != float("inf") and value == value else None
