"""A look at everything that a drill needs, which goes on after each failure and changes nothing.

The checks are the preflight's and the guards'; what those would refuse is MISSING here. What else a drill could do
without is a WARNING, and what cannot be looked at is UNKNOWN, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from harness.core import rule_objects
from harness.core.alerting import floor, weightiest
from harness.core.clock import Bounds, Clock
from harness.core.diagnosis import Diagnosis, State
from harness.core.errors import DrillError, Refused, Unreachable
from harness.core.experiment import AnyExperiment, ExpectedAlert
from harness.core.inbox import POLICY
from harness.core.quantity import format_duration
from harness.engine import alerting, guards, undo_records
from harness.engine.guards import Need
from harness.engine.lease import looked_at
from harness.engine.observe import rule_of
from harness.engine.stopping import MARKER, OPT_IN_LABEL
from harness.engine.sweeper import HOME
from harness.ports.cluster import Cluster, Forbidden, Invalid, Json
from harness.ports.fault import Fault
from harness.ports.metrics import Metrics, Notifier, Pager, Rule, Silence

T = TypeVar("T")
KUBERNETES, POLICIES_FROM = (1, 28), (1, 30)
"""The oldest versions that answer who we are (SelfSubjectReview), and that serve the admission policies."""
PROMETHEUS, ALERTMANAGER = (2, 37), (0, 22)
FAR_OFF = 5.0
"""Seconds from which on a clock is worth a warning: offsets are taken into account, but people read stamps, too."""
ACCOUNTS = ("drill-runner", "drill-sweeper", "drill-reader")
_INSTALL = "kubectl apply -k manifests/harness installs them; docs/roles.md explains each"
_ROLES = "give the namespace a kustomization with manifests/harness/drilled, as docs/roles.md shows"
_LOOK_AS = "no drill needs to see it; an administrator of the cluster can look"
_NO_SERVER = "the API server does not answer"


@dataclass(frozen=True, slots=True)
class Patient:
    """What is looked at; of what cannot be reached, why."""

    cluster: Cluster | DrillError
    metrics: Metrics | DrillError
    notifier: Notifier | DrillError
    pager: Pager | DrillError | None
    addresses: Mapping[str, str]
    """Of the peers, by their names."""
    doubts: Sequence[str] = ()
    """What is let pass about the ways to them."""
    needs: Sequence[Need] = ()
    """The permissions that reaching the peers takes."""


@dataclass(frozen=True, slots=True)
class Case:
    """One experiment, tuned, with the permissions that its responder takes; or why it could not be read."""

    name: str
    experiment: AnyExperiment | DrillError
    needs: Sequence[Need] = ()


class _Note:
    """What a check finds out: called with facts; warned of what is lacking, with the remedy."""

    def __init__(self) -> None:
        self.facts: list[str] = []
        self.lacks: list[str] = []
        self.remedies: list[str] = []
        self.values: dict[str, Any] = {}
        self.state = State.OK

    def __call__(self, fact: str, **values: Any) -> None:
        self.facts.append(fact)
        self.values |= values

    def warn(self, text: str, remedy: str = "") -> None:
        """What a drill could do without; an empty text says nothing."""
        if text:
            self.state = State.WARNING
            self.lacks.append(text)
            self.remedies += [remedy] if remedy and remedy not in self.remedies else []

    def unknown(self, text: str, remedy: str) -> None:
        """What could not be seen."""
        self.state = State.UNKNOWN
        self.facts.append(text)
        self.remedies.append(remedy)


class Doctor:
    """One look. `namespace` narrows it to one of those that opted in; experiments have their own."""

    def __init__(
        self,
        patient: Patient,
        cases: Sequence[Case],
        faults: Mapping[str, Fault[Any]],
        clock: Clock,
        namespace: str | None = None,
    ) -> None:
        self._patient = patient
        self._cases = cases
        self._faults = faults
        self._clock = clock
        self._only = namespace
        self._found: list[Diagnosis] = []
        self._marker: Json | None = None
        self._server_offset = Bounds.at(0.0)
        self._versions: dict[str, Future[str]] = {}
        self._silent: dict[str, DrillError] = {}
        """Why peers said nothing when they were asked for their clocks."""
        self._notifier: Notifier | None = None
        self._loaded: list[Rule] | None = None
        self._intervals: dict[str, float] | None = None
        self._silences: list[Silence] | None = None
        self._objects: list[Json] | None = None
        self._servers: list[Json] = []
        self._labels: dict[str, dict[str, str]] = {}
        """Of the cluster's namespaces, as far as they may be read."""

    def examine(self) -> list[Diagnosis]:
        """Every check, in the order in which they are of use."""
        with ThreadPoolExecutor(max_workers=6) as pool:  # who does not answer takes seconds to say so
            for name, peer in (("Prometheus", self._patient.metrics), ("Alertmanager", self._patient.notifier)):
                if not isinstance(peer, DrillError):
                    self._versions[name] = pool.submit(peer.ready)
            clocks = self._asked_for_clocks(pool)
            cluster = self._reached_cluster()
        self._silent = {name: why for name, asked in clocks.items() if isinstance(why := asked.exception(), DrillError)}
        with suppress(KeyError, DrillError):
            self._server_offset = clocks["API server"].result()
        opted = [] if cluster is None else self._of_cluster(cluster)
        self._clocks(clocks)
        self._of_chain()
        self._rule_objects(cluster)
        own = {case.experiment.namespace for case in self._cases if not isinstance(case.experiment, DrillError)}
        for name in sorted({*([self._only] if self._only else opted), *own}):
            self._of_namespace(cluster, name)
        for case in self._cases:
            self._of_case(case)
        return self._found

    # The cluster

    def _reached_cluster(self) -> Cluster | None:
        cluster, reached = self._patient.cluster, None
        with self._check("cluster", "API server") as tell:
            if isinstance(cluster, DrillError):
                raise cluster
            version = cluster.server_version()
            reached = cluster
            tell(f"Kubernetes {version}", version=version)
            self._at_least(tell, "Kubernetes", version, KUBERNETES)
            if (_numbers(version) or POLICIES_FROM) < POLICIES_FROM:
                tell.warn(
                    "it serves no ValidatingAdmissionPolicies, so nothing holds the roles to what drills may change",
                    f"use Kubernetes {_dotted(POLICIES_FROM)} or newer, or leave the policies out",
                )
        return reached

    def _of_cluster(self, cluster: Cluster) -> list[str]:
        """The namespaces that opted in."""
        with self._check("cluster", "identity") as tell:
            tell(guards.check_identity(cluster).username)
        with self._check("cluster", "mark") as tell:
            self._marker = guards.check_marker(cluster)
            tell(f"{MARKER} says environment=staging")
        opted = self._opted_in(cluster)
        with self._check("cluster", "verified messages", needed=False) as tell:
            if guards.denies(cluster, POLICY):
                tell(f"policy {POLICY} lets nobody write in another's name")
            else:
                tell.warn(f"policy {POLICY} is not in force: who acknowledged is claimed and not verified", _INSTALL)
        with self._check("cluster", "guard policies", needed=False) as tell:
            bound = {
                body["metadata"]["name"]
                for body in cluster.list("ValidatingAdmissionPolicyBinding", "")
                if "Deny" in (body.get("spec") or {}).get("validationActions", [])
            }
            absent = [name for name in guards.POLICIES if name not in bound]
            tell(f"{len(guards.POLICIES) - len(absent)} of {len(guards.POLICIES)} in force")
            if absent:
                tell.warn(f"not in force: {', '.join(absent)}; there only the roles hold the harness", _INSTALL)
        with self._check("cluster", "sweeper", needed=False) as tell:
            lack = guards.sweeper_warning(cluster, self._clock.now() + self._server_offset.middle)
            tell.warn(lack, "kubectl apply -k manifests/harness starts one; its image is explained in docs/roles.md")
            if not lack:
                tell(guards.SWEEPER_PRESENT)
        return opted

    def _opted_in(self, cluster: Cluster) -> list[str]:
        opted: list[str] = []
        with self._check("cluster", "opted-in namespaces") as tell:
            try:
                bodies = cluster.list("Namespace", "")
            except Forbidden as error:
                tell.unknown(error.fact, "name one with --namespace, or an experiment")
                return opted
            self._labels = {one["metadata"]["name"]: dict(one["metadata"].get("labels") or {}) for one in bodies}
            opted = sorted(name for name, labels in self._labels.items() if labels.get(OPT_IN_LABEL) == "true")
            if not opted:
                raise Refused(
                    "namespace-not-opted-in",
                    "no namespace has opted in to drills",
                    expected=f"the label {OPT_IN_LABEL}=true on those that may be drilled",
                    remedy=f"their owners can opt in: kubectl label namespace NAME {OPT_IN_LABEL}=true",
                )
            tell(", ".join(opted))
        return opted

    # A namespace

    def _of_namespace(self, cluster: Cluster | None, name: str) -> None:
        group = f"namespace {name}"
        if cluster is None:
            self._unknown(group, "all of it", _NO_SERVER)
            return
        with self._check(group, "opt-in") as tell:
            guards.check_namespace(cluster, name)
            tell(f"{OPT_IN_LABEL}=true")
        if self._marker is None:
            self._unknown(group, "deny-list", "the mark, which holds it, could not be read")
        else:
            with self._check(group, "deny-list") as tell:
                tell(f"none of {guards.check_denied(self._marker, name)} patterns covers it")
        with self._check(group, "permissions") as tell:
            needs = [*guards.own_needs(name), *self._patient.needs]
            for case in self._cases:
                if not isinstance(case.experiment, DrillError) and case.experiment.namespace == name:
                    needs += [*guards.run_needs(case.experiment, self._faults), *case.needs]
            tell(f"{guards.check_permissions(cluster, needs)} asked for and granted")
            tell.warn(
                guards.excess_warning(cluster, name),
                "kubectl -n drill-system create token drill-runner --duration=8h, and a kubeconfig with it",
            )
        with self._check(group, "roles", needed=False) as tell:
            bound = _bound(cluster.list("RoleBinding", name))
            tell("; ".join(f"{account}: {', '.join(bound.get(account, ())) or 'none'}" for account in ACCOUNTS))
            if "drill-sweeper" not in bound:
                tell.warn("no role lets the sweeper undo anything here", _ROLES)
        holder, silent = "", 0.0
        with self._check(group, "lock", needed=False) as tell:
            holder, silent, phase = looked_at(cluster, name, self._clock.now() + self._server_offset.middle)
            if holder and not silent:
                tell.warn(f"{holder} holds it ({phase or 'at work'})", "wait for its end; `drill` shows how far it is")
            else:
                tell("nobody holds it" if not holder else f"left by {holder}, not renewed for {silent:.0f} s")
        with self._check(group, "leftovers") as tell:
            records, broken = undo_records.readable(cluster, name)
            if broken:
                raise broken[0]
            tell(f"{len(records)} undo records are open" if records else "no undo record is open")
            if records and not (holder and not silent):
                left = ", ".join(f"{one.fault} of run {one.run_id}" for one in records)
                tell.warn(f"not undone: {left}", "`drill recover` brings it back; so does the next run, first thing")

    # The alerting chain

    def _asked_for_clocks(self, pool: ThreadPoolExecutor) -> dict[str, Future[Bounds]]:
        """All at once: a peer that stamps whole seconds takes seconds to compare well."""
        patient = self._patient
        peers = {
            "API server": patient.cluster, "Prometheus": patient.metrics, "Alertmanager": patient.notifier,
            "pager": patient.pager,
        }  # fmt: skip
        return {
            name: pool.submit(peer.offset)
            for name, peer in peers.items()
            if peer is not None and not isinstance(peer, DrillError)
        }

    def _clocks(self, asked: Mapping[str, Future[Bounds]]) -> None:
        for name, future in asked.items():
            if name in self._silent:
                self._unknown("clocks", name, "it does not answer")
                continue
            with self._check("clocks", name) as tell:
                offset = future.result()
                tell(
                    f"{offset.middle:+.3f} s from ours, give or take {offset.width / 2:.3f} s",
                    offset_earliest_s=offset.earliest,
                    offset_latest_s=offset.latest,
                )
                if abs(offset.middle) - offset.width / 2 > FAR_OFF:
                    tell.warn(f"that is more than {FAR_OFF:g} s", "let both keep time by NTP")

    def _of_chain(self) -> None:
        group, patient = "alerting", self._patient
        metrics = self._peer(group, "Prometheus", patient.metrics, "prometheus", PROMETHEUS)
        notifier = self._peer(group, "Alertmanager", patient.notifier, "alertmanager", ALERTMANAGER)
        self._pager(group, patient.pager)
        for doubt in patient.doubts:
            with self._check(group, "ways to peers") as tell:
                tell.warn(doubt, "`tls` and `url` in drill.yaml; docs/your-own-cluster.md explains them")
        if metrics is None:
            for check in ("scrape intervals", "rule groups", "Prometheus tells"):
                self._unknown(group, check, "Prometheus does not answer")
        else:
            self._of_metrics(group, metrics)
        self._notifier = notifier
        if notifier is not None:
            with self._check(group, "silences") as tell:
                self._silences = notifier.silences()
                tell(f"{sum(one.state != 'expired' for one in self._silences)} in force or to come")
        else:
            self._unknown(group, "silences", "Alertmanager does not answer")

    def _pager(self, group: str, pager: Pager | DrillError | None) -> None:
        if self._behind(pager):
            self._unknown(group, "pager", f"{self._patient.addresses['pager']} goes through the API server")
            return
        with self._check(group, "pager") as tell:
            if isinstance(pager, DrillError):
                raise pager
            if "pager" in self._silent:
                raise self._silent["pager"]
            if pager is None:
                tell.warn("none: nothing will be known of pages", "name one with --pager, or `pager` in drill.yaml")
            else:
                pager.notifications(0)
                tell(f"answers at {self._patient.addresses['pager']}")

    def _behind(self, peer: object) -> bool:
        """Whether a peer was not tried since the API server before it is not there."""
        cluster = self._patient.cluster
        return isinstance(cluster, DrillError) and getattr(peer, "slug", "") == "endpoint-without-cluster"

    def _of_metrics(self, group: str, metrics: Metrics) -> None:
        with self._check(group, "scrape intervals") as tell:
            self._intervals = metrics.scrape_intervals()
            pools = [f"{pool} {format_duration(seconds)}" for pool, seconds in sorted(self._intervals.items())]
            tell(", ".join(pools) or "none", scrape_intervals_s=self._intervals)
            if not pools:
                tell.warn("nothing is scraped", "give Prometheus targets (scrape_configs, or ServiceMonitors)")
        with self._check(group, "rule groups") as tell:
            self._loaded = metrics.rules()
            groups = {one.group: one.interval for one in self._loaded}
            shown = [f"{name} every {format_duration(seconds)}" for name, seconds in sorted(groups.items())]
            tell(f"{len(self._loaded)} alerting rules: {', '.join(shown) or 'none'}", evaluation_intervals_s=groups)
            ill = [one.alert for one in self._loaded if one.health not in {"ok", "unknown"}]
            if ill:
                tell.warn(f"cannot be evaluated: {', '.join(ill)}", "promtool check rules shows why, offline")
        with self._check(group, "Prometheus tells", needed=False) as tell:
            told = metrics.notified()
            tell(", ".join(url.removesuffix("/api/v2/alerts") for url in told) or "nobody")
            if not told:
                tell.warn("alerts reach no Alertmanager", "`alerting` in Prometheus' configuration, or in its object")

    def _peer(self, group: str, name: str, peer: T | DrillError, key: str, oldest: tuple[int, int]) -> T | None:
        """The peer where it answers, told with its version."""
        answers = None
        if self._behind(peer):
            self._unknown(group, name, f"{self._patient.addresses[key]} goes through the API server")
            return None
        with self._check(group, name) as tell:
            if isinstance(peer, DrillError):
                raise peer
            version = self._versions[name].result()
            answers = peer
            tell(f"version {version} at {self._patient.addresses[key]}", version=version)
            self._at_least(tell, name, version, oldest)
        return answers

    def _at_least(self, tell: _Note, name: str, version: str, oldest: tuple[int, int]) -> None:
        numbers = _numbers(version)
        if numbers is None:
            tell.warn(f"{version!r} tells no version", f"{name} {_dotted(oldest)} or newer is needed")
        elif numbers < oldest:
            raise Refused(
                "version-too-old",
                f"{name} is version {version}",
                expected=f"{_dotted(oldest)} or newer",
                remedy=f"update {name}",
            )

    def _rule_objects(self, cluster: Cluster | None) -> None:
        group, check = "alerting", "rule objects"
        if cluster is None:
            self._unknown(group, check, _NO_SERVER)
            return
        with self._check(group, check, needed=False) as tell:
            try:
                self._objects = self._listed(cluster, rule_objects.RULES)
                self._servers = self._listed(cluster, rule_objects.SERVERS)
            except Invalid as error:
                if error.slug != "unknown-kind":
                    raise
                tell("the Prometheus operator is not installed: rules come from plain files")
                return
            tell(f"{len(self._objects)} of the Prometheus operator, for {len(self._servers)} Prometheus servers")

    @staticmethod
    def _listed(cluster: Cluster, kind: str) -> list[Json]:
        return cluster.list(kind, "")

    # An experiment

    def _of_case(self, case: Case) -> None:
        group, experiment = f"experiment {case.name}", case.experiment
        with self._check(group, "file") as tell:
            if isinstance(experiment, DrillError):
                raise experiment
            tell(f"valid; it drills {experiment.namespace}")
        if isinstance(experiment, DrillError):
            return
        if self._loaded is None or self._intervals is None:
            for name in [*(alert.name for alert in experiment.alerts), "ranges"]:
                self._unknown(group, name, "Prometheus' rules or targets could not be read")
            return
        known = ((alert.name, rule_of(alert, self._loaded)) for alert in experiment.alerts)
        rules = {name: rule for name, rule in known if rule is not None}
        with self._check(group, "ranges") as tell:
            fact, lacks = alerting.check_ranges(experiment, rules, self._intervals, self._loaded)
            tell(fact)
            for lack in lacks:
                tell.warn(lack, "`range` in the profile, or a shorter scrape interval")
        for expected in experiment.alerts:
            about = f"{group}, alert {expected.name}"
            self._rule(about, expected)
            if expected.name in rules:
                self._of_alert(about, expected, rules[expected.name])

    def _rule(self, group: str, expected: ExpectedAlert) -> None:
        with self._check(group, "rule") as tell:
            loaded = self._loaded or []
            try:
                rule = alerting.check_rule(expected, loaded)
            except Refused as error:
                raise self._why_not_loaded(expected, error) from error
            tell(
                f"{self._source(rule)}, group {rule.group}, for {format_duration(rule.for_seconds)}, "
                f"evaluated every {format_duration(rule.interval)}",
                for_s=rule.for_seconds,
                evaluation_s=rule.interval,
                file=rule.file,
            )

    def _source(self, rule: Rule) -> str:
        if self._objects is None:
            return f"file {rule.file}"
        body = rule_objects.written_from(self._objects, rule.file)
        return f"file {rule.file}, of no rule object" if body is None else rule_objects.called(body)

    def _why_not_loaded(self, expected: ExpectedAlert, error: Refused) -> Refused:
        """The refusal with what rule objects say about it."""
        holding = rule_objects.holding(self._objects or [], expected.name)
        if error.slug != "alert-rule-missing" or not holding:
            return error
        body = holding[0]
        why = rule_objects.unselected(body, self._servers, self._labels)
        selected = "a Prometheus selects it, and has not loaded it (yet)"
        told = "; ".join(why) or (selected if self._servers else "no Prometheus object that could select it was found")
        return Refused(
            error.slug,
            f"{rule_objects.called(body)} holds the alert {expected.name}, and Prometheus has not loaded it: {told}",
            expected="a rule object that the operator's Prometheus selects",
            remedy="label the object, or its namespace, as the selector says; or widen the selector"
            if why
            else "the operator's log and the events of that object say whether it takes the rule; compare the address "
            "of Prometheus",
        )

    def _of_alert(self, group: str, expected: ExpectedAlert, rule: Rule) -> None:
        with self._check(group, "quiet") as tell:
            alerting.check_inactive(expected, self._loaded or [])
            tell("inactive")
        with self._check(group, "runbook") as tell:
            page = rule.annotations.get("runbook_url", "")
            tell(page or "none")
            if not page:
                tell.warn("whoever is paged is sent nowhere", "add the annotation runbook_url to the rule")
        wait = self._route(group, expected, rule)
        if self._silences is None:
            self._unknown(group, "silences", "Alertmanager does not answer")
        else:
            with self._check(group, "silences") as tell:
                alerting.check_silences(expected, rule, self._silences)
                tell("none covers it")
        with self._check(group, "floor") as tell:
            scrape = alerting.longest_scrape(self._intervals or {})
            chain = {"scrape": scrape, "evaluation": rule.interval, "hold": rule.for_seconds, "group_wait": wait}
            firing, paged = floor(scrape=scrape, evaluation=rule.interval, hold=rule.for_seconds, group_wait=wait)
            knob, seconds = weightiest(**chain)  # type: ignore[arg-type]
            tell(alerting.check_in_time(expected, firing, rule, scrape))
            tell(
                f"to the page {paged.earliest:.1f} to {paged.latest:.1f} s" if paged else "to the page: not known",
                firing_earliest_s=firing.earliest,
                firing_latest_s=firing.latest,
                paged_earliest_s=paged.earliest if paged else None,
                paged_latest_s=paged.latest if paged else None,
                weightiest=knob,
            )
            tell(f"{knob} weighs most ({format_duration(seconds)})")
            if firing.latest > expected.within:
                tell.warn(
                    f"at worst that is later than the {format_duration(expected.within)} that the experiment allows",
                    f"shorten the {knob}, or allow more in `alerts`",
                )

    def _route(self, group: str, expected: ExpectedAlert, rule: Rule) -> float | None:
        """Seconds of group_wait, where they are known."""
        notifier, wait = self._notifier, None
        if notifier is None:
            self._unknown(group, "route", "Alertmanager does not answer")
            return None
        with self._check(group, "route") as tell:
            route = notifier.route(alerting.labels_of(expected, rule))
            wait = route.group_wait
            through = f" through {', '.join(route.through)}" if route.through else ""
            tell(
                f"receiver {route.receiver}{through}; group_wait {format_duration(wait)}, "
                f"group_interval {format_duration(route.group_interval)}",
                receiver=route.receiver,
                group_wait_s=wait,
                group_interval_s=route.group_interval,
            )
            if route.through == ():
                tell.warn("that receiver tells nobody", "route the alert to one with a webhook, a pager or the like")
        return wait

    # How checks end

    @contextmanager
    def _check(self, group: str, name: str, *, needed: bool = True) -> Iterator[_Note]:
        """One check. What it raises is MISSING, or where a drill can do without, UNKNOWN if it could not be seen."""
        note = _Note()
        try:
            yield note
        except DrillError as error:
            unseen = isinstance(error, Unreachable | Forbidden)
            state = State.MISSING if needed else State.UNKNOWN if unseen else State.WARNING
            remedy = _LOOK_AS if not needed and isinstance(error, Forbidden) else error.remedy
            self._found.append(
                Diagnosis(group, name, state, error.fact, remedy, error.expected, error.slug, note.values)
            )
        else:
            facts = "; ".join([*note.facts, *note.lacks])
            self._found.append(Diagnosis(group, name, note.state, facts, "; ".join(note.remedies), values=note.values))

    def _unknown(self, group: str, name: str, why: str) -> None:
        self._found.append(Diagnosis(group, name, State.UNKNOWN, f"not looked at: {why}", "mend that first"))


def _bound(bindings: Sequence[Json]) -> dict[str, list[str]]:
    """The roles that the harness' accounts have in a namespace."""
    found: dict[str, list[str]] = {}
    for body in bindings:
        for subject in body.get("subjects") or ():
            if subject.get("kind") == "ServiceAccount" and subject.get("namespace") == HOME:
                found.setdefault(str(subject.get("name")), []).append(str(body["roleRef"]["name"]))
    return found


def _numbers(version: str) -> tuple[int, int] | None:
    match = re.match(r"v?(\d+)\.(\d+)", version)
    return None if match is None else (int(match[1]), int(match[2]))


def _dotted(numbers: tuple[int, int]) -> str:
    return ".".join(map(str, numbers))
