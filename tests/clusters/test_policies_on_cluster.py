"""What the policies of manifests/harness let pass on a real API server, tried with the identities' own tokens.

The roles here are wider than those that ship, so that it is the policy and not the role that is tried.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import yaml

from harness.adapters.kubernetes import KubeCluster
from harness.clusters.provider import Access
from harness.engine import fence
from harness.faults.job import Job, JobSpec
from harness.ports.cluster import Forbidden, Ref
from tests.accounts import kubeconfig_of

ROOT = Path(__file__).parents[2]
HARNESS = ROOT / "manifests" / "harness"
pytestmark = pytest.mark.cluster

LIMITS = {"requests": {"memory": "16Mi"}, "limits": {"memory": "64Mi"}}
POD = {
    # Nothing of this is to run: what is tried is what may be declared.
    "nodeSelector": {"drill.internal/nowhere": "true"},
    "initContainers": [{"name": "first", "image": "drill.internal/nothing:1"}],
    "containers": [
        {
            "name": "app",
            "image": "drill.internal/nothing:1",
            "command": ["/app"],
            "env": [{"name": "A", "value": "1"}],
            "resources": LIMITS,
        },
        {"name": "side", "image": "drill.internal/nothing:1"},
    ],
}


def workload(kind: str, name: str, replicas: int) -> dict[str, Any]:
    labels = {"app": name}
    spec: dict[str, Any] = {
        "replicas": replicas,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": POD},
    }
    if kind == "StatefulSet":
        spec["serviceName"] = name
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def config_map(name: str, **labels: str) -> dict[str, Any]:
    marks = {key.replace("__", "/").replace("_", "."): value for key, value in labels.items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": marks}, "data": {"a": "1"}}


UNDO = {"drill_internal__undo": "true"}
RECOVERED = {"drill_internal__recovered": "true"}
TOO_WIDE = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "Role",
    "metadata": {"name": "too-wide"},
    "rules": [
        {
            "apiGroups": ["apps"],
            "resources": ["deployments", "statefulsets", "deployments/scale", "statefulsets/scale"],
            "verbs": ["*"],
        },
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]},
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]},
    ],
}


@dataclass
class Try:
    """A namespace to try things in, as the administrator or as one of the accounts. Where many things are tried the
    adapter is used, which needs a hundredth of kubectl's time."""

    access: Access
    namespace: str
    folder: Path
    ways: dict[str, Path] = field(default_factory=dict)

    def kubectl(self, who: str, *words: str, body: object = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl as that account; "admin" for the administrator."""
        way = self.access.kubeconfig if who == "admin" else self.ways[who]
        argv = [str(self.access.kubectl), f"--kubeconfig={way}", f"--namespace={self.namespace}", *words]
        stdin = json.dumps(body) if body is not None else None
        return subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, timeout=90)

    def passes(self, who: str, *words: str, body: object = None) -> str:
        done = self.kubectl(who, *words, body=body)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, words_of_refusal: str, who: str, *words: str, body: object = None) -> None:
        done = self.kubectl(who, *words, body=body)
        assert done.returncode != 0, f"{who} was let pass: {done.stdout}"
        assert words_of_refusal in done.stderr

    def patch(self, name: str, *operations: dict[str, Any], kind: str = "deployment") -> list[str]:
        return ["patch", f"{kind}/{name}", "--type=json", f"--patch={json.dumps(operations)}"]

    @contextmanager
    def adapter(self, who: str) -> Iterator[KubeCluster]:
        cluster = KubeCluster.from_kubeconfig(self.ways[who], who, now=time.time)
        yield cluster
        cluster.close()

    def make(self, *items: dict[str, Any]) -> None:
        self.passes("admin", "create", "-f", "-", body={"apiVersion": "v1", "kind": "List", "items": list(items)})


@pytest.fixture(scope="module")
def area(local_access: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Try]:
    """A namespace that opted in, joined by the three lines that the documentation gives, and with a role too wide."""
    folder = tmp_path_factory.mktemp("policies")
    made = Try(local_access, f"policies-{uuid.uuid4().hex[:6]}", folder)
    made.passes("admin", "create", "namespace", made.namespace)
    made.passes("admin", "label", "namespace", made.namespace, "drill.internal/opt-in=true")
    joined = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": made.namespace,
        "resources": [os.path.relpath(HARNESS / "drilled", folder.resolve())],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(joined), encoding="utf-8")
    made.passes("admin", "apply", "-k", str(folder.resolve()))
    made.make(TOO_WIDE, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "somebody"}})
    bound = [f"--serviceaccount=drill-system:drill-{role}" for role in ("runner", "sweeper", "autopilot")]
    made.passes("admin", "create", "rolebinding", "too-wide", "--role=too-wide", *bound, f"--serviceaccount={made.namespace}:somebody")  # fmt: skip # noqa: E501
    for account in ("drill-runner", "drill-sweeper", "drill-autopilot"):
        made.ways[account] = kubeconfig_of(local_access, account, folder)
    made.ways["somebody"] = kubeconfig_of(local_access, "somebody", folder, namespace=made.namespace)
    made.make(
        workload("Deployment", "app", 2), workload("Deployment", "large", 30), workload("StatefulSet", "db", 2),
        config_map("theirs"), config_map("record", **UNDO),
    )  # fmt: skip
    until_refused(made)
    yield made
    made.passes("admin", "delete", "namespace", made.namespace, "--timeout=60s")


def until_refused(made: Try) -> None:
    """Policies come into force within moments of their creation."""
    pause, deadline = Event(), time.monotonic() + 30
    forged = config_map("forged", **UNDO)
    while made.kubectl("somebody", "create", "--dry-run=server", "-f", "-", body=forged).returncode == 0:
        assert time.monotonic() < deadline, "drill-undo-records is not in force"
        pause.wait(0.2)


CONTAINER = "/spec/template/spec/containers/0"
SPEC = "/spec/template/spec"
TARGETS = (("Deployment", "app"), ("StatefulSet", "db"))


def op(path: str, value: object, verb: str = "add") -> dict[str, Any]:
    return {"op": verb, "path": path, "value": value}


@pytest.mark.parametrize("who", ["drill-runner", "drill-sweeper"])
@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_resources_environment_and_replicas_may_change(area: Try, who: str, target: tuple[str, str]) -> None:
    for one in (
        op(f"{CONTAINER}/resources", {}),
        op(f"{CONTAINER}/resources", LIMITS),
        op(f"{CONTAINER}/resources/limits/memory", "32Mi"),
        op(f"{CONTAINER}/env", [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]),
        op(f"{SPEC}/initContainers/0/resources", {"limits": {"cpu": "1"}}),
        op("/spec/replicas", 0),
        op("/spec/replicas", 20),
        op("/spec/replicas", 2),
    ):
        with area.adapter(who) as cluster:
            cluster.patch(Ref(target[0], area.namespace, target[1]), [one])


FORBIDDEN = {
    "containers": [
        op(f"{CONTAINER}/image", "evil:1"),
        op(f"{CONTAINER}/command", ["/bin/sh"]),
        op(f"{CONTAINER}/args", ["-c", "id"]),
        op(f"{CONTAINER}/name", "other"),
        op(f"{CONTAINER}/workingDir", "/elsewhere"),
        op(f"{CONTAINER}/securityContext", {"privileged": True}),
        op(f"{CONTAINER}/volumeMounts", [{"name": "x", "mountPath": "/x"}]),
        op(f"{CONTAINER}/envFrom", [{"secretRef": {"name": "theirs"}}]),
        op(f"{CONTAINER}/lifecycle", {"postStart": {"exec": {"command": ["id"]}}}),
        op(f"{CONTAINER}/livenessProbe", {"exec": {"command": ["id"]}}),
        op(f"{SPEC}/containers/-", {"name": "third", "image": "evil:1"}),
        {"op": "remove", "path": f"{SPEC}/containers/1"},
    ],
    "init containers": [
        op(f"{SPEC}/initContainers/0/image", "evil:1"),
        op(f"{SPEC}/initContainers/-", {"name": "second", "image": "evil:1"}),
        {"op": "remove", "path": f"{SPEC}/initContainers"},
    ],
    "pods": [
        op(f"{SPEC}/hostNetwork", value=True),
        op(f"{SPEC}/hostPID", value=True),
        op(f"{SPEC}/hostIPC", value=True),
        op(f"{SPEC}/serviceAccountName", "default"),
        op(f"{SPEC}/automountServiceAccountToken", value=True),
        op(f"{SPEC}/securityContext", {"runAsUser": 0}),
        op(f"{SPEC}/volumes", [{"name": "root", "hostPath": {"path": "/"}}]),
        op(f"{SPEC}/nodeName", "somewhere"),
        op(f"{SPEC}/nodeSelector", {}),
        op(f"{SPEC}/tolerations", [{"operator": "Exists"}]),
        op(f"{SPEC}/priorityClassName", "system-node-critical"),
        op(f"{SPEC}/imagePullSecrets", [{"name": "x"}]),
    ],
    "workloads": [
        op("/spec/template/metadata/labels/more", "1"),
        op("/spec/template/metadata/annotations", {"a": "1"}),
        op("/metadata/labels", {"a": "1"}),
        op("/metadata/finalizers", ["example.org/stuck"]),
        op(
            "/metadata/ownerReferences",
            [{"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "00000000-0000-0000-0000-000000000000"}],
        ),
        op("/spec/minReadySeconds", 60),
    ],
}


@pytest.mark.parametrize("who", ["drill-runner", "drill-sweeper"])
@pytest.mark.parametrize("what", FORBIDDEN)
@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_nothing_else_may_change(area: Try, who: str, what: str, target: tuple[str, str]) -> None:
    with area.adapter(who) as cluster:
        for one in FORBIDDEN[what]:
            extra = [op(f"{SPEC}/volumes", [{"name": "x", "emptyDir": {}}])] if "volumeMounts" in one["path"] else []
            with pytest.raises(Forbidden, match="a drill leaves"):
                cluster.patch(Ref(target[0], area.namespace, target[1]), [*extra, one])


@pytest.mark.parametrize("who", ["drill-runner", "drill-sweeper"])
@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_of_labels_only_the_fence_comes_and_goes(area: Try, who: str, target: tuple[str, str]) -> None:
    ref = Ref(target[0], area.namespace, target[1])
    key = f"/metadata/labels/{fence.LABEL.replace('/', '~1')}"
    with area.adapter(who) as cluster:
        cluster.patch(ref, [op("/metadata/labels", {fence.LABEL: "1"})])
        cluster.patch(ref, [op(key, "2")])
        with pytest.raises(Forbidden, match="a drill leaves"):
            cluster.patch(ref, [op(key, "3"), op("/metadata/labels/app", "x")])
        cluster.patch(ref, [{"op": "remove", "path": key}])
        with pytest.raises(Forbidden, match="a drill leaves"):
            cluster.patch(ref, [op("/metadata/labels", {"drill.internal/fences": "1"})])
    area.passes("somebody", *area.patch(target[1], op("/metadata/labels", {"theirs": "1"}), kind=target[0].lower()))
    try:
        with area.adapter(who) as cluster:
            for one in (
                op("/metadata/labels", {fence.LABEL: "1"}),
                op("/metadata/labels/theirs", "2"),
                {"op": "remove", "path": "/metadata/labels"},
            ):
                with pytest.raises(Forbidden, match="a drill leaves"):
                    cluster.patch(ref, [one])
    finally:
        area.passes("somebody", *area.patch(target[1], {"op": "remove", "path": "/metadata/labels"}, kind=target[0].lower()))  # fmt: skip # noqa: E501


def test_it_is_the_policy_that_refuses(area: Try) -> None:
    area.passes("somebody", *area.patch("app", op("/metadata/labels", {"a": "1"})))
    area.passes("somebody", *area.patch("app", {"op": "remove", "path": "/metadata/labels"}))


@pytest.mark.parametrize(
    "one",
    [
        op("/spec/paused", value=True),
        op("/spec/strategy", {"type": "Recreate"}),
        op("/spec/revisionHistoryLimit", 1),
    ],
)
def test_a_rollout_is_neither_paused_nor_made_another(area: Try, one: dict[str, Any]) -> None:
    area.refused("a drill leaves workloads as they are", "drill-runner", *area.patch("app", one))


@pytest.mark.parametrize("who", ["drill-runner", "drill-sweeper"])
def test_no_workload_is_made(area: Try, who: str) -> None:
    area.refused("makes none", who, "create", "-f", "-", body=workload("Deployment", "new", 1))


def test_the_bound_on_replicas_holds_at_both_doors_and_on_both_sides(area: Try) -> None:
    bound = "at most 20 replicas"
    area.refused(bound, "drill-runner", *area.patch("app", op("/spec/replicas", 21)))
    area.refused(bound, "drill-runner", "scale", "deployment/app", "--replicas=21")
    area.refused(bound, "drill-runner", "scale", "statefulset/db", "--replicas=21")
    # What could not be brought back by the runner is not taken away by it.
    area.refused(bound, "drill-runner", *area.patch("large", op("/spec/replicas", 0)))
    area.refused(bound, "drill-runner", "scale", "deployment/large", "--replicas=0")
    area.passes("drill-runner", *area.patch("large", op(f"{CONTAINER}/resources/limits/memory", "48Mi")))
    area.passes("drill-runner", "scale", "deployment/app", "--replicas=20")
    area.passes("drill-runner", "scale", "deployment/app", "--replicas=2")
    area.passes("admin", "scale", "deployment/large", "--replicas=0")
    area.passes("drill-sweeper", "scale", "deployment/large", "--replicas=30")


def test_without_the_opt_in_the_runner_may_nothing_and_the_sweeper_bring_back(area: Try, recorded: Try) -> None:
    missing = "has not opted in to drills"
    lower = area.patch("app", op(f"{CONTAINER}/resources/limits/memory", "48Mi"))
    area.passes("admin", "label", "namespace", area.namespace, "drill.internal/opt-in=false", "--overwrite")
    try:
        pause, deadline = Event(), time.monotonic() + 20
        while area.kubectl("drill-runner", *lower, "--dry-run=server").returncode == 0:
            assert time.monotonic() < deadline, "the label's removal is not seen"
            pause.wait(0.2)
        area.refused(missing, "drill-runner", *lower)
        area.refused(missing, "drill-runner", "scale", "deployment/app", "--replicas=1")
        area.refused(missing, "drill-runner", "scale", "statefulset/db", "--replicas=1")
        undo, body = job(recorded)
        with (
            area.adapter("drill-runner") as runner,
            pytest.raises(Forbidden, match="only where the namespace opted in"),
        ):
            runner.create(body)
        with area.adapter("drill-runner") as runner, pytest.raises(Forbidden, match="where the namespace opted"):
            runner.delete(Ref("Pod", area.namespace, runner.list("Pod", area.namespace)[0]["metadata"]["name"]))
        area.make(body)
        with area.adapter("drill-sweeper") as sweeper:
            assert Job().undo(undo, sweeper).outcome == "already"
        area.passes("drill-sweeper", *lower)
        area.passes("drill-sweeper", "scale", "deployment/app", "--replicas=1")
        area.passes("drill-sweeper", "scale", "deployment/app", "--replicas=2")
    finally:
        area.passes("admin", "label", "namespace", area.namespace, "drill.internal/opt-in=true", "--overwrite")


def schema(area: Try, name: str) -> set[str]:
    """The fields of a type, by the API server's own word."""
    told = json.loads(area.passes("admin", "get", "--raw", "/openapi/v3/apis/apps/v1"))
    return set(told["components"]["schemas"][name]["properties"])


def test_no_field_that_the_api_server_knows_is_forgotten(area: Try) -> None:
    policy = next(yaml.safe_load_all((HARNESS / "guard-policy.yaml").read_text(encoding="utf-8")))
    text = json.dumps(policy)

    def compared(new: str, old: str) -> set[str]:
        found = re.findall(rf"\b{re.escape(new)}\.\??(\w+) == {re.escape(old)}\.\??(\w+)", text)
        assert all(one == other for one, other in found)
        return {one for one, _ in found}

    core, apps = "io.k8s.api.core.v1", "io.k8s.api.apps.v1"
    container, pod = schema(area, f"{core}.Container"), schema(area, f"{core}.PodSpec")
    assert container - compared("c", "o") == {"name", "resources", "env"}
    assert pod - compared("variables.pod", "variables.before") == {"containers", "initContainers"}
    for kind in ("Deployment", "StatefulSet"):
        spec = schema(area, f"{apps}.{kind}Spec")
        assert spec - compared("variables.new", "variables.old") == {"replicas", "template"}


# Jobs


def job(area: Try) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the fault `job` would make here: its undo record, and the body as it belongs to a record."""
    spec = JobSpec.model_validate({
        "id": "load", "kind": "job", "image_of": "deployment/app", "command": ["/app"], "run_as_user": 7,
        "effect": {"query": "x", "above": 0, "within": "9s"}, "blast_radius": {"pods": 1},
    })  # fmt: skip
    with area.adapter("drill-runner") as cluster:
        undo = Job().plan(spec, area.namespace, cluster).undo
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "drill-undo-run-load"}
    record = json.loads(area.passes("admin", "get", "configmap", owner["name"], "-o", "json"))
    owner["uid"] = record["metadata"]["uid"]
    body = json.loads(json.dumps(undo["body"]))
    body["metadata"]["ownerReferences"] = [owner]
    return undo, body


@pytest.fixture(scope="module")
def recorded(area: Try) -> Try:
    area.make(config_map("drill-undo-run-load", **UNDO))
    return area


def test_a_job_of_a_run_is_made_suspended_let_run_and_deleted(recorded: Try) -> None:
    area = recorded
    undo, body = job(area)
    with area.adapter("drill-runner") as runner, area.adapter("drill-sweeper") as sweeper:
        Job().prepare(undo, runner, dry_run=True)
        runner.create(body)
        Job().apply(undo, runner)
        ref = Ref("Job", area.namespace, undo["name"])
        for one in (op("/spec/parallelism", 2), op("/spec/suspend", value=True), op("/metadata/labels/x", "1")):
            with pytest.raises(Forbidden, match="only a run makes Jobs"):
                sweeper.patch(ref, [one])
        for one in (
            op("/spec/parallelism", 9), op("/spec/backoffLimit", 9), op("/spec/activeDeadlineSeconds", 99999),
            op("/metadata/finalizers", ["example.org/stuck"]), op("/metadata/annotations", {"a": "1"}),
            op("/metadata/labels/drill.internal~1job", "other"), {"op": "remove", "path": "/metadata/ownerReferences"},
        ):  # fmt: skip
            with pytest.raises(Forbidden, match="changes nothing else of it"):
                runner.patch(ref, [one])
        with pytest.raises(Forbidden, match="only a run makes Jobs"):
            sweeper.create({**body, "metadata": {**body["metadata"], "name": "by-sweeper"}})
        assert Job().undo(undo, sweeper).outcome == "restored"


JOBS = {
    "for nothing": ("an undo record that they go with", "/metadata/ownerReferences", None),
    "running": ("makes Jobs suspended", "/spec/suspend", False),
    "without a mark": ("only Jobs of its own", "/metadata/labels", {"app": "x"}),
    "without an end": ("ends by itself at last", "/spec/activeDeadlineSeconds", None),
    "large": ("at most 20 pods", "/spec/parallelism", 21),
    "with an identity": ("has no identity", f"{SPEC}/serviceAccountName", "somebody"),
    "with a token": ("has no identity", f"{SPEC}/automountServiceAccountToken", True),
    "on the host's network": ("nothing of its node", f"{SPEC}/hostNetwork", True),
    "among the host's processes": ("nothing of its node", f"{SPEC}/hostPID", True),
    "in the host's memory": ("nothing of its node", f"{SPEC}/hostIPC", True),
    "on a node": ("nothing of its node", f"{SPEC}/nodeName", "somewhere"),
    "that goes first": ("nothing of its node", f"{SPEC}/priorityClassName", "system-node-critical"),
    "anywhere": ("nothing of its node", f"{SPEC}/tolerations", [{"operator": "Exists"}]),
    "with a volume": ("no volumes", f"{SPEC}/volumes", [{"name": "root", "hostPath": {"path": "/"}}]),
    "with init": ("nothing of its node", f"{SPEC}/initContainers", [{"name": "a", "image": "a:1"}]),
    "as root": ("no root", f"{SPEC}/securityContext", {"runAsUser": 0}),
    "as root in a container": (
        "no privileges", f"{CONTAINER}/securityContext",
        {"runAsUser": 0, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    ),
    "that may rise": ("no privileges", f"{CONTAINER}/securityContext/allowPrivilegeEscalation", True),
    "with capabilities": ("no privileges", f"{CONTAINER}/securityContext/capabilities/add", ["NET_ADMIN"]),
    "that keeps capabilities": ("no privileges", f"{CONTAINER}/securityContext/capabilities", {}),
    "that is privileged": ("no privileges", f"{CONTAINER}/securityContext", {"privileged": True}),
    "with a secret": ("no configuration or secret", f"{CONTAINER}/envFrom", [{"secretRef": {"name": "theirs"}}]),
    "with a secret's value": (
        "no configuration or secret", f"{CONTAINER}/env",
        [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "theirs", "key": "a"}}}],
    ),
    "at the node's door": ("no privileges", f"{CONTAINER}/ports", [{"containerPort": 80, "hostPort": 80}]),
}  # fmt: skip


@pytest.mark.parametrize("what", JOBS)
def test_no_job_reaches_further_than_its_program(recorded: Try, what: str) -> None:
    words, path, value = JOBS[what]
    undo, body = job(recorded)
    at: Any = body
    *parents, last = path.split("/")[1:]
    for step in parents:
        at = at[int(step)] if step.isdigit() else at[step]
    if value is None:
        del at[last]
    else:
        at[last] = value
    del undo
    with recorded.adapter("drill-runner") as runner, pytest.raises(Forbidden, match=words):
        runner.create(body)


def test_jobs_of_others_are_left_alone(recorded: Try) -> None:
    area = recorded
    _, body = job(area)
    theirs = {**body, "metadata": {"name": "theirs", "namespace": area.namespace, "labels": {"app": "theirs"}}}
    area.make(theirs)
    for who in ("drill-runner", "drill-sweeper"):
        with area.adapter(who) as cluster:
            ref = Ref("Job", area.namespace, "theirs")
            with pytest.raises(Forbidden, match="only Jobs of its own"):
                cluster.delete(ref)
            with pytest.raises(Forbidden, match="only Jobs of its own"):
                cluster.patch(ref, [op("/metadata/labels", {"drill.internal/job": "taken"})])
    area.passes("somebody", "delete", "job", "theirs")


# Pods


def test_pods_are_deleted_by_runs_only_and_left_as_they_are(area: Try) -> None:
    with area.adapter("drill-runner") as runner, area.adapter("drill-sweeper") as sweeper:
        pod = runner.list("Pod", area.namespace, "app=app")[0]
        ref = Ref("Pod", area.namespace, pod["metadata"]["name"])
        key = f"/metadata/labels/{fence.LABEL.replace('/', '~1')}"
        for cluster in (runner, sweeper):
            cluster.patch(ref, [op(key, "1")])
            for one in (
                op("/spec/containers/0/image", "evil:1"), op("/spec/activeDeadlineSeconds", 1),
                op("/metadata/labels/app", "other"), op("/metadata/annotations", {"a": "1"}),
                op("/metadata/finalizers", ["example.org/a"]), {"op": "remove", "path": "/metadata/ownerReferences"},
            ):  # fmt: skip
                with pytest.raises(Forbidden, match="leaves pods as they are"):
                    cluster.patch(ref, [one])
            cluster.patch(ref, [{"op": "remove", "path": key}])
            with pytest.raises(Forbidden, match="makes no pods"):
                cluster.create({"kind": "Pod", "metadata": {"name": "x", "namespace": area.namespace}, "spec": POD})
        with pytest.raises(Forbidden, match="only a run deletes pods"):
            sweeper.delete(ref)
        runner.delete(ref, uid=pod["metadata"]["uid"], grace=0)


# Undo records


def test_records_are_made_and_removed_by_runner_and_sweeper(area: Try) -> None:
    for who, labels in (("drill-runner", UNDO), ("drill-sweeper", RECOVERED), ("admin", UNDO)):
        area.passes(who, "create", "-f", "-", body=config_map("mine", **labels))
        area.passes("drill-sweeper", "delete", "configmap", "mine")


@pytest.mark.parametrize("labels", [UNDO, RECOVERED, {"drill_internal__undo": ""}])
@pytest.mark.parametrize("who", ["somebody", "drill-autopilot"])
def test_nobody_else_writes_one_although_a_role_lets_it_write_config_maps(
    area: Try, who: str, labels: dict[str, str]
) -> None:
    forged = config_map("forged", **labels)
    area.refused("may not write undo records", who, "create", "-f", "-", body=forged)
    area.refused("may not remove undo records", who, "delete", "configmap", "record")
    area.refused("may not remove undo records", who, "delete", "configmaps", "--selector=drill.internal/undo")


@pytest.mark.parametrize(
    "one",
    [
        op("/data/a", "2"),
        op("/data/b", "2"),
        op("/binaryData", {"c": "AAAA"}),
        op("/immutable", value=True),
        {"op": "remove", "path": "/metadata/labels/drill.internal~1undo"},
        op("/metadata/labels", {"other": "1"}),
        op("/metadata/labels/drill.internal~1undo", "false"),
        op("/metadata/labels/drill.internal~1run", "another"),
        op("/metadata/labels/drill.internal~1recovered", "true"),
    ],
)
def test_a_record_is_changed_by_nobody(area: Try, one: dict[str, Any]) -> None:
    change = area.patch("record", one, kind="configmap")
    for who in ("admin", "drill-runner", "drill-sweeper"):
        area.refused("drill-undo-records" if who == "admin" else "ValidatingAdmissionPolicy", who, *change)
    area.refused("may not write undo records", "somebody", *change)


def test_no_other_config_map_becomes_a_record(area: Try) -> None:
    change = area.patch("theirs", op("/metadata/labels", {"drill.internal/undo": "true"}), kind="configmap")
    area.refused("may not write undo records", "somebody", *change)
    area.refused("no other ConfigMap can become one", "admin", *change)
    area.passes("somebody", *area.patch("theirs", op("/data/a", "2"), kind="configmap"))


@pytest.mark.parametrize("who", ["drill-runner", "drill-sweeper", "drill-autopilot"])
def test_the_harness_leaves_config_maps_of_others_alone(area: Try, who: str) -> None:
    label = "only ConfigMaps that carry a label of its own"
    area.refused(label, who, "delete", "configmap", "theirs")
    area.refused(label, who, "create", "-f", "-", body=config_map("new", app="x"))
    area.refused(label, who, *area.patch("theirs", op("/data/a", "3"), kind="configmap"))
    taken = area.patch("theirs", op("/metadata/labels", {"drill.internal/other": "true"}), kind="configmap")
    area.refused("takes no ConfigMap of others", who, *taken)


def test_a_namespace_goes_with_the_records_in_it(area: Try) -> None:
    name = f"{area.namespace}-gone"
    area.passes("admin", "create", "namespace", name)
    area.passes("admin", "create", "--namespace", name, "-f", "-", body=config_map("record", **UNDO))
    area.passes("admin", "delete", "namespace", name, "--timeout=60s")
