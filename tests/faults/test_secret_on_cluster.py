"""The fault `secret` with real pods on a real API server: which of them are replaced, and what the server refuses."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator

import pytest

from harness.adapters.kubernetes import KubeCluster
from harness.core.errors import BadInput
from harness.faults.secret import Secret, SecretSpec
from harness.ports.cluster import Invalid, Json, Ref
from tests.faults.targets import KEY_VALUE, OPT_IN, TARGETS
from tests.faults.test_contract import Stage, image_on
from tests.hands import hand

pytestmark = [pytest.mark.cluster, pytest.mark.apart]
ROWS = [target for target in TARGETS if target.kind == "secret" and target.spec["consumers"]]


@pytest.fixture
def namespace(real_cluster: KubeCluster) -> Iterator[str]:
    name = f"secret-{secrets.token_hex(4)}"
    real_cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": OPT_IN}})
    yield name
    real_cluster.delete(Ref("Namespace", "", name))


def living(cluster: KubeCluster, namespace: str) -> dict[str, str]:
    """Names of pods by their uid, those aside that are on their way out."""
    return {
        pod["metadata"]["uid"]: pod["metadata"]["name"]
        for pod in cluster.list("Pod", namespace)
        if "deletionTimestamp" not in pod["metadata"]
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_pod_that_was_started_under_the_fault_is_replaced_and_the_other_kept(
    real_cluster: KubeCluster, namespace: str, row: object
) -> None:
    stage = Stage(real_cluster, namespace, row, image_on(real_cluster))  # type: ignore[arg-type]
    stage.put()
    before = living(real_cluster, namespace)
    undo = stage.planned()
    stage.fault.apply(undo, real_cluster)
    gone, kept = sorted(before)
    real_cluster.delete(Ref("Pod", namespace, before[gone]), uid=gone)
    stage.until(lambda: len(living(real_cluster, namespace)) == 2 and not stage.restless())
    under = living(real_cluster, namespace)
    done = stage.fault.undo(undo, real_cluster)
    assert done.outcome == "restored"
    assert "1 pod(s) that were started meanwhile are replaced" in done.detail
    assert stage.fault.differences(undo, real_cluster), "until the new one is ready"
    stage.clean(undo)
    after = living(real_cluster, namespace)
    assert kept in after, "it holds the value that was there"
    assert not (set(under) - {kept}) & set(after), "it held another one"
    assert stage.fault.undo(undo, real_cluster).outcome == "already"
    assert living(real_cluster, namespace) == after


def made(cluster: KubeCluster, namespace: str, **parts: object) -> Ref:
    body: Json = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "keys", "namespace": namespace},
        "data": {"key": KEY_VALUE, "other": KEY_VALUE},
        **parts,
    }
    hand(cluster).create(body)
    return Ref("Secret", namespace, "keys")


def spec(key: str = "key") -> SecretSpec:
    effect = {"query": "x", "above": 1, "within": "1s"}
    data = {"id": "a", "kind": "secret", "secret": "keys", "key": key, "how": "remove", "effect": effect}
    return SecretSpec.model_validate({**data, "blast_radius": {"pods": 1}})


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"immutable": True}, "data"),
        ({"type": "kubernetes.io/basic-auth", "data": {"password": KEY_VALUE}}, r"data\["),
    ],
    ids=["immutable", "of a type that needs the key"],
)
def test_what_the_server_would_not_take_is_refused_by_the_dry_run_and_tells_nothing(
    real_cluster: KubeCluster, namespace: str, parts: Json, words: str
) -> None:
    ref = made(real_cluster, namespace, **parts)
    before = hand(real_cluster).read(ref)
    key = next(iter(before["data"]))
    undo = json.loads(json.dumps(Secret().plan(spec(key), namespace, real_cluster).undo))
    with pytest.raises(Invalid, match=words) as caught:
        Secret().apply(undo, real_cluster, dry_run=True)
    assert KEY_VALUE not in str(caught.value)
    assert hand(real_cluster).read(ref) == before


def test_a_key_that_is_not_there_is_bad_input(real_cluster: KubeCluster, namespace: str) -> None:
    made(real_cluster, namespace)
    with pytest.raises(BadInput) as caught:
        Secret().plan(spec("none"), namespace, real_cluster)
    assert (caught.value.slug, caught.value.expected) == ("key-missing", "one of: key, other")
