"""Least privilege, by the API server's own record: what the identities used, against what their Roles grant.

The main job, a recovery and an undo by the sweeper run under the ServiceAccounts' own tokens, and the audit log tells
what each of them asked for. Nothing that they need may be missing, and nothing may be granted that nobody uses.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.clusters.local.layout import Layout
from harness.core.event import EffectProved
from tests.accounts import SYSTEM, kubeconfig_of
from tests.e2e.conftest import KEPT, NAMESPACE, ROOT, Product

pytestmark = pytest.mark.cluster

PREFIX = f"system:serviceaccount:{SYSTEM}:"
RUNNER, SWEEPER, AUTOPILOT, READER = "drill-runner", "drill-sweeper", "drill-autopilot", "drill-reader"
FLEET = "drill-fleet"


@dataclass(frozen=True, order=True, slots=True)
class Right:
    """One verb of one account on one resource, as a role grants it or as a request used it. `namespace` is empty for
    what lies outside of namespaces, `name` where no name narrows it."""

    account: str
    verb: str
    resource: str
    namespace: str
    name: str = ""

    def __str__(self) -> str:
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.account}: {self.verb} {self.resource}" + (f" {self.name}" if self.name else "") + where


PROXY = "services/proxy"
MONITORING = "monitoring"
NOT_USED_HERE: dict[Right, str] = {
    Right(RUNNER, "get", "configmaps", NAMESPACE): "whether a record is there whose writing got no reply",
    Right(FLEET, "get", "jobs.batch", SYSTEM): "a fleet that is taken up again, or a Job whose making got no reply",
    **{
        Right(FLEET, verb, "leases.coordination.k8s.io", NAMESPACE, "drill"): "a drill whose pod died"
        for verb in ("list", "watch")
    },
    Right(SWEEPER, "create", "leases.coordination.k8s.io", NAMESPACE): "a run that gave its lock back, or lost it",
    Right(SWEEPER, "create", "leases.coordination.k8s.io", SYSTEM): "the first sweeper of a cluster",
    Right(RUNNER, "get", "statefulsets.apps", NAMESPACE): "the fault `scale` on a StatefulSet",
    Right(RUNNER, "patch", "statefulsets.apps", NAMESPACE): "the fault `scale` on a StatefulSet",
    Right(RUNNER, "list", "horizontalpodautoscalers.autoscaling", NAMESPACE): "the plan of the fault `scale`",
    Right(SWEEPER, "get", "statefulsets.apps", NAMESPACE): "the undo of the fault `scale` on a StatefulSet",
    Right(SWEEPER, "patch", "statefulsets.apps", NAMESPACE): "the undo of the fault `scale` on a StatefulSet",
    Right(RUNNER, "patch", "configmaps", NAMESPACE): "the fault `config` on a ConfigMap",
    Right(SWEEPER, "get", "configmaps", NAMESPACE): "the undo of the fault `config` on a ConfigMap",
    Right(SWEEPER, "patch", "configmaps", NAMESPACE): "the undo of the fault `config` on a ConfigMap",
    **{
        Right(RUNNER, verb, "jobs.batch", NAMESPACE): "the fault `job`"
        for verb in ("get", "list", "watch", "create", "patch", "delete")
    },
    **{Right(RUNNER, verb, "pods", NAMESPACE): "the fault `pod-kill`" for verb in ("get", "patch", "delete")},
    **{Right(SWEEPER, verb, "jobs.batch", NAMESPACE): "the undo of the fault `job`" for verb in ("get", "delete")},
    Right(SWEEPER, "list", "pods", NAMESPACE): "the undo of the faults `job` and `pod-kill`",
    **{Right(SWEEPER, verb, "pods", NAMESPACE): "the undo of the fault `pod-kill`" for verb in ("get", "patch")},
    **{
        Right(account, verb, "undorecords.drill.internal", NAMESPACE): "asked for by a policy, not by a request"
        for account in (RUNNER, SWEEPER)
        for verb in ("create", "delete")
    },
    Right(AUTOPILOT, "create", PROXY, MONITORING, "alertmanager:9093"): "an experiment that acknowledges by a silence",
    Right(AUTOPILOT, "delete", PROXY, MONITORING, "alertmanager:9093"): "an experiment that acknowledges by a silence",
    **{
        Right(account, verb, "secrets", NAMESPACE, name): "the fault `secret`"
        for account in (RUNNER, SWEEPER)
        for verb in ("get", "patch")
        for name in ("llm-key", "sync-signing-key")
    },
    Right(RUNNER, "delete", "pods", NAMESPACE): "the undo of the fault `secret`, where pods were started meanwhile",
    Right(SWEEPER, "delete", "pods", NAMESPACE): "the undo of the fault `secret`, where pods were started meanwhile",
    Right(SWEEPER, "list", "pods", NAMESPACE): "the undo of the fault `secret`, where pods were started meanwhile",
    Right(AUTOPILOT, "delete", "pods", NAMESPACE): "only what still crashes after the fix is deleted",
    **{
        Right(AUTOPILOT, verb, resource, NAMESPACE, name): f"the runbook of {experiment}"
        for resource, name, experiment in (
            ("deployments.apps", "registry", "registry-lock"),
            ("configmaps", "registry", "registry-lock"),
            ("deployments.apps", "llm-adapter", "rotated-llm-key"),
            ("secrets", "llm-key", "revoked-llm-key"),
            ("deployments.apps", "sync-issuer", "ws-auth-failure"),
            ("secrets", "sync-signing-key", "ws-auth-failure"),
            ("deployments.apps", "sync-gateway", "reconnect-storm"),
            ("configmaps", "sync", "stale-cursor"),
        )
        for verb in ("get", "patch")
    },
    **{Right(AUTOPILOT, verb, "jobs.batch", NAMESPACE): "the runbook of registry-lock" for verb in ("list", "delete")},
}
"""What the runs below have no cause for, and what does."""


def granted(product: Product) -> set[Right]:
    """What the Roles grant to each account, as they are loaded from the manifests."""
    rendered = product.kubectl("kustomize", str(ROOT / "manifests" / "overlays" / "harness"))
    documents: list[dict[str, Any]] = [one for one in yaml.safe_load_all(rendered) if one]
    rules = {
        (one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]): one["rules"]
        for one in documents
        if one["kind"] in {"Role", "ClusterRole"}
    }
    found = set()
    for binding in documents:
        if binding["kind"] not in {"RoleBinding", "ClusterRoleBinding"}:
            continue
        namespace = binding["metadata"].get("namespace", "")
        for subject in binding["subjects"]:
            for rule in rules[binding["roleRef"]["kind"], namespace, binding["roleRef"]["name"]]:
                found |= set(rights(subject["name"], namespace, rule))
    return found


def rights(account: str, namespace: str, rule: dict[str, Any]) -> Iterator[Right]:
    for group in rule["apiGroups"]:
        for resource in rule["resources"]:
            for verb in rule["verbs"]:
                for name in rule.get("resourceNames", [""]):
                    yield Right(account, verb, resource + (f".{group}" if group else ""), namespace, name)


class Audit:
    """What was asked since this was made."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._began = datetime.now(UTC).isoformat()

    def asked(self) -> Iterator[tuple[Right, bool]]:
        """Each request of our accounts, and whether it was authorized. What every authenticated user may ask about
        itself is left out."""
        for file in self._log.parent.glob(f"{self._log.stem}*"):  # the log may have been rotated meanwhile
            for line in file.read_text(encoding="utf-8").splitlines():
                event = json.loads(line)
                if event["requestReceivedTimestamp"] < self._began:
                    continue
                about, user = event.get("objectRef"), event["user"]["username"]
                if not about or not user.startswith(PREFIX) or "self" in about["resource"][:4]:
                    continue
                resource = about["resource"] + (f"/{about['subresource']}" if about.get("subresource") else "")
                if group := about.get("apiGroup", ""):
                    resource += f".{group}"
                namespace = "" if about["resource"] == "namespaces" else about.get("namespace", "")
                used = Right(user.removeprefix(PREFIX), event["verb"], resource, namespace, about.get("name", ""))
                yield used, event["annotations"]["authorization.k8s.io/decision"] == "allow"


def covers(grant: Right, used: Right) -> bool:
    return grant == used or grant == replace(used, name="")


def test_each_role_holds_what_is_used_and_nothing_else(product: Product, tmp_path: Path) -> None:
    before = product.deployment()
    as_runner = kubeconfig_of(product.access, RUNNER, tmp_path)
    where = ("--cluster", "context", "--context", RUNNER, "--kubeconfig", str(as_runner))
    audit = Audit(Layout(product.access.name).audit_log)

    # Started by the fleet's account, and run in a pod as the runner.
    fleet = tmp_path / "fleet.yaml"
    as_fleet = {"context": FLEET, "kubeconfig": str(kubeconfig_of(product.access, FLEET, tmp_path))}
    fleet.write_text(yaml.safe_dump({"targets": [{"name": "one", "experiment": "oom-workers", **as_fleet}]}))
    done = product.drill("fleet", str(fleet))
    assert done.returncode == 0, done.stdout + done.stderr
    product.kubectl("-n", NAMESPACE, "delete", "configmaps", "-l", KEPT)
    assert product.leftovers() == ""

    # Killed, and brought back by the runner's own command: the sweeper is sent away for that long.
    product.kubectl("-n", SYSTEM, "scale", "deployment/drill-sweeper", "--replicas=0")
    product.kubectl("-n", SYSTEM, "wait", "--for=delete", "pod", "--selector=app=drill-sweeper", "--timeout=60s")
    try:
        killed(product, *where)
        recovered = product.drill("recover", *where)
        assert recovered.returncode == 0, recovered.stdout + recovered.stderr
        assert product.deployment() == before
    finally:
        up = product.drill("cluster", "up")  # puts the sweeper back, and waits until the queue is short again
    assert up.returncode == 0, up.stdout + up.stderr

    # Killed again, and brought back by the sweeper.
    killed(product, *where)
    deadline = time.monotonic() + 90
    while "drill-undo" in product.leftovers():
        assert time.monotonic() < deadline, product.kubectl("-n", SYSTEM, "logs", "deployment/drill-sweeper")
        time.sleep(0.5)
    assert product.deployment() == before
    assert product.drill("recover", *where).returncode == 0, "it takes the sweeper's note"
    assert product.leftovers() == ""

    asked = list(audit.asked())
    used = {right for right, _ in asked}
    refused = {right for right, allowed in asked if not allowed}
    # The sweeper also asks in namespaces that nobody has given it, in case a run withdrew its opt-in there.
    elsewhere = {one for one in refused if one.account == SWEEPER and one.namespace not in {NAMESPACE, ""}}
    assert {(one.verb, one.resource) for one in elsewhere} <= {("list", "configmaps")}
    assert sorted(map(str, refused - elsewhere)) == []

    grants = granted(product)
    reader = {grant for grant in grants if grant.account == READER}
    assert {grant.verb for grant in reader} <= {"get", "list", "watch"}, "who only looks changes nothing"
    idle = {one for one in grants - reader if not any(covers(one, right) for right in used)}
    assert sorted(map(str, idle - set(NOT_USED_HERE))) == [], "granted, and used by nobody"
    assert sorted(map(str, set(NOT_USED_HERE) - grants)) == [], "explained, and granted to nobody"
    beside = {one for one in used - refused if not any(covers(grant, one) for grant in grants)}
    assert sorted(map(str, beside)) == [], "allowed by something else than the manifests"


def killed(product: Product, *where: str) -> None:
    """Start a drill and kill it in the middle of the fault."""
    earlier = set(product.runs.glob("2*"))
    process = product.start("run", "oom-workers", *where)
    proved = product.saw(EffectProved)
    product.until(lambda: set(product.runs.glob("2*")) > earlier and proved(), process)
    process.kill()
    process.wait()
    assert product.limit() == "64Mi"


def test_a_reader_sees_what_is_on_and_changes_nothing(product: Product, tmp_path: Path) -> None:
    as_reader = kubeconfig_of(product.access, READER, tmp_path)
    where = ("--cluster", "context", "--context", READER, "--kubeconfig", str(as_reader))
    status = product.drill("status", *where)
    assert status.returncode == 0, status.stdout + status.stderr
    assert f"namespace {NAMESPACE}: clean" in status.stdout
    for refused in (("run", "oom-workers"), ("recover",), ("note", "hello")):
        done = product.drill(*refused, *where)
        assert done.returncode not in {0, 70}, done.stdout + done.stderr
    assert product.leftovers() == ""
