"""The doctor looks at everything, goes on after each failure, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import yaml

from harness.catalog import faults
from harness.core.clock import Bounds, utc
from harness.core.diagnosis import Diagnosis, State
from harness.core.errors import BadInput, DrillError, Unreachable
from harness.core.inbox import POLICY
from harness.engine import guards
from harness.engine.doctor import ACCOUNTS, Case, Doctor, Patient
from harness.engine.lease import Lease
from harness.engine.preflight import Preflight
from harness.engine.sweeper import HEARTBEAT, HOME
from harness.engine.undo_records import LABEL
from harness.loading import parse
from harness.ports.cluster import Ref
from harness.ports.metrics import Matcher, Route, Silence
from tests.docs.pages import ROOT
from tests.fakes.drill import Drill, experiment_data
from tests.fakes.world import NAMESPACE, FakeMetrics, FakeNotifier, FakePager, World

OK, MISSING, WARNING, UNKNOWN = State.OK, State.MISSING, State.WARNING, State.UNKNOWN
ALERT = "experiment oom-workers, alert HighQueueDepth"
READS = {"whoami", "version", "offset", "get", "list", "allowed"}
SILENT = Unreachable("peer-unreachable", "nobody answers", expected="an answer", remedy="start it")


class Ward:
    """A world in which a drill would be welcome, and the doctor in it."""

    def __init__(self) -> None:
        self.world = World()
        self.cluster = self.world.cluster
        self.metrics, self.notifier = FakeMetrics(self.world), FakeNotifier(self.world)
        self.data = experiment_data()
        self.version = "v1.34.4"
        self.cluster.server_version = lambda: self.version  # type: ignore[method-assign]
        for name in (POLICY, *guards.POLICIES):
            self.cluster.put(binding(name, ["Deny"]))
        self.beat(self.world.clock.now())
        for account in ACCOUNTS:
            self.cluster.put(role_binding(account))
        self.cluster.denied_reviews = {(one.verb, one.kind, one.namespace) for one in guards.excess(NAMESPACE)}
        self.cluster.calls.clear()
        self.patient = Patient(
            self.cluster, self.metrics, self.notifier, FakePager(self.world),
            {name: f"service:monitoring/{name}:1" for name in ("prometheus", "alertmanager", "pager")},
        )  # fmt: skip

    def beat(self, at: float) -> None:
        meta = {"name": HEARTBEAT, "namespace": HOME}
        spec = {"holderIdentity": "sweeper", "renewTime": utc(at)}
        self.cluster.put({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec})

    def rule(self, **changes: Any) -> None:
        """Let the loaded rule be another."""
        loaded = [replace(one, **changes) for one in FakeMetrics.rules(self.metrics)]
        self.metrics.rules = lambda: loaded  # type: ignore[method-assign]

    def look(self, *more: Case, **changes: Any) -> dict[tuple[str, str], Diagnosis]:
        """What the doctor finds, by group and check; each only once."""
        cases = [Case("oom-workers", parse(self.data).tuned("smoke")), *more]
        patient = replace(self.patient, **changes)
        found = Doctor(patient, cases, faults(), self.world.clock).examine()
        assert {call.verb for call in self.cluster.calls} <= READS, "the doctor only reads"
        for one in found:
            assert one.fact
            assert one.remedy or one.state is OK, f"{one.check} has no remedy"
        return {(one.group, one.check): one for one in found}


@pytest.fixture
def ward() -> Ward:
    return Ward()


def binding(name: str, actions: list[str]) -> dict[str, Any]:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name}, "spec": {"policyName": name, "validationActions": actions},
    }  # fmt: skip


def role_binding(account: str) -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": account, "namespace": NAMESPACE},
        "roleRef": {"kind": "Role", "name": account, "apiGroup": "rbac.authorization.k8s.io"},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": HOME}],
    }  # fmt: skip


def bad(found: dict[tuple[str, str], Diagnosis]) -> dict[tuple[str, str], State]:
    return {place: one.state for place, one in found.items() if one.state is not OK}


# Where all is well


def test_where_all_is_well_everything_is_ok_and_nothing_is_written(ward: Ward) -> None:
    before = ward.cluster.dump()
    found = ward.look()
    assert bad(found) == {}
    assert ward.cluster.writes() == []
    assert [call for call in ward.cluster.calls if call.dry_run] == []
    assert ward.cluster.dump() == before
    groups = list(dict.fromkeys(group for group, _ in found))
    assert groups == ["cluster", "clocks", "alerting", f"namespace {NAMESPACE}", "experiment oom-workers", ALERT]
    assert len(found) > 25


def test_it_tells_versions_intervals_routes_and_clocks(ward: Ward) -> None:
    ward.notifier.route = lambda labels: Route("pager", 1.0, 2.0, ("webhook",))  # type: ignore[method-assign]
    ward.cluster.clock_offset = Bounds(earliest=-0.5, latest=1.5)
    found = ward.look()
    assert found["cluster", "API server"].fact == "Kubernetes v1.34.4"
    assert found["alerting", "Prometheus"].fact == "version 2.42.0 at service:monitoring/prometheus:1"
    assert found["alerting", "scrape intervals"].fact == "api 1s"
    assert found["alerting", "rule groups"].values == {"evaluation_intervals_s": {"queue": 1.0}}
    assert found["clocks", "API server"].fact == "+0.500 s from ours, give or take 1.000 s"
    assert found[ALERT, "route"].fact == "receiver pager through webhook; group_wait 1s, group_interval 2s"
    assert found[ALERT, "runbook"].fact == "runbooks/high-queue-depth.md"


def test_the_floor_follows_from_the_chain_with_the_knob_that_weighs_most(ward: Ward) -> None:
    floor = ward.look()[ALERT, "floor"]
    assert (floor.values["firing_earliest_s"], floor.values["firing_latest_s"]) == (5.0, 7.0)
    assert (floor.values["paged_earliest_s"], floor.values["paged_latest_s"]) == (6.0, 9.0)
    assert floor.fact.endswith("to the page 6.0 to 9.0 s; `for` weighs most (5s)")
    ward.metrics.intervals = {"api": 1.0, "node": 15.0}
    assert ward.look()[ALERT, "floor"].values["weightiest"] == "the scrape interval"
    ward.notifier.route = lambda labels: Route("pager", 30.0, 300.0)  # type: ignore[method-assign]
    assert ward.look()[ALERT, "floor"].values["weightiest"] == "group_wait"
    ward.rule(interval=60.0, for_seconds=0.0)
    assert ward.look()[ALERT, "floor"].values["weightiest"] == "the evaluation interval"


def test_a_floor_above_the_bound_is_missing_and_one_that_may_be_is_a_warning(ward: Ward) -> None:
    within = parse(ward.data).alerts[0].within
    ward.rule(for_seconds=within - 1)
    assert ward.look()[ALERT, "floor"].state is WARNING
    ward.rule(for_seconds=within + 1)
    floor = ward.look()[ALERT, "floor"]
    assert (floor.state, floor.slug) == (MISSING, "alert-cannot-meet-its-bound")


# What is missing


def unmark(ward: Ward) -> None:
    ward.cluster.drop(Ref("ConfigMap", "drill-system", "drills-allowed"))


def halt(ward: Ward) -> None:
    body = ward.cluster.peek(Ref("ConfigMap", "drill-system", "drills-allowed"))
    ward.cluster.put({**body, "data": {**body["data"], "halted": "true", "reason": "release"}})


def deny(ward: Ward) -> None:
    body = ward.cluster.peek(Ref("ConfigMap", "drill-system", "drills-allowed"))
    ward.cluster.put({**body, "data": {**body["data"], "deny": "sho*"}})


def opt_out(ward: Ward) -> None:
    body = ward.cluster.peek(Ref("Namespace", "", NAMESPACE))
    ward.cluster.put({**body, "metadata": {**body["metadata"], "labels": {}}})


def damage_a_record(ward: Ward) -> None:
    meta = {"name": "drill-undo-x", "namespace": NAMESPACE, "labels": {LABEL: "true"}}
    ward.cluster.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"record": "{"}})


def silence_it(ward: Ward) -> None:
    now = ward.world.clock.now()
    matchers = (Matcher("alertname", "HighQueueDepth"),)
    ward.world.silenced.append(Silence("s1", matchers, now, now + 60, now, "bob", "why", "active"))


def forbid_patch(ward: Ward) -> None:
    ward.cluster.denied_reviews = {("patch", "Deployment")}


def fire(ward: Ward) -> None:
    ward.world.arrivals = 100.0
    ward.world.run_for(20)


def narrow_range(ward: Ward) -> None:
    ward.metrics.rule_query = "rate(jobs_total[1s]) > 1"


FAR = Bounds(earliest=6.0, latest=6.1)
SPACE, OWN = f"namespace {NAMESPACE}", "experiment oom-workers"


@pytest.mark.parametrize(
    ("harm", "place", "slug"),
    [
        (unmark, ("cluster", "mark"), "cluster-not-marked"),
        (halt, ("cluster", "mark"), "halted"),
        (deny, (SPACE, "deny-list"), "denied"),
        (opt_out, (SPACE, "opt-in"), "namespace-not-opted-in"),
        (forbid_patch, (SPACE, "permissions"), "permission-missing"),
        (damage_a_record, (SPACE, "leftovers"), "undo-record-unreadable"),
        (lambda ward: setattr(ward, "version", "v1.27.9"), ("cluster", "API server"), "version-too-old"),
        (lambda ward: setattr(ward.metrics, "rule_name", "Another"), (ALERT, "rule"), "alert-rule-missing"),
        (lambda ward: ward.rule(health="err", last_error="x"), (ALERT, "rule"), "alert-rule-broken"),
        (fire, (ALERT, "quiet"), "alert-already-active"),
        (silence_it, (ALERT, "silences"), "alert-silenced"),
        (narrow_range, (OWN, "ranges"), "range-too-short"),
    ],
)  # fmt: skip
def test_what_a_drill_needs_and_is_not_there_is_missing_and_the_rest_is_looked_at(
    ward: Ward, harm: Callable[[Ward], object], place: tuple[str, str], slug: str
) -> None:
    before = set(ward.look())
    harm(ward)
    found = ward.look()
    assert (found[place].state, found[place].slug) == (MISSING, slug)
    assert found[place].expected
    lost = before - set(found)
    assert {group for group, _ in lost} <= ({ALERT} if slug == "alert-rule-missing" else set())
    others = {one for one, state in bad(found).items() if state is MISSING} - {place}
    assert others <= {("cluster", "opted-in namespaces")}


@pytest.mark.parametrize("harm", [unmark, halt, deny, opt_out, forbid_patch, fire, silence_it, narrow_range])
def test_what_is_missing_here_is_what_the_preflight_refuses(ward: Ward, harm: Callable[[Ward], object]) -> None:
    harm(ward)
    slugs = {one.slug for one in ward.look().values() if one.state is MISSING}
    drill = Drill(ward.world, ward.data)
    drill.metrics.rule_query = ward.metrics.rule_query
    checks = Preflight(
        drill.experiment, drill.peers, faults(), ward.world.clock, drill.recorder.add, lambda _: True, lambda _: None
    )
    with pytest.raises(DrillError) as caught:
        checks.run(checks.guards())
    assert caught.value.slug in slugs


@pytest.mark.parametrize(
    ("harm", "place"),
    [
        (lambda ward: setattr(ward, "version", "v1.29.0"), ("cluster", "API server")),
        (lambda ward: setattr(ward, "version", "main"), ("cluster", "API server")),
        (lambda ward: ward.cluster.put(binding(POLICY, ["Audit"])), ("cluster", "verified messages")),
        (lambda ward: ward.cluster.put(binding("drill-guard", ["Warn"])), ("cluster", "guard policies")),
        (lambda ward: ward.beat(ward.world.clock.now() - 600), ("cluster", "sweeper")),
        (lambda ward: setattr(ward.metrics, "offset_bounds", FAR), ("clocks", "Prometheus")),
        (lambda ward: ward.cluster.drop(Ref("RoleBinding", NAMESPACE, "drill-sweeper")), (SPACE, "roles")),
        (lambda ward: setattr(ward.cluster, "denied_reviews", set()), (SPACE, "permissions")),
        (lambda ward: ward.rule(annotations={}), (ALERT, "runbook")),
        (lambda ward: setattr(ward.notifier, "route", lambda _: Route("null", 1.0, 2.0, ())), (ALERT, "route")),
        (lambda ward: setattr(ward.metrics, "notified", list), ("alerting", "Prometheus tells")),
        (lambda ward: setattr(ward.metrics, "intervals", {"api": 1.0, "slow": 99.0}), (OWN, "ranges")),
    ],
)  # fmt: skip
def test_what_a_drill_can_do_without_is_a_warning(
    ward: Ward, harm: Callable[[Ward], object], place: tuple[str, str]
) -> None:
    harm(ward)
    assert bad(ward.look()) == {place: WARNING}


def test_a_running_drill_and_what_a_dead_one_left_are_warnings(ward: Ward) -> None:
    drill = Drill(ward.world)
    lease = Lease(ward.cluster, ward.world.clock, NAMESPACE, "run-7 on here", phase="observing")
    lease.acquire(drill.wait, lambda _: None)
    calls = len(ward.cluster.calls)
    cases = [Case("oom-workers", parse(ward.data).tuned("smoke"))]
    found = {one.check: one for one in Doctor(ward.patient, cases, faults(), ward.world.clock).examine()}
    assert (found["lock"].state, found["lock"].fact) == (WARNING, "run-7 on here holds it (observing)")
    ward.world.run_for(60)
    ward.beat(ward.world.clock.now())
    found = {one.check: one for one in Doctor(ward.patient, cases, faults(), ward.world.clock).examine()}
    assert found["lock"].state is OK
    assert "not renewed for" in found["lock"].fact
    assert {call.verb for call in ward.cluster.calls[calls:]} <= READS


def test_without_a_pager_nothing_is_known_of_pages(ward: Ward) -> None:
    assert bad(ward.look(pager=None)) == {("alerting", "pager"): WARNING}


def test_what_is_let_pass_about_the_ways_is_warned_of(ward: Ward) -> None:
    assert bad(ward.look(doubts=("it is not checked",))) == {("alerting", "ways to peers"): WARNING}


# What does not answer


def test_without_an_api_server_the_rest_is_looked_at(ward: Ward) -> None:
    found = ward.look(cluster=SILENT)
    assert found["cluster", "API server"].state is MISSING
    assert found["alerting", "Prometheus"].state is OK
    assert found[ALERT, "floor"].state is OK
    assert found[SPACE, "all of it"].state is UNKNOWN
    assert ward.cluster.calls == []


def test_peers_behind_an_api_server_that_is_not_there_are_not_missing_by_themselves(ward: Ward) -> None:
    behind = BadInput("endpoint-without-cluster", "there is none", expected="one", remedy="a URL")
    found = ward.look(cluster=SILENT, metrics=behind, notifier=behind, pager=behind)
    assert [place for place, state in bad(found).items() if state is MISSING] == [("cluster", "API server")]
    assert found["alerting", "Prometheus"].state is UNKNOWN


@pytest.mark.parametrize("how", ["made", "asked"])
def test_without_prometheus_the_rest_is_looked_at(ward: Ward, how: str) -> None:
    ward.world.metrics_down = how == "asked"
    found = ward.look(**({"metrics": SILENT} if how == "made" else {}))
    assert [place for place, state in bad(found).items() if state is MISSING] == [("alerting", "Prometheus")]
    assert found["alerting", "Alertmanager"].state is OK
    assert found[SPACE, "permissions"].state is OK
    assert found["experiment oom-workers", "HighQueueDepth"].state is UNKNOWN


def test_without_alertmanager_only_routes_and_silences_are_not_known(ward: Ward) -> None:
    found = ward.look(notifier=SILENT)
    assert found["alerting", "Alertmanager"].state is MISSING
    assert found[ALERT, "rule"].state is OK
    assert "to the page: not known" in found[ALERT, "floor"].fact
    assert [place for place, state in bad(found).items() if state is MISSING] == [("alerting", "Alertmanager")]
    for check in ("route", "silences"):
        assert found[ALERT, check].state is UNKNOWN


def test_an_identity_that_may_see_little_gets_a_whole_table(ward: Ward) -> None:
    ward.cluster.denied = {
        ("list", "Namespace"), ("list", "RoleBinding"), ("list", "ValidatingAdmissionPolicyBinding"),
        ("get", "ValidatingAdmissionPolicyBinding"),
    }  # fmt: skip
    found = ward.look()
    assert "an administrator of the cluster can look" in found["cluster", "guard policies"].remedy
    states = bad(found)
    assert states.pop((SPACE, "permissions")) is MISSING
    assert states == {
        ("cluster", "opted-in namespaces"): UNKNOWN,
        ("cluster", "verified messages"): UNKNOWN,
        ("cluster", "guard policies"): UNKNOWN,
        (SPACE, "roles"): UNKNOWN,
    }


def test_an_experiment_that_cannot_be_read_is_missing_and_the_others_are_looked_at(ward: Ward) -> None:
    broken = BadInput("experiment-invalid", "line 3", expected="a file", remedy="mend it")
    found = ward.look(Case("broken", broken))
    assert found["experiment broken", "file"].state is MISSING
    assert found[ALERT, "rule"].state is OK


def test_no_namespace_at_all_is_missing(ward: Ward) -> None:
    opt_out(ward)
    found = {one.check: one for one in Doctor(ward.patient, (), faults(), ward.world.clock).examine()}
    assert found["opted-in namespaces"].state is MISSING
    found = {one.group for one in Doctor(ward.patient, (), faults(), ward.world.clock, "other").examine()}  # type: ignore[assignment]
    assert "namespace other" in found


# Rules as objects of the Prometheus operator


def operated(ward: Ward, *, labels: dict[str, str], selector: Any, namespace: str = NAMESPACE, **more: Any) -> None:
    ward.cluster.defined["monitoring.coreos.com/v1"] = [
        {"kind": "PrometheusRule", "name": "prometheusrules", "namespaced": True},
        {"kind": "Prometheus", "name": "prometheuses", "namespaced": True},
    ]
    groups = [{"name": "queue", "rules": [{"alert": "HighQueueDepth", "expr": "x"}, {"record": "y", "expr": "z"}]}]
    ward.cluster.put({
        "apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule",
        "metadata": {"name": "queue", "namespace": namespace, "uid": "u-1", "labels": labels},
        "spec": {"groups": groups},
    })  # fmt: skip
    spec = {"ruleSelector": selector, "ruleNamespaceSelector": {}, **more}
    ward.cluster.put({
        "apiVersion": "monitoring.coreos.com/v1", "kind": "Prometheus",
        "metadata": {"name": "k8s", "namespace": "monitoring"}, "spec": spec,
    })  # fmt: skip


def test_the_object_of_a_loaded_rule_is_named(ward: Ward) -> None:
    operated(ward, labels={"release": "mon"}, selector={"matchLabels": {"release": "mon"}})
    body = ward.cluster.listing("PrometheusRule.v1.monitoring.coreos.com", "")[0]
    name = f"{NAMESPACE}-queue-{body['metadata']['uid']}.yaml"
    ward.rule(file=f"/etc/prometheus/rules/prometheus-k8s-rulefiles-0/{name}")
    found = ward.look()
    assert found["alerting", "rule objects"].fact == "1 of the Prometheus operator, for 1 Prometheus servers"
    assert found[ALERT, "rule"].fact.startswith(f"prometheusrule/queue in {NAMESPACE}, group queue")
    ward.rule(file="/etc/prometheus/other.yaml")
    assert ward.look()[ALERT, "rule"].fact.startswith("file /etc/prometheus/other.yaml, of no rule object")


@pytest.mark.parametrize(
    ("selector", "more", "told"),
    [
        ({"matchLabels": {"release": "kps"}}, {},
         "its labels (release=mon) do not match the ruleSelector of prometheus/k8s in monitoring (release=kps)"),
        ({"matchExpressions": [{"key": "team", "operator": "Exists"}]}, {}, "do not match the ruleSelector"),
        (None, {}, "has no ruleSelector, so it takes no rules"),
        ({}, {"ruleNamespaceSelector": None}, "has no ruleNamespaceSelector, so it looks into its own namespace only"),
        ({}, {"ruleNamespaceSelector": {"matchLabels": {"team": "a"}}}, "(team=a) does not select namespace"),
        ({}, {}, "a Prometheus selects it, and has not loaded it (yet)"),
    ],
)  # fmt: skip
def test_an_object_that_prometheus_has_not_loaded_is_named_with_the_reason(
    ward: Ward, selector: Any, more: dict[str, Any], told: str
) -> None:
    operated(ward, labels={"release": "mon"}, selector=selector, **more)
    ward.metrics.rule_name = "Another"
    rule = ward.look()[ALERT, "rule"]
    assert (rule.state, rule.slug) == (MISSING, "alert-rule-missing")
    assert rule.fact.startswith(f"prometheusrule/queue in {NAMESPACE} holds the alert HighQueueDepth")
    assert told in rule.fact


def test_an_object_for_which_no_prometheus_is_known_is_named_all_the_same(ward: Ward) -> None:
    operated(ward, labels={}, selector={})
    ward.cluster.drop(Ref("Prometheus.v1.monitoring.coreos.com", "monitoring", "k8s"))
    ward.metrics.rule_name = "Another"
    assert ward.look()[ALERT, "rule"].fact.endswith("no Prometheus object that could select it was found")


def test_a_credential_that_cannot_be_read_is_told_once(ward: Ward) -> None:
    def unreadable() -> str:
        raise BadInput("credential-file", "the token cannot be read", expected="a token", remedy="write it")

    ward.metrics.ready = ward.metrics.offset = unreadable  # type: ignore[method-assign,assignment]
    found = ward.look()
    assert found["alerting", "Prometheus"].slug == "credential-file"
    assert found["clocks", "Prometheus"].state is UNKNOWN


def test_without_the_operator_rules_come_from_files(ward: Ward) -> None:
    found = ward.look()
    assert "not installed" in found["alerting", "rule objects"].fact
    assert found[ALERT, "rule"].fact.startswith("file rules.yml, group queue")


def test_rule_objects_that_may_not_be_listed_are_unknown_and_the_rule_is_ok(ward: Ward) -> None:
    operated(ward, labels={}, selector={})
    ward.cluster.denied = {("list", "PrometheusRule.v1.monitoring.coreos.com")}
    found = ward.look()
    assert bad(found) == {("alerting", "rule objects"): UNKNOWN}


# What it says of the manifests


def test_the_policies_that_it_asks_for_are_those_of_the_manifests() -> None:
    found = [
        body["metadata"]["name"]
        for path in (ROOT / "manifests" / "harness").glob("*.yaml")
        for body in yaml.safe_load_all(path.read_text())
        if body["kind"] == "ValidatingAdmissionPolicyBinding"
    ]
    assert sorted(found) == sorted((POLICY, *guards.POLICIES))
