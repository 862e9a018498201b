"""Installing roles, policies and the sweeper: what is asked, what is written, what is put back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.clusters import harness_image, roles
from harness.clusters.rootfs import Image
from harness.core.errors import Unreachable
from harness.ports.progress import Progress, Silent
from tests.fakes.kubectl import FakeKubectl, FakeProvider

REF = "drill.internal/harness:abc"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeKubectl:
    def build(repository: Path, progress: Progress) -> Image:
        return Image(REF, tmp_path / "image.tar")

    monkeypatch.setattr(harness_image, "build", build)
    return FakeKubectl(tmp_path)


def noted(text: str) -> dict[str, Any]:
    return {"kind": "Namespace", "metadata": {"name": "drill-system", "annotations": {roles.NOTE: text}}}


def sweeper(generation: int = 1, available: int = 1) -> dict[str, Any]:
    return {
        "kind": "Deployment",
        "metadata": {"name": "drill-sweeper", "uid": "u1", "generation": generation},
        "spec": {"replicas": 1},
        "status": {
            "observedGeneration": generation, "replicas": 1, "updatedReplicas": 1, "availableReplicas": available,
        },
    }  # fmt: skip


def live(cluster: FakeKubectl, *items: dict[str, Any]) -> None:
    cluster.answer("get namespace/", out=json.dumps({"kind": "List", "items": items}))


def declared() -> str:
    return roles._declared(Path(__file__).parents[2], REF)


def install(cluster: FakeKubectl) -> FakeProvider:
    provider = FakeProvider()
    roles.install(provider, cluster.access, Silent())
    return provider


def test_as_declared_means_one_question_and_no_write(cluster: FakeKubectl) -> None:
    live(cluster, noted(f"{declared()} u1/1"), sweeper())
    assert install(cluster).loaded == 0
    assert len(cluster.calls) == 1
    assert cluster.writes == []


@pytest.mark.parametrize(
    "items",
    [
        (),
        (noted("an older one u1/1"), sweeper()),
        (noted("{declared} u1/1"), sweeper(generation=2)),
        (noted("{declared} u1/1"),),
    ],
    ids=["nothing there", "other files", "a sweeper changed by hand", "a sweeper removed"],
)
def test_what_differs_is_put_back_and_noted(cluster: FakeKubectl, items: tuple[dict[str, Any], ...]) -> None:
    live(cluster, *json.loads(json.dumps(items).replace("{declared}", declared())))
    assert install(cluster).loaded == 1
    apply, note = cluster.writes
    assert apply.startswith("apply --server-side --force-conflicts")
    assert f"{roles.NOTE}={declared()} " in note


def test_a_sweeper_that_is_not_available_yet_is_waited_for(cluster: FakeKubectl) -> None:
    live(cluster, noted(f"{declared()} u1/1"), sweeper(available=0))
    install(cluster)
    assert cluster.writes == []
    assert cluster.calls[-1].startswith("rollout status deployment/drill-sweeper")


def test_a_sweeper_that_does_not_start_is_told_with_its_own_words(cluster: FakeKubectl) -> None:
    live(cluster, noted(f"{declared()} u1/1"), sweeper(available=0))
    cluster.answer("rollout", err="timed out", rc=1)
    cluster.answer("logs", out="drill: no such command 'sweep'\n")
    with pytest.raises(Unreachable, match="no such command 'sweep'") as caught:
        install(cluster)
    assert caught.value.slug == "sweeper-not-running"


def test_what_is_declared_depends_on_the_image_and_on_every_file(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[2]
    assert roles._declared(root, "a:1") != roles._declared(root, "a:2")
    every = roles.manifests()
    assert {path.name for path in every} >= {"sweeper.yaml", "guard-policy.yaml", "autopilot.yaml", "runner.yaml"}
    digests = set()
    for left in every:
        monkeypatch.setattr(roles, "manifests", lambda left=left: [path for path in every if path != left])
        digests.add(roles._declared(root, "a:1"))
    assert len(digests) == len(every)


def documents() -> list[dict[str, Any]]:
    return [one for path in roles.manifests() for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one]


def test_no_role_holds_a_wildcard_or_what_would_make_it_more_than_it_is() -> None:
    found = [one for one in documents() if one["kind"] in {"Role", "ClusterRole"}]
    assert len(found) > 8
    for role in found:
        for rule in role["rules"]:
            said = [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert "*" not in said, role["metadata"]
            assert not {"pods/exec", "roles", "rolebindings", "clusterroles"} & set(rule["resources"])
            if "secrets" in rule["resources"]:
                assert role["metadata"]["name"] in {"drill-secrets", "drill-autopilot"}
                assert rule["resources"] == ["secrets"]
                assert rule["resourceNames"], "who may read one Secret must not be let read all"
                assert rule["verbs"]
                assert set(rule["verbs"]) <= {"get", "patch"}
            assert not {"impersonate", "escalate", "bind", "deletecollection"} & set(rule["verbs"])


GUARDS = "drill-guard"
HELD_BY_NAME = {"leases", "undorecords", "services/proxy"}
"""What a Role narrows to a name or a place, or what no API serves."""


def guards() -> list[dict[str, Any]]:
    kind = "ValidatingAdmissionPolicy"
    return [one for one in documents() if one["kind"] == kind and one["metadata"]["name"].startswith(GUARDS)]


def test_whatever_a_role_lets_be_written_is_looked_at_by_a_guard() -> None:
    looked_at = {
        (operation, resource)
        for policy in guards()
        for rule in policy["spec"]["matchConstraints"]["resourceRules"]
        for operation in rule["operations"]
        for resource in rule["resources"]
    }
    operations = {"create": "CREATE", "patch": "UPDATE", "update": "UPDATE", "delete": "DELETE"}
    written = {
        (operations[verb], resource)
        for role in documents()
        if role["kind"] in {"Role", "ClusterRole"}
        for rule in role["rules"]
        for verb in rule["verbs"]
        if verb in operations
        for resource in rule["resources"]
    }
    assert {one for one in written - looked_at if one[1] not in HELD_BY_NAME} == set()


def test_every_guard_holds_every_account_of_the_harness_by_the_same_words() -> None:
    assert len(guards()) == 8
    fleet = "request.userInfo.username {} 'system:serviceaccount:drill-system:drill-fleet'"
    beside = {"drill-guard-jobs": [fleet.format("!=")], "drill-guard-fleet": [fleet.format("==")]}
    for policy in guards():
        condition, *more = policy["spec"]["matchConditions"]
        assert [one["expression"] for one in more] == beside.get(policy["metadata"]["name"], [])
        assert condition["expression"] == "'system:serviceaccounts:drill-system' in request.userInfo.groups"
        assert policy["spec"]["failurePolicy"] == "Fail"
    said = {
        name: {
            one["expression"]
            for policy in guards()
            for one in policy["spec"].get("variables", ())
            if one["name"] == name
        }
        for name in ("who", "allowed", "autopilot", "fence")
    }
    assert [name for name, words in said.items() if len(words) != 1] == []
    bound = {one["spec"]["policyName"] for one in documents() if one["kind"] == "ValidatingAdmissionPolicyBinding"}
    assert {policy["metadata"]["name"] for policy in guards()} <= bound


def test_what_is_cluster_wide_lies_outside_of_namespaces() -> None:
    for role in documents():
        if role["kind"] == "ClusterRole":
            resources = {name for rule in role["rules"] for name in rule["resources"]}
            assert resources <= {"namespaces", "validatingadmissionpolicybindings"}


def test_no_pod_gets_a_token_that_does_not_ask_for_it() -> None:
    accounts = [one for one in documents() if one["kind"] == "ServiceAccount"]
    assert {one["metadata"]["name"] for one in accounts} == {
        "drill-runner", "drill-sweeper", "drill-reader", "drill-autopilot", "drill-fleet",
    }  # fmt: skip
    assert all(one["automountServiceAccountToken"] is False for one in accounts)


def test_the_sweeper_is_held_tightly() -> None:
    (deployment,) = [one for one in documents() if one["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert pod["terminationGracePeriodSeconds"] >= 120
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == harness_image.RECIPE.user
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert container["image"] == harness_image.RECIPE.repository
    assert container["args"] == ["sweep"]
    assert container["resources"]["limits"]["memory"]
