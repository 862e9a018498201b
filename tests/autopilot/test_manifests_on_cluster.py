"""The manifests of manifests/harness against a real API server: who may do what, and who may say what."""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Iterator
from threading import Event
from typing import Any

import pytest

from harness.adapters.kubernetes import KubeCluster
from harness.clusters.provider import Access
from harness.core.inbox import INBOX_LABEL, message
from harness.ports.cluster import Forbidden, Invalid, Json, Ref

AUTOPILOT = "system:serviceaccount:drill-system:drill-autopilot"
pytestmark = pytest.mark.cluster


def kubectl(access: Access, *arguments: str, check: bool = True) -> str:
    command = [str(access.kubectl or "kubectl"), "--kubeconfig", str(access.kubeconfig), "--context", access.context]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=60)
    if check:
        assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def cluster(local_access: Access) -> Iterator[KubeCluster]:
    """An administrator's access, with the policy in force."""
    admin = KubeCluster.from_kubeconfig(local_access.kubeconfig, local_access.context, now=time.time)
    pause, deadline = Event(), time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            admin.create(message("default", actor="nobody", action="note"), dry_run=True)
        except Forbidden:
            break
        pause.wait(0.2)
    yield admin
    admin.close()


@pytest.fixture
def namespace(cluster: KubeCluster) -> Iterator[str]:
    name = f"inbox-test-{uuid.uuid4().hex[:8]}"
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    cluster.delete(Ref("Namespace", "", name))


def editable(namespace: str, actor: str) -> Json:
    """A message that the API server would let be edited, were it not for the policy."""
    return message(namespace, actor=actor, action="note") | {"immutable": False}


def plain(namespace: str, **labels: str) -> Json:
    meta = {"name": f"plain-{uuid.uuid4().hex[:6]}", "namespace": namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"a": "1"}}


def ref(body: Json) -> Ref:
    return Ref("ConfigMap", body["metadata"]["namespace"], body["metadata"]["name"])


def test_a_message_of_its_sender_is_accepted(cluster: KubeCluster, namespace: str) -> None:
    me = cluster.whoami().username
    created = cluster.create(message(namespace, actor=me, action="acknowledged", text="I have it"))
    assert created["data"]["actor"] == me
    assert created["metadata"]["name"].startswith("drill-acknowledged-")


@pytest.mark.parametrize("data", [{"actor": "alice", "action": "note"}, {"action": "note"}, {}, None])
def test_a_message_of_somebody_else_or_of_nobody_is_refused(
    cluster: KubeCluster, namespace: str, data: dict[str, str] | None
) -> None:
    body = message(namespace, actor="alice", action="note")
    body["data"] = data
    with pytest.raises(Forbidden, match="must be the sender"):
        cluster.create({key: value for key, value in body.items() if value is not None})


@pytest.mark.parametrize("value", ["true", "", "false"])
def test_the_label_makes_a_message_whatever_its_value(cluster: KubeCluster, namespace: str, value: str) -> None:
    with pytest.raises(Forbidden):
        cluster.create(plain(namespace, **{INBOX_LABEL: value}))


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "replace", "path": "/data/text", "value": "something else"},
        {"op": "replace", "path": "/data/actor", "value": "alice"},
        {"op": "remove", "path": "/metadata/labels/drill.internal~1inbox"},
        {"op": "add", "path": "/metadata/annotations", "value": {"a": "b"}},
    ],
)
def test_a_message_is_never_edited(cluster: KubeCluster, namespace: str, operation: dict[str, Any]) -> None:
    sent = cluster.create(editable(namespace, cluster.whoami().username))
    with pytest.raises(Forbidden, match="cannot be changed"):
        cluster.patch(ref(sent), [operation])
    assert cluster.get(ref(sent))["data"] == sent["data"]


def test_without_the_policy_too_its_data_could_not_be_edited(cluster: KubeCluster, namespace: str) -> None:
    sent = cluster.create(message(namespace, actor=cluster.whoami().username, action="note"))
    with pytest.raises((Forbidden, Invalid)):
        cluster.patch(ref(sent), [{"op": "replace", "path": "/data/text", "value": "x"}])


def test_no_other_config_map_becomes_a_message(cluster: KubeCluster, namespace: str) -> None:
    for labels in ({}, {"app": "x"}):
        other = cluster.create(plain(namespace, **labels))
        cluster.patch(ref(other), [{"op": "replace", "path": "/data/a", "value": "2"}])
        with pytest.raises(Forbidden, match="no other ConfigMap can become one"):
            cluster.patch(ref(other), [{"op": "add", "path": "/metadata/labels", "value": {INBOX_LABEL: "true"}}])
        assert cluster.get(ref(other))["data"] == {"a": "2"}


def test_other_config_maps_are_not_looked_at(cluster: KubeCluster, namespace: str) -> None:
    other = cluster.create(plain(namespace, app="x"))
    cluster.patch(ref(other), [{"op": "remove", "path": "/metadata/labels"}])
    cluster.delete(ref(other))


def test_the_autopilot_says_only_what_it_says_itself(cluster: KubeCluster) -> None:
    autopilot = cluster.with_token(cluster.token("drill-system", "drill-autopilot", 600))
    assert autopilot.whoami().username == AUTOPILOT
    autopilot.create(message("nova-staging", actor=AUTOPILOT, action="note", automation=True), dry_run=True)
    with pytest.raises(Forbidden, match="must be the sender"):
        autopilot.create(message("nova-staging", actor=cluster.whoami().username, action="note"), dry_run=True)


@pytest.mark.parametrize(
    ("allowed", "question"),
    [
        ("yes", "list pods -n nova-staging"), ("yes", "delete pods -n nova-staging"),
        ("yes", "get deployments.apps/worker -n nova-staging"),
        ("yes", "patch deployments.apps/worker -n nova-staging"),
        ("yes", "patch deployments.apps/llm-adapter -n nova-staging"),
        ("yes", "patch configmaps/registry -n nova-staging"), ("no", "patch configmaps/other -n nova-staging"),
        ("yes", "patch secrets/llm-key -n nova-staging"), ("no", "patch secrets/other -n nova-staging"),
        ("no", "list secrets -n nova-staging"), ("yes", "delete jobs.batch -n nova-staging"),
        ("no", "create jobs.batch -n nova-staging"),
        ("yes", "create configmaps -n nova-staging"),
        ("yes", "get services/prometheus:9090 --subresource=proxy -n monitoring"),
        ("yes", "get services/alertmanager:9093 --subresource=proxy -n monitoring"),
        ("yes", "create services/alertmanager:9093 --subresource=proxy -n monitoring"),
        ("yes", "delete services/alertmanager:9093 --subresource=proxy -n monitoring"),
        ("no", "create services/prometheus:9090 --subresource=proxy -n monitoring"),
        ("no", "get services/pager:8080 --subresource=proxy -n monitoring"),
        ("no", "patch deployments.apps/api -n nova-staging"), ("no", "patch deployments.apps -n nova-staging"),
        ("no", "delete deployments.apps/worker -n nova-staging"), ("no", "create pods -n nova-staging"),
        ("no", "create pods --subresource=exec -n nova-staging"), ("no", "get secrets -n nova-staging"),
        ("no", "list configmaps -n nova-staging"), ("no", "delete configmaps -n nova-staging"),
        ("no", "list configmaps -n drill-system"), ("no", "get secrets -n drill-system"),
        ("no", "get leases.coordination.k8s.io -n nova-staging"), ("no", "list pods -n default"),
        ("no", "list namespaces"), ("no", "delete validatingadmissionpolicies.admissionregistration.k8s.io"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("cluster")
def test_the_autopilot_may_do_what_it_does_and_no_more(local_access: Access, allowed: str, question: str) -> None:
    answer = kubectl(local_access, "auth", "can-i", *question.split(), f"--as={AUTOPILOT}", check=False)
    assert answer.splitlines()[-1].split()[0] == allowed
