"""Deploying: what is compared, what is refused before the first write. A stand-in for kubectl answers from a folder."""

from __future__ import annotations

import copy
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness.clusters import rootfs, staging, staging_image
from harness.clusters.kubectl import Kubectl, checkout, rolled_out
from harness.clusters.provider import Access, ClusterProvider
from harness.core.errors import BadInput, DrillError, Refused, Unreachable
from harness.ports.progress import Progress, Silent
from tests.fakes.kubectl import FakeKubectl, FakeProvider


@pytest.fixture
def cluster(tmp_path: Path) -> FakeKubectl:
    return FakeKubectl(tmp_path)


@pytest.fixture(autouse=True)
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(repository: Path, progress: Progress) -> rootfs.Image:
        return rootfs.Image("drill.internal/nova-staging:abc", tmp_path / "image.tar")

    monkeypatch.setattr(staging_image, "build", build)


def deployment(**status: int) -> dict[str, Any]:
    return {
        "kind": "Deployment",
        "metadata": {"name": "worker", "namespace": "nova-staging", "uid": "u1", "generation": 3},
        "spec": {"replicas": 5},
        "status": {"observedGeneration": 3, "replicas": 5, "updatedReplicas": 5, "availableReplicas": 5} | status,
    }


def namespace(name: str, **annotations: str) -> dict[str, Any]:
    labels = {staging.LABEL: staging.PART_OF}
    meta = {"name": name, "uid": name, "labels": labels, "annotations": annotations}
    return {"kind": "Namespace", "metadata": meta}


def steady(cluster: FakeKubectl, depth: float = 3) -> None:
    body = {"status": "success", "data": {"result": [{"metric": {}, "value": [1.0, str(depth)]}]}}
    cluster.answer("get --raw", out=json.dumps(body))


def live(cluster: FakeKubectl, *items: dict[str, Any]) -> None:
    cluster.answer("get namespaces,", out=json.dumps({"items": items}))


def declare(cluster: FakeKubectl, *items: dict[str, Any]) -> None:
    """Make `items` the live state, noted as declared by an earlier deployment of the smoke profile."""
    declared = staging._declared(checkout(), "smoke", "drill.internal/nova-staging:abc")
    monitoring = namespace("monitoring")
    note = f"{declared} {staging._fingerprint([*items, monitoring])}"
    live(cluster, *items, namespace("monitoring", **{staging.NOTE: note}))


def deploy(cluster: FakeKubectl) -> FakeProvider:
    provider = FakeProvider()
    as_port: ClusterProvider = provider
    staging.deploy(as_port, cluster.access, "smoke", Silent())
    return provider


def test_as_declared_and_steady_means_two_questions_and_no_write(cluster: FakeKubectl) -> None:
    declare(cluster, deployment())
    steady(cluster)
    assert deploy(cluster).loaded == 0
    assert len(cluster.calls) == 2
    assert cluster.writes == []


def test_a_spec_changed_by_hand_is_put_back_although_no_file_changed(cluster: FakeKubectl) -> None:
    declare(cluster, deployment())
    changed = deployment(observedGeneration=4)
    changed["metadata"]["generation"] = 4
    items = json.loads(json.loads((cluster.access.kubeconfig.parent / "rules.json").read_text())[0]["out"])["items"]
    live(cluster, changed, items[-1])
    cluster.answer("kustomize", out=json.dumps({"kind": "ConfigMap", "metadata": {"name": "c-1"}}))
    cluster.answer("get configmaps", out=json.dumps({"items": [{"metadata": {"name": n}} for n in ("c-1", "c-0")]}))
    steady(cluster)
    assert deploy(cluster).loaded == 1
    assert any(call.startswith("apply --server-side") and "--force" not in call for call in cluster.writes)
    assert any(call.startswith("annotate namespace monitoring") for call in cluster.writes)
    assert cluster.writes[-2] == "delete configmaps --namespace monitoring --ignore-not-found c-0"


def test_a_foreign_namespace_is_refused_before_any_write(cluster: FakeKubectl) -> None:
    live(cluster)
    cluster.answer("get namespace monitoring", out=json.dumps({"metadata": {"name": "monitoring", "labels": {}}}))
    with pytest.raises(Refused, match="namespace monitoring exists"):
        deploy(cluster)
    assert cluster.writes == []


def test_a_running_drill_is_refused_before_any_write(cluster: FakeKubectl) -> None:
    live(cluster)
    cluster.answer("get lease drill", out="run-7")
    with pytest.raises(Refused, match="run-7 holds the lock"):
        deploy(cluster)
    with pytest.raises(Refused, match="run-7 holds the lock"):
        staging.undeploy(cluster.access, Silent())
    assert cluster.writes == []


def test_conflicts_are_forced_only_after_they_were_named(cluster: FakeKubectl) -> None:
    live(cluster)
    cluster.answer("kustomize", out=json.dumps({"kind": "ConfigMap", "metadata": {"name": "c-1"}}))
    cluster.answer("get configmaps", out=json.dumps({"items": []}))
    refusal = 'error: Apply failed with 1 conflict: conflict with "kubectl" using apps/v1: .spec.replicas'
    cluster.answer("apply --server-side", err=refusal, rc=1)
    cluster.answer("apply --server-side --field-manager=drill-staging --filename=- --force-conflicts")
    steady(cluster)
    said: list[str] = []

    class Listener(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    staging.deploy(FakeProvider(), cluster.access, "smoke", Listener())
    assert "put back: .spec.replicas, changed by kubectl" in said


def test_a_rejected_manifest_is_an_error_with_the_servers_words(cluster: FakeKubectl) -> None:
    live(cluster)
    cluster.answer("kustomize", out=json.dumps({"kind": "ConfigMap", "metadata": {"name": "c-1"}}))
    cluster.answer("apply --server-side", err="error: unknown field", rc=1)
    with pytest.raises(Unreachable, match="unknown field"):
        deploy(cluster)


def test_a_cluster_that_does_not_answer_is_said(cluster: FakeKubectl) -> None:
    cluster.answer("get namespaces,", err="connection refused", rc=1)
    with pytest.raises(Unreachable, match="connection refused"):
        deploy(cluster)


def test_a_missing_kubectl_is_bad_input(tmp_path: Path) -> None:
    access = Access("local", "t", tmp_path / "config", "t", tmp_path / "nothing")
    with pytest.raises(BadInput, match="is not there"):
        staging.deploy(FakeProvider(), access, "smoke", Silent())


@pytest.mark.parametrize(
    "status",
    [{"observedGeneration": 2}, {"updatedReplicas": 3}, {"availableReplicas": 2}, {"replicas": 6}],
)
def test_a_rollout_under_way_is_not_rolled_out(status: dict[str, int]) -> None:
    assert rolled_out(deployment())
    assert not rolled_out(deployment(**status))


def test_the_fingerprint_moves_with_specs_and_labels_and_not_with_status() -> None:
    items = [deployment(), namespace("nova-staging", note="x")]
    before = staging._fingerprint(items)
    quiet = copy.deepcopy(items)
    quiet[0]["status"] = {}
    quiet[1]["metadata"]["annotations"] = {}
    assert staging._fingerprint(quiet) == before
    for change in (("generation", 4), ("uid", "u2")):
        moved = copy.deepcopy(items)
        moved[0]["metadata"][change[0]] = change[1]
        assert staging._fingerprint(moved) != before
    opted_out = copy.deepcopy(items)
    opted_out[1]["metadata"]["labels"]["drill.internal/opt-in"] = "false"
    assert staging._fingerprint(opted_out) != before
    assert staging._fingerprint(items[1:]) != before, "a deleted Deployment is seen"


def test_what_is_declared_depends_on_profile_image_and_files() -> None:
    root = checkout()
    digests = {staging._declared(root, profile, ref) for profile in ("smoke", "gameday") for ref in ("a:1", "a:2")}
    assert len(digests) == 4


def registry(generation: int = 1) -> dict[str, Any]:
    containers = [{"name": "registry", "envFrom": [{"configMapRef": {"name": "registry"}}]}]
    return {
        "kind": "Deployment",
        "metadata": {"name": "registry", "namespace": "nova-staging", "uid": "u2", "generation": generation},
        "spec": {"replicas": 1, "template": {"spec": {"containers": containers}}},
    }


def settings(version: str) -> dict[str, Any]:
    meta = {"name": "registry", "namespace": "nova-staging", "uid": "u3", "resourceVersion": version}
    return {"kind": "ConfigMap", "metadata": meta}


def test_pods_started_with_settings_that_were_put_back_are_restarted_and_no_others() -> None:
    before = [deployment(), registry(), settings("1")]
    assert staging.stale(before, [deployment(), registry(), settings("2")]) == ["registry"]
    assert staging.stale(before, before) == []
    assert staging.stale(before, [deployment(), registry(generation=2), settings("2")]) == [], (
        "rolled by its own change"
    )
    assert staging.stale([], [registry(), settings("2")]) == [], "new ones start with what is there"


def late(**status: int) -> dict[str, Any]:
    """A Deployment that missed its deadline."""
    item = deployment(availableReplicas=4, **status)
    item["status"]["conditions"] = [
        {"type": "Available", "status": "False"},
        {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"},
    ]
    return item


def test_what_had_not_come_up_in_time_gets_a_new_start(cluster: FakeKubectl) -> None:
    declare(cluster, late())
    steady(cluster)
    deploy(cluster)
    restart = "rollout restart deployment/worker --namespace nova-staging"
    assert [call for call in cluster.calls if call.startswith("rollout restart")] == [restart]
    assert any(call.startswith("annotate namespace monitoring") for call in cluster.writes), "the new version is noted"


def test_what_had_not_come_up_in_time_is_left_alone_during_a_drill(cluster: FakeKubectl) -> None:
    declare(cluster, late())
    cluster.answer("get lease drill", out="run-7")
    with pytest.raises(Refused, match="run-7 holds the lock"):
        deploy(cluster)
    assert cluster.writes == []
    assert not any(call.startswith("rollout restart") for call in cluster.calls)


@pytest.mark.parametrize(
    ("words", "message", "slug"),
    [
        ("level=info msg=starting\nlevel=error err='open /data/x: no space left on device'\n", "", "disk-full"),
        ("", "failed to create containerd container: write /x: no space left on device", "disk-full"),
        ("level=error err='no such host'\n", "back-off 10s", "staging-not-ready"),
    ],
)
def test_pods_that_do_not_come_up_for_a_full_disk_are_told(
    cluster: FakeKubectl, words: str, message: str, slug: str
) -> None:
    declare(cluster, deployment(availableReplicas=4))
    cluster.answer("rollout status", err="error: timed out", rc=1)
    waits = [{"ready": False, "state": {"waiting": {"reason": "CrashLoopBackOff", "message": message}}}]
    meta = {"name": "worker-1", "namespace": "nova-staging"}
    cluster.answer("get pods", out=json.dumps({"items": [{"metadata": meta, "status": {"containerStatuses": waits}}]}))
    cluster.answer("logs worker-1 --namespace nova-staging", out=words)
    with pytest.raises(DrillError) as caught:
        deploy(cluster)
    assert caught.value.slug == slug
    assert "worker-1" in caught.value.fact


def test_a_rollout_that_outlasts_kubectl_is_looked_into_as_well(
    cluster: FakeKubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Kubectl.run

    def run(self: Kubectl, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
        if args[:2] == ("rollout", "status"):
            raise Unreachable("cluster-silent", "it did not end", expected="an end", remedy="look")
        return real(self, *args, **options)

    monkeypatch.setattr(Kubectl, "run", run)
    declare(cluster, deployment(availableReplicas=4))
    cluster.answer("get pods", out=json.dumps({"items": []}))
    with pytest.raises(Unreachable, match="it did not end") as caught:
        deploy(cluster)
    assert caught.value.slug == "staging-not-ready"


def test_secrets_are_made_once_and_never_on_a_command_line(cluster: FakeKubectl) -> None:
    live(cluster)
    cluster.answer("kustomize", out=json.dumps({"kind": "ConfigMap", "metadata": {"name": "c-1"}}))
    cluster.answer("get configmaps", out=json.dumps({"items": []}))
    cluster.answer("get secret llm-key", out="secret/llm-key")
    cluster.answer("get secret sync-signing-key", out="secret/sync-signing-key")
    steady(cluster)
    deploy(cluster)
    assert [call for call in cluster.writes if call.startswith("create")] == ["create --filename=-"]
