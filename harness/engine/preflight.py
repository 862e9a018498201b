"""Everything that is checked before the first write, and everything that a run must know beforehand.

Each check tells a fact, and where it fails, what was expected and the remedy. The first failure ends the preflight:
later checks would only repeat it in other words. Apart from the lock nothing in the cluster is written here, and the
lock is given back when a check fails.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from harness.core.alerting import floor
from harness.core.clock import Bounds, Clock, Instant
from harness.core.errors import BadInput, DrillError, Refused, RollbackIncomplete
from harness.core.event import AlertingRead, CheckDone, ClockCompared, Event, InjectionPlanned
from harness.core.experiment import AnyExperiment, Condition, FaultSpec, RestartProof, measured_effect
from harness.core.inbox import POLICY
from harness.engine import alerting, guards, restarts
from harness.engine.observe import active_of, fresh_instants
from harness.engine.recovery import Recovered, recover
from harness.engine.runner import planned
from harness.engine.stopping import OPT_IN_LABEL
from harness.ports.cluster import Cluster, Identity, Json
from harness.ports.fault import Chooses, Fault, Plan, rehearse
from harness.ports.kinds import workload as address
from harness.ports.metrics import Metrics, Notifier, Pager, Rule, Series

STEADY_GRACE = 60.0
"""Seconds, beyond the window itself, that the steady state may take to come about."""
RESOLVE_GRACE = 180.0
"""Seconds that the alert of a dead run has to be resolved after its fault was undone."""


@dataclass(frozen=True, slots=True)
class Offsets:
    """Bounds on (their clock - ours), in seconds."""

    api: Bounds
    prometheus: Bounds
    alertmanager: Bounds
    pager: Bounds | None


@dataclass(frozen=True, slots=True)
class Ready:
    """What the preflight found out for the run."""

    offsets: Offsets
    scrape_interval: float
    prometheus_started_at: Instant
    inbox_verified: bool
    identity: Identity


@dataclass(frozen=True, slots=True)
class Peers:
    """Whom a run talks to. The pager is optional: without one, nothing is known of pages."""

    cluster: Cluster
    metrics: Metrics
    notifier: Notifier
    pager: Pager | None
    close: Callable[[], None] = lambda: None
    """Gives the connections back."""
    doubts: Sequence[str] = ()
    """What is let pass about the ways to them, such as a certificate that is not checked."""


class Preflight:
    """The checks of one run, in their order."""

    def __init__(
        self,
        experiment: AnyExperiment,
        peers: Peers,
        faults: Mapping[str, Fault[Any]],
        clock: Clock,
        record: Callable[[Event], object],
        wait: Callable[[float], bool],
        say: Callable[[str], None],
        needs: Sequence[guards.Need] = (),
        fading: Collection[str] = (),
    ) -> None:
        """`needs` are the permissions that reaching the peers and starting the responder take; `fading` the alerts
        that a drill of ours has just raised, and that may be on their way out."""
        self._experiment = experiment
        self._peers = peers
        self._faults = faults
        self._clock = clock
        self._record = record
        self._wait = wait
        self._say = say
        self._needs = needs
        self._fading = frozenset(fading)
        self._recovered = 0
        self.marker: Json = {}

    def guards(self) -> Identity:
        """Who we are and whether drills are wanted here at all. Before the lock is taken."""
        cluster, namespace = self._peers.cluster, self._experiment.namespace
        with self._check("identity") as tell:
            identity = guards.check_identity(cluster)
            tell(f"{identity.username} on {cluster.server_version()}")
        with self._check("cluster is marked as staging") as tell:
            self.marker = guards.check_marker(cluster)
            tell("environment=staging")
        with self._check("namespace opted in") as tell:
            guards.check_namespace(cluster, namespace)
            tell(f"{OPT_IN_LABEL}=true")
        with self._check("nothing here is denied") as tell:
            tell(f"{guards.check_denied(self.marker, namespace)} patterns of the cluster's owners looked at")
        return identity

    def leftovers(self, on_done: Callable[[Recovered], None] = lambda _: None) -> None:
        """Bring back what a dead run left, and tell `on_done` of each fault. The lock is held. Raises
        RollbackIncomplete where that failed."""
        with self._check("nothing left of an earlier run") as tell:
            done = recover(
                self._peers.cluster, self._experiment.namespace, self._faults, self._clock, self._wait, self._say,
                on_done=on_done,
            )  # fmt: skip
            dirty = [d for one in done if not one.clean for d in one.differences]
            if dirty:
                raise RollbackIncomplete(
                    "dirty",
                    f"an earlier run left {self._experiment.namespace} changed: {'; '.join(dirty)}",
                    expected="the namespace as it was before that run",
                    remedy="run `drill recover` and read what it says; with --force it overwrites the fault's own "
                    "field and accepts every other difference as it is now",
                )
            self._recovered = len(done)
            tell(f"recovered {len(done)} fault(s) of an earlier run" if done else "no undo record is open")

    def run(self, identity: Identity) -> Ready:
        """All other checks, the plans of all faults, and what the run must know."""
        self._permissions()
        self._reach()
        offsets = self._clocks()
        self._sweeper(offsets.api)
        rules = self._rules()
        intervals = self._peers.metrics.scrape_intervals()
        scrape = alerting.longest_scrape(intervals)
        self._alerting(rules, scrape)
        self._ranges(rules, intervals)
        self._quiet(rules)
        self._plans()
        self._steady(offsets.prometheus, scrape)
        self._provable(offsets.prometheus, scrape)
        self._abortable(offsets.prometheus, scrape)
        return Ready(
            offsets=offsets,
            scrape_interval=scrape,
            prometheus_started_at=self._peers.metrics.started_at(),
            inbox_verified=self._inbox_policy(),
            identity=identity,
        )

    def _permissions(self) -> None:
        cluster, namespace = self._peers.cluster, self._experiment.namespace
        with self._check("permissions") as tell:
            needs = [*guards.run_needs(self._experiment, self._faults), *self._needs]
            tell(f"{guards.check_permissions(cluster, needs)} permissions asked and granted")
            tell.warn(guards.excess_warning(cluster, namespace))

    def _sweeper(self, offset: Bounds) -> None:
        with self._check("a sweeper watches over the run") as tell:
            warning = guards.sweeper_warning(self._peers.cluster, self._clock.now() + offset.middle)
            tell("none was found" if warning else guards.SWEEPER_PRESENT)
            tell.warn(warning)

    def _reach(self) -> None:
        with self._check("Prometheus answers") as tell:
            tell(f"version {self._peers.metrics.ready()}")
            tell.warn("; ".join(self._peers.doubts))
        with self._check("Alertmanager answers") as tell:
            tell(f"version {self._peers.notifier.ready()}")

    def _clocks(self) -> Offsets:
        """Compare all clocks at once: a peer that stamps whole seconds takes seconds to compare well."""
        peers = self._peers
        with self._check("clocks compared") as tell, ThreadPoolExecutor(max_workers=4) as pool:
            asked = [pool.submit(ask) for ask in (peers.cluster.offset, peers.metrics.offset, peers.notifier.offset)]
            pager_asked = pool.submit(peers.pager.offset) if peers.pager is not None else None
            api, prometheus, alertmanager = (one.result() for one in asked)
            pager = pager_asked.result() if pager_asked is not None else None
            known = [offset for offset in (api, prometheus, alertmanager, pager) if offset is not None]
            worst = max(max(abs(offset.earliest), abs(offset.latest)) for offset in known)
            tell(f"{len(known)} peers, none further than {worst:.3f} s from ours")
        for name, offset, method in (
            ("API server", api, "HTTP Date header, whole seconds"),
            ("Prometheus", prometheus, "instant query of time()"),
            ("Alertmanager", alertmanager, "HTTP Date header, whole seconds"),
            ("pager", pager, "its own stamp"),
        ):
            if offset is not None:
                self._record(ClockCompared(peer=name, offset=offset, method=method))
        return Offsets(api, prometheus, alertmanager, pager)

    def _rules(self) -> dict[str, Rule]:
        found: dict[str, Rule] = {}
        with self._check("expected alerts are loaded") as tell:
            loaded = self._peers.metrics.rules()
            for expected in self._experiment.alerts:
                found[expected.name] = alerting.check_rule(expected, loaded)
            tell(", ".join(f"{r.alert} in group {r.group}" for r in found.values()) or "none expected")
        return found

    def _alerting(self, rules: Mapping[str, Rule], scrape: float) -> None:
        for expected in self._experiment.alerts:
            rule = rules[expected.name]
            route = self._peers.notifier.route(alerting.labels_of(expected, rule))
            firing, _ = floor(scrape=scrape, evaluation=rule.interval, hold=rule.for_seconds)
            self._record(
                AlertingRead(
                    alert=rule.alert,
                    group=rule.group,
                    file=rule.file,
                    query=rule.query,
                    for_seconds=rule.for_seconds,
                    evaluation_interval=rule.interval,
                    scrape_interval=scrape,
                    group_wait=route.group_wait,
                    group_interval=route.group_interval,
                    receiver=route.receiver,
                    labels=dict(rule.labels),
                    runbook_url=rule.annotations.get("runbook_url", ""),
                    floor=firing,
                )
            )
            with self._check(f"{expected.name} can fire in time") as tell:
                tell(alerting.check_in_time(expected, firing, rule, scrape))

    def _ranges(self, rules: Mapping[str, Rule], intervals: Mapping[str, float]) -> None:
        with self._check("ranges hold enough samples") as tell:
            loaded = self._peers.metrics.rules()
            fact, warnings = alerting.check_ranges(self._experiment, rules, intervals, loaded)
            tell(fact)
            for warning in warnings:
                tell.warn(warning)

    def _quiet(self, rules: Mapping[str, Rule]) -> None:
        with self._check("no alert is active") as tell:
            loaded = self._settled()
            for expected in self._experiment.alerts:
                alerting.check_inactive(expected, loaded)
            expected_severities = {r.labels.get("severity", "") for r in rules.values()}
            own = {expected.name for expected in self._experiment.alerts}
            for rule in loaded:
                if rule.alert in own:
                    continue  # what is the drill's is inactive; another system's, told apart by labels, is not asked
                if rule.state == "firing" and rule.labels.get("severity", "") in expected_severities - {""}:
                    raise Refused(
                        "foreign-alert-firing",
                        f"{rule.alert} (severity {rule.labels['severity']}) is firing",
                        expected="no open incident of the same severity",
                        remedy="postpone the drill: a real incident goes first",
                    )
            tell("the expected ones are inactive and none of the same severity fires")
        with self._check("no silence covers the alert") as tell:
            silences = self._peers.notifier.silences()
            for expected in self._experiment.alerts:
                alerting.check_silences(expected, rules[expected.name], silences)
            tell(f"{len(silences)} silences looked at")

    def _settled(self) -> list[Rule]:
        """The loaded rules as they are now. Where a dead run was just undone, or a drill ended just before, its alert
        is still on its way out, so it is given time; an alert that nobody of us caused is given none."""
        deadline = self._clock.now() + RESOLVE_GRACE
        loaded = self._peers.metrics.rules()
        while (self._recovered and any(active_of(alert, loaded) for alert in self._experiment.alerts)) or any(
            rule.alert in self._fading and rule.state != "inactive" for rule in loaded
        ):
            if self._clock.now() >= deadline or not self._wait(1.0):
                break
            loaded = self._peers.metrics.rules()
        return loaded

    def _plans(self) -> None:
        known: dict[str, Plan] = {}
        for spec in self._experiment.faults:
            fault = self._faults[spec.kind]
            with self._check(f"plan of {spec.id}") as tell:
                plan = checked_plan(spec, fault, self._experiment.namespace, self._peers.cluster, self.marker)
                known |= {} if isinstance(fault, Chooses) else {spec.id: plan}
                guards.check_overlap(known)
                tell(f"{plan.summary}; {plan.pods} pods; the server accepts it (dry run)")
                event: InjectionPlanned = planned(spec.id, spec.kind, plan)
                self._record(event)

        for alert, proof in self._experiment.restart_proofs().items():
            with self._check(f"restart behind {alert}") as tell:
                tell(checked_restart(alert, proof, self._experiment.namespace, self._peers.cluster, self.marker))

    def _steady(self, offset: Bounds, scrape: float) -> None:
        for condition in self._experiment.steady_state:
            with self._check(f"steady state: {condition.name}") as tell:
                tell(self._hold(condition, offset, scrape))

    def _provable(self, offset: Bounds, scrape: float) -> None:
        """What Prometheus measures must be able to prove an effect: it says something, and not yes already."""
        for spec in self._experiment.faults:
            effect = measured_effect(spec)
            if effect is None:
                continue
            with self._check(f"effect of {spec.id} can be measured") as tell:
                series = self._newest(effect.query, offset, scrape)
                if len(series) > 1:
                    raise BadInput(
                        "effect-ambiguous",
                        f"{effect.query} answers {len(series)} series",
                        expected="one series, whose value is compared with the bound",
                        remedy=f"aggregate it (sum, max) in `effect` of fault {spec.id}",
                    )
                values = [value for one in series for _, value in one.samples]
                if values and effect.holds(values[-1]):
                    raise BadInput(
                        "effect-proves-nothing",
                        f"{effect} holds before fault {spec.id} is injected: it is {values[-1]:g}",
                        expected="a condition that only the fault brings about",
                        remedy=f"edit `effect` of fault {spec.id}, or wait until the system is well",
                    )
                tell(f"{effect.query} is {values[-1]:g}" if values else f"{effect.query} answers nothing yet")
                tell.warn("" if values else f"without a value of {effect.query} the fault will not count")

    def _abortable(self, offset: Bounds, scrape: float) -> None:
        """What would end the run must be seen, and must not be so already."""
        for condition in self._experiment.abort:
            with self._check(f"abort condition: {condition.name}") as tell:
                series = self._newest(condition.query, offset, scrape)
                values = [value for one in series for _, value in one.samples]
                if len(series) != 1 or not values:
                    raise Refused(
                        "abort-condition-unseen",
                        f"{condition.query} answers {len(series)} series",
                        expected="one series with a value: what cannot be seen stops nothing",
                        remedy=f"edit abort condition {condition.name!r}: aggregate its query (sum, max), and where it "
                        "answers nothing as long as all is well, write `... or vector(0)`",
                    )
                if condition.holds(values[-1]):
                    raise Refused(
                        "abort-condition-holds",
                        f"{condition} holds already: it is {values[-1]:g}",
                        expected="a condition that does not hold before anything is broken",
                        remedy=f"wait until the system is well, or edit abort condition {condition.name!r}",
                    )
                tell(f"{condition.query} is {values[-1]:g}")

    def _newest(self, query: str, offset: Bounds, scrape: float) -> Sequence[Series]:
        step = max(1.0, float(round(scrape)))
        newest = ((self._clock.now() + offset.middle) // step) * step
        return self._peers.metrics.grid(query, newest - step, newest, step)

    def _hold(self, condition: Condition, offset: Bounds, scrape: float) -> str:
        """Wait until the condition has held for its window, judged on Prometheus' own samples."""
        step = max(1.0, float(round(scrape)))
        deadline = self._clock.now() + condition.for_ + STEADY_GRACE
        while True:
            theirs = self._clock.now() + offset.middle
            newest = (theirs // step) * step
            start = newest - max(step, (condition.for_ // step) * step)
            series = self._peers.metrics.grid(condition.query, start, newest, step)
            fresh = fresh_instants(self._peers.metrics, start, newest, step, scrape)
            values = [v for at, v in series[0].samples if at in fresh] if len(series) == 1 else []
            complete = len(values) == round((newest - start) / step) + 1
            if complete and all(condition.holds(v) for v in values):
                return f"{condition} for {condition.for_:g} s ({len(values)} samples, newest {values[-1]:g})"
            if self._clock.now() >= deadline:
                seen = f"the newest value is {values[-1]:g}" if values else "there is no fresh data"
                raise Refused(
                    "not-steady",
                    f"{condition} has not held for {condition.for_:g} s: {seen}",
                    expected="a system that is well before it is broken",
                    remedy="look at the system, or correct `steady_state` in the experiment",
                )
            if not self._wait(step):
                raise _interrupted()

    def _inbox_policy(self) -> bool:
        try:
            return guards.denies(self._peers.cluster, POLICY)
        except DrillError:
            return False

    @contextmanager
    def _check(self, name: str) -> Iterator[_Findings]:
        found = _Findings()
        try:
            yield found
        except DrillError as error:
            self._record(
                CheckDone(
                    name=name, ok=False, fact=error.fact, slug=error.slug, expected=error.expected, remedy=error.remedy
                )
            )
            raise
        self._record(CheckDone(name=name, ok=True, fact="; ".join(found.facts), warning="; ".join(found.warnings)))


class _Findings:
    """What a check found out: called with facts, and warned of what it lets pass."""

    def __init__(self) -> None:
        self.facts: list[str] = []
        self.warnings: list[str] = []

    def __call__(self, fact: str) -> None:
        self.facts.append(fact)

    def warn(self, text: str) -> None:
        """Keep a warning; an empty one is none."""
        if text:
            self.warnings.append(text)


def checked_plan(spec: FaultSpec, fault: Fault[Any], namespace: str, cluster: Cluster, marker: Json) -> Plan:
    """The plan of a fault that touches nothing denied, nothing that a controller would set back, and no more than the
    fault declares, and that the API server would take. Raises what `plan` raises, Refused by a guard, and what the
    dry run answers."""
    plan = fault.plan(spec, namespace, cluster)
    guards.check_denied(marker, namespace, plan.targets)
    guards.check_owners(cluster, spec, plan)
    if plan.pods > spec.blast_radius.pods or plan.objects > spec.blast_radius.objects:
        raise Refused(
            "blast-radius",
            f"fault {spec.id} would touch {plan.pods} pods and {plan.objects} objects",
            expected=f"at most {spec.blast_radius.pods} pods and {spec.blast_radius.objects} objects",
            remedy="raise `blast_radius` on purpose, or narrow the fault",
        )
    rehearse(fault, plan.undo, cluster)
    return plan


def checked_restart(alert: str, proof: RestartProof, namespace: str, cluster: Cluster, marker: Json) -> str:
    """What would be restarted to prove a recovery, in words. Raises Refused where that is denied, BadInput where there
    is nothing to restart."""
    guards.check_denied(marker, namespace, [address(proof.of, namespace)])
    return restarts.check(cluster, namespace, alert, proof.of)


def _interrupted() -> Refused:
    return Refused(
        "interrupted",
        "stopped during the preflight",
        expected="nothing",
        remedy="nothing was injected; start the drill again when you like",
    )
