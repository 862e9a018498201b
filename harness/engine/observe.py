"""What is looked at during a run, and how it becomes events.

Each watcher turns one source into events and remembers only what it has already told. A watcher is a plain object
with a `look` that makes one round; `ThreadedFeed` gives each a thread, tests call `look` themselves on a virtual
clock. A source that fails is told once as lost and once as back, and never read as "nothing there".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from threading import Event as Flag
from threading import Thread
from typing import Any, Literal, Protocol

from harness.core.alerting import AlertSeries, Transition, transitions
from harness.core.clock import STEPPED, Bounds, Clock, Instant
from harness.core.decide import abort_signal
from harness.core.errors import BadInput, DrillError
from harness.core.event import (
    AlertSeen,
    AlertTransition,
    ChannelChanged,
    ClockCompared,
    Event,
    NotifierSeen,
    ObjectSeen,
    PageReceived,
    PodsSeen,
    PodState,
    ResponderActed,
    RestartPlanned,
    RestartSeen,
    SignalRead,
    SourceRestarted,
)
from harness.core.experiment import (
    GOALS,
    AnyExperiment,
    ExpectedAlert,
    curve_signal,
    effect_signal,
    goal_signal,
    measured_effect,
)
from harness.core.expressions import fits
from harness.core.fields import value_at
from harness.core.inbox import read as read_message
from harness.core.milestone import operand_signal
from harness.core.pods import pod_state
from harness.core.promql import counter_ranges, matchers, operand
from harness.core.verdict import guard_signal, rule_channel
from harness.core.workload import owns
from harness.ports.cluster import Cluster, WatchEvent
from harness.ports.fault import ObjectSelector, PodSelector
from harness.ports.metrics import ActiveAlert, Matcher, Metrics, Notifier, NotifierAlert, Pager, Rule, Series, Silence

Emit = Callable[[Event], None]
CURVE = "curve"
_SCRAPE_SETTLES = 0.2
"""Seconds after which a scrape of an instant has surely been stored: sampling closer to now would alias."""
_LATE = 0.5
"""Seconds by which a scrape may be late and still be in time."""
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
    knew before it stood still."""
    return scraped(metrics, start, end, step, scrape)[0]


def scraped(
    metrics: Metrics, start: Instant, end: Instant, step: float, scrape: float
) -> tuple[frozenset[Instant], Instant]:
    """As `fresh_instants`, and the first instant from which on that cannot be told yet.

    One scrape may be late, so a gap of two intervals between scrapes is none. Whether it is one only the next scrape
    tells: until it has come, or is overdue, what Prometheus repeats is neither data nor the lack of it.
    """
    seen = {at: at - age for one in metrics.grid(AGE, start, end, step) for at, age in one.samples}
    newest = max(seen.values(), default=start)
    fresh: set[Instant] = set()
    unsure: set[Instant] = set()
    for at, last in seen.items():
        if at - last <= scrape + _LATE:
            fresh.add(at)
            continue
        following = min((one for one in seen.values() if one > last + _LATE), default=None)
        if following is not None and following - last <= 2 * scrape + _LATE:
            fresh.add(at)
        elif following is None and end - newest <= 2 * scrape + _LATE:
            unsure.add(at)
    return frozenset(fresh), min(unsure, default=end + step)


def signals(experiment: AnyExperiment) -> dict[str, str]:
    """Every PromQL expression that a run samples, by the name under which its samples are journalled."""
    named = {CURVE: experiment.signal.query, "mitigated": experiment.mitigated.query}
    named["recovered"] = experiment.recovered.query
    for alert in experiment.alerts[1:]:
        own = {goal: condition for goal in GOALS if (condition := experiment.goal(alert.name, goal)) is not None}
        named |= {goal_signal(alert.name, goal): condition.query for goal, condition in own.items()}
        named |= {curve_signal(alert.name): alert.signal.query} if alert.signal is not None else {}
    named |= {guard_signal(c): c.query for c in experiment.must_hold}
    named |= {abort_signal(c.name): c.query for c in experiment.abort}
    effects = {fault.id: measured_effect(fault) for fault in experiment.faults}
    named |= {effect_signal(fault): effect.query for fault, effect in effects.items() if effect is not None}
    return named


@dataclass(frozen=True, slots=True)
class _Memory:
    """What a Prometheus round has told; replaced as a whole once a round has succeeded, so that a round that fails
    half-way forgets nothing that was not told."""

    states: Mapping[str, str] = field(default_factory=dict)
    told: Mapping[str, tuple[Transition, ...]] = field(default_factory=dict)
    sampled_to: float = 0.0
    stalled: frozenset[str] = frozenset()


@dataclass
class PrometheusRound:
    """Rules, raw ALERTS samples and signals, in phase with the rule group's evaluations. Its clock is compared again
    behind every round: what is told was stamped between two comparisons."""

    metrics: Metrics
    experiment: AnyExperiment
    offset: Bounds
    scrape_interval: float
    since: Instant
    """Start of the run on our clock."""
    started_at: Instant
    name: str = "Prometheus"
    _memory: _Memory = field(default_factory=_Memory)

    def look(self, now: Instant) -> tuple[list[Event], Instant]:
        """See `Round`."""
        theirs = now + self.offset.middle
        loaded = self.metrics.rules()
        rules = {alert.name: rule for alert in self.experiment.alerts if (rule := rule_of(alert, loaded)) is not None}
        states, told = dict(self._memory.states), dict(self._memory.told)
        found: list[Event] = []
        for alert in self.experiment.alerts:
            if alert.name in rules:
                found += self._rule(alert, rules[alert.name], active_of(alert, loaded), now, states, told)
        stalled, stalls = self._stalls(rules, now)
        samples, sampled_to = self._signals(theirs, rules)
        restarted, (offset, clock) = self._restart(), self._compared()
        was_set = self.offset.gap(offset) > STEPPED
        self.offset = offset
        if was_set:  # nothing of this round is sure to be stamped as it was read: the next one tells it
            self._memory = replace(self._memory, sampled_to=0.0)
            return [*restarted, *clock], now
        self._memory = _Memory(states, told, sampled_to, stalled)
        return [*restarted, *clock, *stalls, *found, *samples], self._next(list(rules.values()), now)

    def _rule(
        self,
        alert: ExpectedAlert,
        rule: Rule,
        active: Sequence[ActiveAlert],
        now: Instant,
        states: dict[str, str],
        told: dict[str, tuple[Transition, ...]],
    ) -> list[Event]:
        found: list[Event] = []
        state = state_of(active)
        if states.get(alert.name) != state:
            states[alert.name] = state
            value = max((a.value for a in active), default=None)
            evaluated = None if rule.last_evaluation is None else self._ours(rule.last_evaluation).latest
            found.append(AlertSeen(alert=alert.name, state=state, evaluated_at=evaluated, value=value))
        window = max(now - self.since, 0.0) + 60.0
        known = transitions(
            [_alert_series(one) for one in self.metrics.raw(f"ALERTS{{{selector(alert)}}}", window)],
            interval=rule.interval,
            since=self.since + self.offset.earliest,
            evaluated=rule.last_evaluation,
        )
        before = told.get(alert.name, ())
        found += [
            AlertTransition(
                alert=alert.name,
                to=transition.to,
                at=transition.at.shifted(self.offset),
                evaluation=transition.at.latest,
                labels=dict(transition.labels),
                source="Prometheus: raw ALERTS samples at the rule group's evaluations",
                missed=transition.missed,
            )
            for transition in untold(before, known)
        ]
        told[alert.name] = (*before, *untold(before, known))
        return found

    def _stalls(self, rules: Mapping[str, Rule], now: Instant) -> tuple[frozenset[str], list[Event]]:
        """Groups that are not evaluated although Prometheus answers: their alerts say nothing, not that all is well."""
        late = {
            name: now - self._ours(rule.last_evaluation).latest
            for name, rule in rules.items()
            if rule.last_evaluation is not None
        }
        stalled = frozenset(name for name, age in late.items() if age > _evaluated_within(rules[name].interval))
        found: list[Event] = [
            ChannelChanged(
                channel=rule_channel(name),
                up=False,
                detail=f"not evaluated for {late[name]:.1f} s; it is due every {rules[name].interval:g} s",
            )
            for name in sorted(stalled - self._memory.stalled)
        ]
        found += [
            ChannelChanged(channel=rule_channel(name), up=True) for name in sorted(self._memory.stalled - stalled)
        ]
        return stalled, found

    def _signals(self, theirs: Instant, rules: Mapping[str, Rule]) -> tuple[list[Event], float]:
        """New samples of every signal on the grid of whole seconds (or of the scrape interval where it is longer), and
        up to where they go."""
        step = max(1.0, float(round(self.scrape_interval)))
        newest = ((theirs - _SCRAPE_SETTLES) // step) * step
        before = self._memory.sampled_to or newest - step
        if newest <= before:
            return [], before
        start = before + step
        grid = [start + i * step for i in range(round((newest - start) / step) + 1)]
        fresh, unsure_from = scraped(self.metrics, start, newest, step, self.scrape_interval)
        grid = [at for at in grid if at < unsure_from]
        if not grid:
            return [], before
        resolution = self.scrape_interval + self.offset.width
        found: list[Event] = []
        read = [(name, self._gridded(query, grid, step)) for name, query in signals(self.experiment).items()]
        read += [
            (operand_signal(alert.name), self._operand(alert, rules[alert.name], grid, step))
            for alert in self.experiment.alerts
            if alert.name in rules and operand(rules[alert.name].query)
        ]
        for name, (values, why) in read:
            kept = {at: value for at, value in values.items() if at in fresh}
            reasons = [why] * any(at not in values for at in grid if at in fresh)
            reasons += [_STOOD_STILL] * any(at not in fresh for at in grid)
            samples = tuple((self._middle(at), kept.get(at)) for at in grid)
            found.append(
                SignalRead(
                    signal=name, samples=samples, resolution=resolution, step=step, missing="; ".join(reasons)
                )
            )  # fmt: skip
        return found, grid[-1]

    def _gridded(self, query: str, grid: Sequence[Instant], step: float) -> tuple[dict[Instant, float], str]:
        """The values of a query on the grid, without those that are none, and what was there instead."""
        series = self.metrics.grid(query, grid[0], grid[-1], step)
        if len(series) != 1:
            return {}, f"the query answers {len(series)} series" if series else "the query answers nothing"
        values = dict(series[0].samples)
        finite = {at: value for at, value in values.items() if _finite(value) is not None}
        why = "the value is not a finite number" if len(finite) < len(values) else "the query answers nothing"
        for counter in counter_ranges(query):
            again = [one.samples for one in self.metrics.grid(f"resets({counter})", grid[0], grid[-1], step)]
            reset = {at for samples in again for at, count in samples if count > 0}
            if reset & finite.keys():
                why = f"a counter was reset within {counter}"
            finite = {at: value for at, value in finite.items() if at not in reset}
        return finite, why

    def _operand(
        self, alert: ExpectedAlert, rule: Rule, grid: Sequence[Instant], step: float
    ) -> tuple[dict[Instant, float], str]:
        """How many series with a value the alert's rule has to look at. NaN is not equal to itself and so not one."""
        looked = f"({operand(rule.query)})"
        own = {name: value for name, value in alert.labels.items() if name not in rule.labels and name != "alertname"}
        by = f" by ({', '.join(sorted(own))})" if own else ""
        try:
            series = self.metrics.grid(f"count{by} ({looked} == {looked})", grid[0], grid[-1], step)
        except BadInput:  # a scalar, say: the rule then always has something to look at
            return dict.fromkeys(grid, 1.0), ""
        mine = [one for one in series if all(one.labels.get(name) == value for name, value in own.items())]
        return (dict(mine[0].samples) if mine else {}), f"no value for {operand(rule.query)}"

    def _restart(self) -> list[Event]:
        started = self.metrics.started_at()
        if abs(started - self.started_at) < 1.0:
            return []
        self.started_at = started
        return [SourceRestarted(source="Prometheus", detail="its process is not the one that the run began with")]

    def _compared(self) -> tuple[Bounds, list[Event]]:
        return compared("Prometheus", self.offset, self.metrics.offset(), "instant query of time()")

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


_STOOD_STILL = "Prometheus did not scrape"


def _evaluated_within(interval: float) -> float:
    """Seconds after the beginning of an evaluation in which another must have begun, so that the group is at work."""
    return max(2.5 * interval, interval + 2.0)


def rule_of(alert: ExpectedAlert, loaded: Sequence[Rule]) -> Rule | None:
    """The rule that gives an expected alert: of those of its name the one whose own labels agree with the declared
    ones in most of them, and contradict none. A label that a rule does not set may come from the series."""
    fitting = [
        rule
        for rule in loaded
        if rule.alert == alert.name
        and all("{{" in rule.labels[n] or rule.labels[n] == v for n, v in alert.labels.items() if n in rule.labels)
    ]
    agreeing = lambda rule: sum(rule.labels.get(name) == value for name, value in alert.labels.items())  # noqa: E731
    return max(fitting, key=agreeing, default=None)


def active_of(alert: ExpectedAlert, loaded: Sequence[Rule]) -> tuple[ActiveAlert, ...]:
    """The active instances that are the expected alert, of whichever rule of its name."""
    return tuple(one for rule in loaded if rule.alert == alert.name for one in rule.active if alert.matches(one.labels))


def state_of(active: Sequence[ActiveAlert]) -> Literal["inactive", "pending", "firing"]:
    """The state of an alert, as people are paged: that of its furthest instance."""
    if any(one.state == "firing" for one in active):
        return "firing"
    return "pending" if active else "inactive"


def selector(alert: ExpectedAlert) -> str:
    """The matchers that pick the alert's series."""
    return matchers({**alert.labels, "alertname": alert.name})


def untold(told: Sequence[Transition], known: Sequence[Transition]) -> Sequence[Transition]:
    """What of `known` is new. Where Prometheus forgot what it had told, only what is later is."""
    if [one.to for one in known[: len(told)]] == [one.to for one in told]:
        return known[len(told) :]
    return [one for one in known if one.at.earliest > told[-1].at.latest]


def compared(peer: str, known: Bounds, again: Bounds, method: str) -> tuple[Bounds, list[Event]]:
    """The offset of a peer's clock to go on with after another comparison, and what there is to tell: nothing where
    they agree; more than drift is a clock that was set."""
    gap = known.gap(again)
    if gap == 0.0:
        return known, []
    offset = again if gap > STEPPED else known.hull(again)
    return offset, [ClockCompared(peer=peer, offset=offset, method=method)]


@dataclass
class ClockRound:
    """Compares a peer's clock again and again."""

    peer: str
    ask: Callable[[], Bounds]
    offset: Bounds
    method: str
    every: float = 10.0
    name: str = ""
    _begun: bool = False

    def __post_init__(self) -> None:
        self.name = self.name or f"clock of {self.peer}"

    def look(self, now: Instant) -> tuple[list[Event], Instant]:
        """See `Round`. The first comparison is one pause after that of the preflight."""
        found: list[Event] = []
        if self._begun:
            self.offset, found = compared(self.peer, self.offset, self.ask(), self.method)
        self._begun = True
        return found, now + self.every


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
        known, acks = set(self._held), set(self._acks)
        for expected in self.experiment.alerts:
            held = [alert for alert in self.notifier.alerts(expected.name) if expected.matches(alert.labels)]
            for alert in held:
                key = (alert.fingerprint, alert.state, alert.starts_at, ",".join(alert.silenced_by))
                if key not in known:
                    known.add(key)
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
                answers = [
                    silence
                    for silence in self.notifier.silences()
                    if self._key(silence, expected) not in acks and any(acknowledges(silence, one) for one in held)
                ]
                acks |= {self._key(silence, expected) for silence in answers}
                found += [self._acknowledged(silence, expected) for silence in answers]
        self._held, self._acks = known, acks
        return found, now + 1.0

    def _key(self, silence: Silence, alert: ExpectedAlert) -> str:
        """One silence may cover several alerts, and acknowledges each."""
        return silence.id if alert.name == self.experiment.alerts[0].name else f"{silence.id} of {alert.name}"

    def _acknowledged(self, silence: Silence, alert: ExpectedAlert) -> ResponderActed:
        """A silence that covers the alert and began during the run. Its own start is the server's stamp."""
        at = Bounds.at(silence.starts_at).shifted(self.offset)
        counted = at.latest >= self.since
        return ResponderActed(
            key=self._key(silence, alert),
            action="acknowledged",
            actor=silence.created_by,
            actor_kind="automation" if silence.created_by.startswith("system:serviceaccount:") else "human",
            verified="claimed",
            at=at,
            source=f"Alertmanager silence {silence.id}",
            text=silence.comment[:400],
            alert=alert.name,
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
    _told: set[tuple[str, str, Instant, Instant]] = field(default_factory=set)

    def look(self, now: Instant) -> tuple[list[Event], Instant]:
        """See `Round`."""
        found: list[Event] = []
        for page in self.pager.notifications(self._seen):
            self._seen = max(self._seen, page.seq)
            at = Bounds.at(page.received_at).shifted(self.offset)
            key = (page.fingerprint or page.labels.get("alertname", ""), page.status, page.starts_at, page.received_at)
            if at.latest < self.since or key in self._told:  # a pager that repeats itself has no news
                continue
            self._told.add(key)
            found.append(
                PageReceived(
                    alert=page.labels.get("alertname", ""),
                    status=page.status,
                    at=at,
                    starts_at=page.starts_at,
                    receiver=page.receiver,
                    source="pager: receipt of Alertmanager's webhook",
                    labels=dict(page.labels),
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


def _hits(matcher: Matcher, value: str) -> bool | None:
    """Whether a matcher agrees with a label's value; None where its expression is not tried."""
    if not matcher.is_regex:
        return (value == matcher.value) == matcher.is_equal
    found = fits(matcher.value, value)
    return None if found is None else found == matcher.is_equal


class PodsTracker:
    """The present set of a workload's pods, from a watch, as one event per change."""

    def __init__(
        self,
        container: str,
        told_as: Callable[[tuple[PodState, ...]], Event],
        is_own: Callable[[dict[str, Any]], bool] = lambda _: True,
    ) -> None:
        """`container` is the one whose state is told; `told_as` makes the event; `is_own` says which pods count."""
        self._container = container
        self._is_own = is_own
        self._told_as = told_as
        self._pods: dict[str, dict[str, Any]] = {}
        self._told: Event | None = None

    def update(self, event: WatchEvent) -> list[Event]:
        """The event to record for a watch event: nothing where no fact changed."""
        if event.type == "sync":
            self._pods = {item["metadata"]["uid"]: item for item in event.items}
        for item in event.items if event.type != "sync" else ():
            if event.type == "deleted":
                self._pods.pop(item["metadata"]["uid"], None)
            else:
                self._pods[item["metadata"]["uid"]] = item
        own = (pod for pod in self._pods.values() if self._is_own(pod))
        states = sorted((pod_state(pod, self._container) for pod in own), key=lambda p: p.name)
        seen = self._told_as(tuple(states))
        if seen == self._told:
            return []
        self._told = seen
        return [seen]


def pods_of_fault(fault: str, selector: PodSelector) -> PodsTracker:
    """A tracker of the pods in which a fault's effect shows."""
    return PodsTracker(selector.container, lambda pods: PodsSeen(fault=fault, pods=pods))


def pods_of_restart(plan: RestartPlanned) -> PodsTracker:
    """A tracker of the pods that are restarted to prove a recovery."""
    workload = plan.workload
    seen = lambda pods: RestartSeen(workload=workload, pods=pods)  # noqa: E731
    return PodsTracker(plan.container, seen, lambda pod: owns(workload, pod))


class ObjectTracker:
    """One object in which a fault shows, from a watch of it alone, as one event per change of what is looked at."""

    def __init__(self, fault: str, selector: ObjectSelector) -> None:
        self._fault = fault
        self._selector = selector
        self._told: ObjectSeen | None = None

    def update(self, event: WatchEvent) -> list[Event]:
        """The event to record for a watch event: nothing where no fact changed."""
        found = [] if event.type == "deleted" else list(event.items)
        seen = ObjectSeen(fault=self._fault, object=str(self._selector.ref))
        for body in found:
            seen = ObjectSeen(
                fault=self._fault,
                object=str(self._selector.ref),
                uid=body["metadata"]["uid"],
                leaving="deletionTimestamp" in body["metadata"],
                fields={path: value_at(body, path) for path in self._selector.fields},
            )
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
