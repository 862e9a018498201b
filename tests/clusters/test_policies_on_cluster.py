"""What the policies of manifests/harness let pass on a real API server, tried with the identities' own tokens.

The roles here are wider than those that ship, so that it is the policy and not the role that is tried.
"""

from __future__ import annotations

import copy
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
from pydantic import TypeAdapter

from harness.adapters.kubernetes import KubeCluster
from harness.adapters.system_clock import SystemClock
from harness.autopilot.fixes import Hands, do
from harness.clusters.provider import Access
from harness.core.experiment import Step
from harness.core.inbox import INBOX_LABEL, message
from harness.engine import fence, undo_records
from harness.faults.config import RESTART
from harness.faults.job import MARK as MARK_OF_A_JOB
from harness.faults.job import Job, JobSpec
from harness.ports.cluster import Forbidden, Ref
from harness.wiring.session import TOKEN_SECONDS
from tests.accounts import kubeconfig_of
from tests.clusters.waiting import PLACES, contents, passes, passes_for_autopilot

ROOT = Path(__file__).parents[2]
HARNESS = ROOT / "manifests" / "harness"
pytestmark = [pytest.mark.cluster, pytest.mark.apart, pytest.mark.xdist_group("policies")]

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
        {"apiGroups": [""], "resources": ["configmaps", "secrets", "pods"], "verbs": ["*"]},
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["*"]},
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
    bound = [f"--serviceaccount=drill-system:drill-{role}" for role in ("runner", "sweeper", "autopilot", "reader")]
    made.passes("admin", "create", "rolebinding", "too-wide", "--role=too-wide", *bound, f"--serviceaccount={made.namespace}:somebody")  # fmt: skip # noqa: E501
    for account in ("drill-runner", "drill-sweeper", "drill-autopilot", "drill-reader"):
        made.ways[account] = kubeconfig_of(local_access, account, folder)
    made.ways["somebody"] = kubeconfig_of(local_access, "somebody", folder, namespace=made.namespace)
    made.make(
        workload("Deployment", "app", 2), workload("Deployment", "large", 30), workload("StatefulSet", "db", 2),
        config_map("theirs"), config_map("record", **UNDO), config_map("settings", app="x"),
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
ANNOTATIONS = "/spec/template/metadata/annotations"
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
        op(f"{CONTAINER}/image", "drill.internal/nothing:2"),
        op(f"{CONTAINER}/image", f"registry.invalid/drill.internal/nothing@sha256:{'0' * 64}"),
        op(f"{CONTAINER}/image", "a.b.invalid/drill.internal/nothing"),
        op(f"{CONTAINER}/image", "drill.internal/nothing:1"),
        op("/spec/replicas", 0),
        op("/spec/replicas", 20),
        op("/spec/replicas", 2),
        op(ANNOTATIONS, {RESTART: "a"}),
        op(f"{ANNOTATIONS}/{RESTART.replace('/', '~1')}", "b"),
        {"op": "remove", "path": ANNOTATIONS},
    ):
        with area.adapter(who) as cluster:
            cluster.patch(Ref(target[0], area.namespace, target[1]), [one])


STEP: TypeAdapter[Step] = TypeAdapter(Step)
RESTARTED = "kubectl.kubernetes.io/restartedAt"


def hands(area: Try, cluster: KubeCluster) -> Hands:
    return Hands(cluster, area.namespace, SystemClock(), lambda call: call(), lambda: None)


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_the_steps_of_a_runbook_pass(area: Try, target: tuple[str, str]) -> None:
    ref = Ref(target[0], area.namespace, target[1])
    of = {"target": f"{target[0].lower()}/{target[1]}"}
    with area.adapter("drill-autopilot") as cluster:
        for one in (
            {"do": "scale", **of, "replicas": 20},
            {"do": "scale", **of, "replicas": 2},
            {"do": "set-env", **of, "container": "app", "set": {"A": "2", "B": "3"}},
            {"do": "set-image", **of, "container": "app", "image": "drill.internal/nothing:2"},
            {"do": "set-image", **of, "container": "app", "image": "drill.internal/nothing:1"},
            {"do": "restart", **of},
            {"do": "set-config", "configmap": SETTINGS, "set": {"a": "2", "z": "3"}},
        ):
            do(STEP.validate_python(one), hands(area, cluster))
        cluster.patch(ref, [op(f"{CONTAINER}/resources/limits/memory", "128Mi")])
        template = cluster.get(ref)["spec"]["template"]
        assert RESTARTED in template["metadata"]["annotations"]
        cluster.create(message(area.namespace, actor=cluster.whoami().username, action="note", automation=True))
    area.passes("somebody", *area.patch(target[1], {"op": "remove", "path": ANNOTATIONS}, kind=target[0].lower()))
    area.passes("somebody", *area.patch(SETTINGS, op("/data", {"a": "1"}), kind="configmap"))
    area.passes("drill-runner", "delete", "configmaps", f"--selector={INBOX_LABEL}=true")


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_the_autopilot_changes_nothing_that_no_step_does(area: Try, target: tuple[str, str]) -> None:
    ref = Ref(target[0], area.namespace, target[1])
    with area.adapter("drill-autopilot") as cluster:
        for one in (
            op(f"{CONTAINER}/resources", {}),
            op(f"{CONTAINER}/resources/requests/memory", "8Mi"),
            op(f"{CONTAINER}/resources/limits/cpu", "1"),
            op(f"{SPEC}/initContainers/0/resources", {"limits": {"cpu": "2"}}),
            op(f"{SPEC}/initContainers/0/env", [{"name": "A", "value": "1"}]),
        ):
            with pytest.raises(Forbidden, match="a runbook's step leaves"):
                cluster.patch(ref, [one])
        for one in (
            op("/metadata/labels", {fence.LABEL: "1"}),
            op(ANNOTATIONS, {RESTART: "1"}),
            op(ANNOTATIONS, {RESTARTED: "1", "a": "1"}),
        ):
            with pytest.raises(Forbidden, match="a drill leaves"):
                cluster.patch(ref, [one])
    for who in ("drill-runner", "drill-sweeper"):
        with area.adapter(who) as cluster, pytest.raises(Forbidden, match="a drill leaves"):
            cluster.patch(ref, [op(ANNOTATIONS, {RESTARTED: "1"})])


def test_no_other_account_of_the_harness_changes_anything(area: Try, keys: tuple[Ref, Ref]) -> None:
    gone = pod_of(area, "app")
    for words in (
        area.patch("app", op("/spec/replicas", 1)),
        ["scale", "deployment/app", "--replicas=1"],
        area.patch(keys[0].name, move("a", "drill-kept.a"), kind="secret"),
    ):
        area.refused("this account takes no part in them", "drill-reader", *words)
    area.refused("a run touches pods only where", "drill-reader", "delete", gone, "--wait=false")
    area.refused("are made by the sweeper, and by runner", "drill-reader", "create", "-f", "-", body=config_map("new", drill_internal__other="true"))  # fmt: skip # noqa: E501


def test_a_run_gets_the_autopilots_token_for_a_while_and_no_other(area: Try) -> None:
    def ask(who: str, account: str, **spec: Any) -> subprocess.CompletedProcess[str]:
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = f"/api/v1/namespaces/drill-system/serviceaccounts/{account}/token"
        return area.kubectl(who, "create", "--raw", path, "-f", "-", body=body)

    assert ask("drill-runner", "drill-autopilot").returncode == 0
    assert ask("drill-runner", "drill-autopilot", expirationSeconds=TOKEN_SECONDS).returncode == 0
    done = ask("drill-runner", "drill-autopilot", expirationSeconds=TOKEN_SECONDS + 1)
    assert done.returncode != 0
    assert "at most two hours" in done.stderr
    # A Role that is too wide, as that of the other tests, would not help.
    area.passes("admin", "create", "clusterrolebinding", area.namespace, "--clusterrole=system:node", "--serviceaccount=drill-system:drill-reader", "--serviceaccount=drill-system:drill-runner")  # fmt: skip # noqa: E501
    try:
        for who, account in (("drill-runner", "drill-sweeper"), ("drill-reader", "drill-autopilot")):
            pause, deadline = Event(), time.monotonic() + 20
            while "only a run gets a token" not in (told := ask(who, account).stderr):
                assert "cannot create resource" in told, told
                assert time.monotonic() < deadline, "the binding is not seen"
                pause.wait(0.2)
    finally:
        area.passes("admin", "delete", "clusterrolebinding", area.namespace)


FORBIDDEN = {
    "containers": [
        op(f"{CONTAINER}/image", "evil:1"),
        op(f"{CONTAINER}/image", "drill.internal/nothing/evil:1"),
        op(f"{CONTAINER}/image", "drill.internal/nothings:1"),
        op(f"{CONTAINER}/image", "evil.example.org/drill.internal/nothing:1"),
        op(f"{CONTAINER}/image", "drill.internal:5000/nothing:1"),
        op(f"{CONTAINER}/image", "registry.invalid/evil:1"),
        op(f"{CONTAINER}/image", "registry.invalid.example.org/drill.internal/nothing:1"),
        op(f"{CONTAINER}/image", "notinvalid/drill.internal/nothing:1"),
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
        op(f"{SPEC}/initContainers/0/image", "drill.internal/nothing:2"),
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
        op(ANNOTATIONS, {"a": "1"}),
        op(ANNOTATIONS, {RESTART: "1", "a": "1"}),
        op(ANNOTATIONS, {f"{RESTART}s": "1"}),
        op("/metadata/annotations", {RESTART: "1"}),
        op("/metadata/labels", {"a": "1"}),
        op("/metadata/finalizers", ["example.org/stuck"]),
        op(
            "/metadata/ownerReferences",
            [{"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "00000000-0000-0000-0000-000000000000"}],
        ),
        op("/spec/minReadySeconds", 60),
    ],
}


@pytest.mark.parametrize("who", ["drill-runner", "drill-sweeper", "drill-autopilot"])
@pytest.mark.parametrize("what", FORBIDDEN)
@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_nothing_else_may_change(area: Try, who: str, what: str, target: tuple[str, str]) -> None:
    with area.adapter(who) as cluster:
        for one in FORBIDDEN[what]:
            extra = [op(f"{SPEC}/volumes", [{"name": "x", "emptyDir": {}}])] if "volumeMounts" in one["path"] else []
            with pytest.raises(Forbidden, match="a drill leaves"):
                cluster.patch(Ref(target[0], area.namespace, target[1]), [*extra, one])


@pytest.mark.parametrize("who", ["drill-runner", "drill-sweeper", "drill-autopilot"])
def test_an_image_that_is_nowhere_leads_back_and_nowhere_else(area: Try, who: str) -> None:
    ref = Ref("Deployment", area.namespace, "app")
    with area.adapter(who) as cluster:
        cluster.patch(ref, [op(f"{CONTAINER}/image", "registry.invalid/drill.internal/nothing:9")])
        for other in ("evil:1", "registry.invalid/evil:1", "nothing:1", "x.invalid/nothing:1"):
            with pytest.raises(Forbidden, match="a drill leaves containers"):
                cluster.patch(ref, [op(f"{CONTAINER}/image", other)])
        cluster.patch(ref, [op(f"{CONTAINER}/image", "drill.internal/nothing:1")])


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


@pytest.mark.parametrize("who", ["drill-runner", "drill-sweeper"])
def test_annotations_of_others_neither_change_nor_go_with_ours(area: Try, who: str) -> None:
    area.passes("somebody", *area.patch("app", op(ANNOTATIONS, {"theirs": "1"})))
    try:
        with area.adapter(who) as cluster:
            ref = Ref("Deployment", area.namespace, "app")
            for one in (
                op(ANNOTATIONS, {RESTART: "1"}),
                op(f"{ANNOTATIONS}/theirs", "2"),
                {"op": "remove", "path": ANNOTATIONS},
            ):
                with pytest.raises(Forbidden, match="a drill leaves"):
                    cluster.patch(ref, [one])
            ours = f"{ANNOTATIONS}/{RESTART.replace('/', '~1')}"
            cluster.patch(ref, [op(ours, "1")])
            cluster.patch(ref, [{"op": "remove", "path": ours}])
    finally:
        area.passes("somebody", *area.patch("app", {"op": "remove", "path": ANNOTATIONS}))


def taken(name: str, secret: str, key: str = "a") -> dict[str, Any]:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


@pytest.mark.parametrize("who", ["drill-runner", "drill-sweeper", "drill-autopilot"])
@pytest.mark.parametrize("kind", ["containers", "initContainers"])
def test_what_a_container_takes_from_secrets_stays_as_it_is(area: Try, who: str, kind: str) -> None:
    body = workload("Deployment", f"keyed-{uuid.uuid4().hex[:6]}", 0)
    pod: dict[str, Any] = copy.deepcopy(POD)
    literal, setting = {"name": "A", "value": "1"}, {"name": "S", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a"}}}  # fmt: skip # noqa: E501
    own = [taken("K", "k"), literal, taken("L", "k", "b"), setting]
    pod[kind][0]["env"] = own
    body["spec"]["template"]["spec"] = pod
    area.make(body)
    ref, env = Ref("Deployment", area.namespace, body["metadata"]["name"]), f"{SPEC}/{kind}/0/env"
    try:
        with area.adapter(who) as cluster:
            for other in (
                [*own, taken("M", "other")],
                [*own, taken("M", "k")],
                [taken("K", "other"), *own[1:]],
                [taken("K", "k", "b"), *own[1:]],
                [{"name": "K", "value": "1"}, *own[1:]],
                [own[0], taken("A", "other"), *own[2:]],
                own[1:],
                [],
            ):
                with pytest.raises(Forbidden, match=r"(?i)variables that come from no\s+Secret"):
                    cluster.patch(ref, [op(env, other)])
            with pytest.raises(Forbidden, match=r"variables that come from no\s+Secret"):
                cluster.patch(ref, [{"op": "remove", "path": env}])
            with pytest.raises(Forbidden, match=r"variables that come from no\s+Secret"):
                cluster.patch(ref, [op(f"{SPEC}/containers/1/env", [taken("K", "k")])])
            if who == "drill-autopilot" and kind == "initContainers":
                return
            # What a fault may take away comes back, wherever it stood.
            for other in ([own[0], own[2], setting], own, [*own[:3]], own, [{"name": "B", "value": "2"}, *own], own):
                cluster.patch(ref, [op(env, other)])
    finally:
        area.passes("admin", "delete", "deployment", ref.name)


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


@pytest.mark.parametrize("who", ["drill-runner", "drill-sweeper", "drill-autopilot"])
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
    # The sweeper, which obeys records that somebody may have forged, and the autopilot go no further.
    for who in ("drill-sweeper", "drill-autopilot"):
        for name, replicas in (("app", 21), ("large", 0), ("large", 20)):
            area.refused(bound, who, *area.patch(name, op("/spec/replicas", replicas)))
            area.refused(bound, who, "scale", f"deployment/{name}", f"--replicas={replicas}")
        area.passes(who, "scale", "deployment/app", "--replicas=20")
        area.passes(who, "scale", "deployment/app", "--replicas=2")


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
        configured = area.patch(SETTINGS, op("/data/a", "1"), kind="configmap")
        area.refused("by runner and autopilot where the namespace has opted in", "drill-runner", *configured)
        area.refused("by runner and autopilot where the namespace has opted in", "drill-autopilot", *configured)
        area.passes("drill-sweeper", *configured)
        for words in (lower, ["scale", "deployment/app", "--replicas=1"], ["scale", "statefulset/db", "--replicas=1"]):
            area.refused(missing, "drill-autopilot", *words)
        area.refused("a run touches pods only where", "drill-autopilot", "delete", pod_of(area, "app"), "--wait=false")
        undo, body = job(recorded)
        with (
            area.adapter("drill-runner") as runner,
            pytest.raises(Forbidden, match="only where the namespace opted in"),
        ):
            runner.create(body)
        with area.adapter("drill-runner") as runner, pytest.raises(Forbidden, match="where the namespace opted"):
            runner.delete(Ref("Pod", area.namespace, runner.list("Pod", area.namespace)[0]["metadata"]["name"]))
        area.make(body)
        with area.adapter("drill-autopilot") as autopilot, pytest.raises(Forbidden, match="only where the namespace"):
            autopilot.delete(Ref("Job", area.namespace, undo["name"]))
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


# Secrets

VALUES = {"a": "dGhl", "b": "b3RoZXI="}
MARK = "drill.internal/secret-0123abcd"


def secret(name: str, data: dict[str, str], *, marked: bool = False, type_: str = "Opaque") -> dict[str, Any]:
    meta = {"name": name, "labels": {"app": "x", **({MARK: "in-force"} if marked else {})}}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": type_, "data": data}


def move(name: str, to: str) -> dict[str, Any]:
    return {"op": "move", "from": f"/data/{name}", "path": f"/data/{to}"}


@pytest.fixture
def keys(area: Try) -> Iterator[tuple[Ref, Ref]]:
    """A Secret as its owners made it, and one on which a fault is in force."""
    made = [f"{kind}-{uuid.uuid4().hex[:6]}" for kind in ("whole", "drilled")]
    area.make(
        secret(made[0], VALUES), secret(made[1], {"drill-kept.a": "dGhl", "a": "bmV3", "b": "b3RoZXI="}, marked=True)
    )
    yield Ref("Secret", area.namespace, made[0]), Ref("Secret", area.namespace, made[1])
    area.passes("admin", "delete", "secret", *made)


@pytest.mark.parametrize("who", ["drill-runner", "drill-sweeper"])
@pytest.mark.parametrize("parked", ["drill-kept.a", "revoked-drill.a"])
def test_a_value_moves_to_a_name_of_the_drills_and_back(
    area: Try, who: str, parked: str, keys: tuple[Ref, Ref]
) -> None:
    mark = f"/metadata/labels/{MARK.replace('/', '~1')}"
    with area.adapter(who) as cluster:
        for operations in (
            [move("a", parked), op(mark, "in-force")],
            [move(parked, "a"), op(mark, "put-back")],
            [{"op": "remove", "path": mark}],
            [move("a", parked), op("/data/a", "bmV3")],
            [op("/data/a", "bmV3ZXI=")],
            [{"op": "remove", "path": "/data/a"}],
            [move(parked, "a")],
        ):
            cluster.patch(keys[0], operations)
    kept = json.loads(area.passes("admin", "get", "secret", keys[0].name, "-o", "json"))
    assert kept["data"] == VALUES


NOT_OF_A_WHOLE_SECRET = {
    "takes nothing away": [
        [op("/data/a", "bmV3")],
        [{"op": "remove", "path": "/data/a"}],
        [{"op": "remove", "path": "/data"}],
        [move("a", "drill-kept.a"), op("/data/b", "bmV3")],
        [op("/data/a", "b3RoZXI="), op("/data/b", "dGhl")],
        [op("/data/b", "dGhl")],
    ],
    "waits only what was under the name": [
        [move("a", "drill-kept.b")],
        [op("/data/drill-kept.c", "bmV3")],
        [op("/data/drill-kept.a", "bmV3")],
        [op("/data/revoked-drill.drill-kept.a", "dGhl")],
        [op("/data/drill-kept.a", "dGhl"), op("/data/revoked-drill.drill-kept.a", "dGhl")],
    ],
    "two values wait, or one that waits itself": [
        [op("/data/drill-kept.a", "dGhl"), op("/data/revoked-drill.a", "dGhl")],
        [move("a", "drill-kept.a"), op("/data/revoked-drill.a", "dGhl")],
    ],
    "adds no names of its own": [
        [op("/data/c", "bmV3")],
        [move("a", "c")],
        [op("/data/copy", "dGhl")],
        [op("/stringData", {"c": "new"})],
    ],
    "leaves Secrets as they are": [
        [op("/metadata/labels/app", "y")],
        [op("/metadata/labels", {})],
        [op("/metadata/annotations", {"a": "1"})],
        [op("/metadata/finalizers", ["example.org/stuck"])],
        [op("/immutable", value=True)],
    ],
}


@pytest.mark.parametrize("who", ["drill-runner", "drill-sweeper"])
@pytest.mark.parametrize("why", NOT_OF_A_WHOLE_SECRET)
def test_nothing_that_is_in_a_secret_is_lost(area: Try, who: str, why: str, keys: tuple[Ref, Ref]) -> None:
    with area.adapter(who) as cluster:
        for operations in NOT_OF_A_WHOLE_SECRET[why]:
            with pytest.raises(Forbidden, match=why):
                cluster.patch(keys[0], operations)


@pytest.mark.parametrize("who", ["drill-runner", "drill-sweeper"])
def test_what_waits_for_its_undo_is_not_lost_either(area: Try, who: str, keys: tuple[Ref, Ref]) -> None:
    with area.adapter(who) as cluster:
        for operations in (
            [{"op": "remove", "path": "/data/drill-kept.a"}],
            [op("/data/drill-kept.a", "bmV3")],
            [move("drill-kept.a", "b")],
            [move("drill-kept.a", "c")],
            [move("drill-kept.a", "revoked-drill.a")],
            [{"op": "copy", "from": "/data/a", "path": "/data/revoked-drill.a"}],
            [{"op": "copy", "from": "/data/drill-kept.a", "path": "/data/revoked-drill.a"}],
            [{"op": "copy", "from": "/data/drill-kept.a", "path": "/data/a"}, op("/data/drill-kept.a", "bmV3")],
            [{"op": "move", "from": "/data/a", "path": "/data/revoked-drill.a"}, move("drill-kept.a", "a")],
            [{"op": "remove", "path": "/data/b"}],
            [move("a", "b")],
        ):
            with pytest.raises(Forbidden, match=r"a drill|waits"):
                cluster.patch(keys[1], operations)


@pytest.mark.parametrize("who", ["drill-runner", "drill-sweeper", "drill-autopilot"])
def test_the_policy_on_secrets_answers_like_the_rules_in_which_every_sequence_was_tried(
    area: Try, who: str, keys: tuple[Ref, Ref]
) -> None:
    rule = passes_for_autopilot if who == "drill-autopilot" else passes
    every = list(contents(("a", *(f"{place}a" for place in PLACES)), ("dGhl", "bmV3")))
    answers: list[tuple[Any, Any, bool]] = []
    with area.adapter("somebody") as owner, area.adapter(who) as cluster:
        for old in every:
            owner.patch(keys[0], [op("/data", old)])
            for new in every:
                try:
                    cluster.patch(keys[0], [op("/data", new)], dry_run=True)
                except Forbidden:
                    answers.append((old, new, False))
                else:
                    answers.append((old, new, True))
    assert len(answers) == 27 * 27
    assert [one for one in answers if one[2] != rule(one[0], one[1])] == []


def test_the_autopilot_puts_a_new_key_where_the_former_one_waits_and_does_nothing_else(
    area: Try, keys: tuple[Ref, Ref]
) -> None:
    whole, drilled = keys
    with area.adapter("drill-autopilot") as cluster:
        new = {"do": "new-key", "secret": drilled.name, "key": "a"}
        do(STEP.validate_python(new), hands(area, cluster))
        area.passes("somebody", *area.patch(drilled.name, {"op": "remove", "path": "/data/a"}, kind="secret"))
        do(STEP.validate_python(new), hands(area, cluster))
        for ref, operations in (
            (whole, [op("/data/a", "bmV3")]),
            (whole, [move("a", "drill-kept.a")]),
            (drilled, [op("/data/b", "bmV3")]),
            (drilled, [op("/data/c", "bmV3")]),
            (drilled, [move("drill-kept.a", "a")]),
            (drilled, [{"op": "remove", "path": "/data/a"}]),
            (drilled, [{"op": "remove", "path": f"/metadata/labels/{MARK.replace('/', '~1')}"}]),
            (drilled, [op("/metadata/labels/drill.internal~1fence", "1")]),
        ):
            with pytest.raises(Forbidden, match=r"a drill|the autopilot"):
                cluster.patch(ref, operations)
    kept = json.loads(area.passes("admin", "get", "secret", drilled.name, "-o", "json"))["data"]
    assert (kept["drill-kept.a"], kept["b"]) == ("dGhl", "b3RoZXI=")
    assert kept["a"] not in {"dGhl", "bmV3"}


@pytest.mark.parametrize("who", ["drill-runner", "drill-sweeper", "drill-autopilot"])
def test_secrets_are_neither_made_nor_removed_and_others_left_alone(area: Try, who: str, keys: tuple[Ref, Ref]) -> None:
    area.refused("makes and removes none", who, "create", "-f", "-", body=secret("new", VALUES))
    area.refused("makes and removes none", who, "delete", "secret", keys[0].name)
    area.make(secret("basic", {"username": "dGhl", "password": "dGhl"}, type_="kubernetes.io/basic-auth"))
    area.refused("only type Opaque", who, *area.patch("basic", move("username", "drill-kept.username"), kind="secret"))
    area.passes("admin", "delete", "secret", "basic")


def test_without_the_opt_in_no_secret_is_broken_and_each_can_be_brought_back(area: Try, keys: tuple[Ref, Ref]) -> None:
    broken = area.patch(keys[0].name, move("a", "drill-kept.a"), kind="secret")
    area.passes("admin", "label", "namespace", area.namespace, "drill.internal/opt-in=false", "--overwrite")
    try:
        pause, deadline = Event(), time.monotonic() + 20
        while area.kubectl("drill-runner", *broken, "--dry-run=server").returncode == 0:
            assert time.monotonic() < deadline, "the label's removal is not seen"
            pause.wait(0.2)
        area.refused("has not opted in to drills", "drill-runner", *broken)
        new = area.patch(keys[1].name, op("/data/a", "dGhl"), kind="secret")
        area.refused("has not opted in to drills", "drill-autopilot", *new)
        area.passes("drill-sweeper", *area.patch(keys[1].name, move("drill-kept.a", "a"), kind="secret"))
    finally:
        area.passes("admin", "label", "namespace", area.namespace, "drill.internal/opt-in=true", "--overwrite")


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
            op("/spec/ttlSecondsAfterFinished", 1), op("/metadata/labels/app", "app"),
            {"op": "remove", "path": "/metadata/labels/drill.internal~1started"},
        ):  # fmt: skip
            with pytest.raises(Forbidden, match="changes nothing else of it"):
                runner.patch(ref, [one])
        with pytest.raises(Forbidden, match="only a run makes Jobs"):
            sweeper.create({**body, "metadata": {**body["metadata"], "name": "by-sweeper"}})
        assert Job().undo(undo, sweeper).outcome == "restored"


LABELS = "/spec/template/metadata/labels"
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
    "of a Service": ("no label or annotation of others", f"{LABELS}/app", "app"),
    "of nobody": ("no label or annotation of others", LABELS, {}),
    "of another mark": ("no label or annotation of others", f"{LABELS}/drill.internal~1job", "other"),
    "for another controller": ("run by Kubernetes itself", "/spec/managedBy", "example.org/other"),
    "that its network obeys": ("no label or annotation of others", ANNOTATIONS, {"k8s.v1.cni.cncf.io/networks": "a"}),
    "that is kept": ("leaves nothing behind", "/metadata/finalizers", ["example.org/stuck"]),
    "without a profile": ("nothing of its node", f"{SPEC}/securityContext/seccompProfile", None),
    "unconfined": ("nothing of its node", f"{SPEC}/securityContext/seccompProfile", {"type": "Unconfined"}),
    "of a node's profile": (
        "nothing of its node", f"{SPEC}/securityContext/seccompProfile", {"type": "Localhost", "localhostProfile": "a"},
    ),
    "unconfined in a container": (
        "no privileges", f"{CONTAINER}/securityContext/seccompProfile", {"type": "Unconfined"},
    ),
    "out of AppArmor": ("nothing of its node", f"{SPEC}/securityContext/appArmorProfile", {"type": "Unconfined"}),
    "out of AppArmor in a container": (
        "no privileges", f"{CONTAINER}/securityContext/appArmorProfile", {"type": "Unconfined"},
    ),
    "under another label of SELinux": (
        "nothing of its node", f"{SPEC}/securityContext/seLinuxOptions", {"type": "spc_t"},
    ),
    "in another group": ("nothing of its node", f"{SPEC}/securityContext/supplementalGroups", [0]),
    "with the kernel's settings": (
        "nothing of its node", f"{SPEC}/securityContext/sysctls", [{"name": "kernel.shm_rmid_forced", "value": "1"}],
    ),
    "under another runtime": ("nothing of its node", f"{SPEC}/runtimeClassName", "other"),
    "with names of others": ("nothing of its node", f"{SPEC}/hostAliases", [{"ip": "127.0.0.1", "hostnames": ["api"]}]),
    "on chosen nodes": ("nothing of its node", f"{SPEC}/nodeSelector", {"a": "b"}),
    "that the node asks": ("no privileges", f"{CONTAINER}/livenessProbe", {"httpGet": {"port": 80, "host": "a.b"}}),
    "that is hooked": ("no privileges", f"{CONTAINER}/lifecycle", {"preStop": {"exec": {"command": ["id"]}}}),
}  # fmt: skip


@pytest.mark.parametrize("what", JOBS)
def test_no_job_reaches_further_than_its_program(recorded: Try, what: str) -> None:
    words, path, value = JOBS[what]
    undo, body = job(recorded)
    at: Any = body
    *parents, last = (step.replace("~1", "/") for step in path.split("/")[1:])
    for step in parents:
        at = at[int(step)] if step.isdigit() else at[step]
    if value is None:
        del at[last]
    else:
        at[last] = value
    del undo
    with recorded.adapter("drill-runner") as runner, pytest.raises(Forbidden, match=words):
        runner.create(body)


def test_a_job_does_not_choose_its_pods(recorded: Try) -> None:
    _, body = job(recorded)
    body["spec"] |= {
        "manualSelector": True,
        "selector": {"matchLabels": body["spec"]["template"]["metadata"]["labels"]},
    }
    with recorded.adapter("drill-runner") as runner, pytest.raises(Forbidden, match="for the pods that it makes"):
        runner.create(body)


def test_a_runbook_ends_a_job_of_a_drill_and_none_of_others(recorded: Try) -> None:
    area = recorded
    undo, body = job(area)
    with area.adapter("drill-runner") as runner, area.adapter("drill-autopilot") as autopilot:
        ref = Ref("Job", area.namespace, runner.create(body)["metadata"]["name"])
        Job().apply(undo, runner)
        with pytest.raises(Forbidden, match="only a run makes Jobs"):
            autopilot.create({**body, "metadata": {**body["metadata"], "name": "by-autopilot"}})
        with pytest.raises(Forbidden, match="only a run makes Jobs"):
            autopilot.patch(ref, [op("/spec/suspend", value=True)])
        ours = {MARK_OF_A_JOB: body["metadata"]["labels"][MARK_OF_A_JOB]}
        do(STEP.validate_python({"do": "delete-jobs", "labels": ours}), hands(area, autopilot))
        assert Job().undo(undo, runner).outcome == "already"


def test_jobs_of_others_are_left_alone(recorded: Try) -> None:
    area = recorded
    _, body = job(area)
    theirs = {**body, "metadata": {"name": "theirs", "namespace": area.namespace, "labels": {"app": "theirs"}}}
    area.make(theirs)
    for who in ("drill-runner", "drill-sweeper", "drill-autopilot"):
        with area.adapter(who) as cluster:
            ref = Ref("Job", area.namespace, "theirs")
            with pytest.raises(Forbidden, match="only Jobs of its own"):
                cluster.delete(ref)
            with pytest.raises(Forbidden, match="only Jobs of its own"):
                cluster.patch(ref, [op("/metadata/labels", {"drill.internal/job": "taken"})])
    area.passes("somebody", "delete", "job", "theirs")


# Pods


def pod_of(area: Try, app: str) -> str:
    """A pod of a workload: it is there, and runs nowhere."""
    pause, deadline = Event(), time.monotonic() + 30
    while not (found := area.passes("admin", "get", "pods", f"--selector=app={app}", "-o", "name").split()):
        assert time.monotonic() < deadline, f"{app} has no pods"
        pause.wait(0.2)
    return found[0]


def test_only_pods_that_come_back_are_removed_and_by_the_sweeper_those_that_hold_something_secret(area: Try) -> None:
    keyed = [workload(kind, f"keyed-{kind.lower()}", 1) for kind in ("Deployment", "StatefulSet")]
    for body, source in zip(keyed, ("env", "envFrom"), strict=True):
        pod: dict[str, Any] = copy.deepcopy(POD)
        pod["containers"][1][source] = (
            [{"name": "K", "valueFrom": {"secretKeyRef": {"name": "k", "key": "a"}}}]
            if source == "env"
            else [{"secretRef": {"name": "k"}}]
        )
        body["spec"]["template"]["spec"] = pod
    bare: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "bare"},
        "spec": keyed[0]["spec"]["template"]["spec"],
    }
    area.make(*keyed, bare)
    try:
        gone = ["--dry-run=server", "--wait=false"]
        for who in ("drill-runner", "drill-sweeper", "drill-autopilot"):
            area.refused("makes anew", who, "delete", "pod/bare", *gone)
            area.refused("makes no pods", who, "create", "-f", "-", body={**bare, "metadata": {"name": "b"}})
            area.refused("leaves pods as they are", who, "label", "pod/bare", "a=1")
            for body in keyed:
                area.passes(who, "delete", pod_of(area, body["metadata"]["name"]), *gone)
        area.passes("drill-runner", "delete", pod_of(area, "app"), *gone)
        area.passes("drill-autopilot", "delete", pod_of(area, "app"), *gone)
        area.refused("out of a Secret", "drill-sweeper", "delete", pod_of(area, "app"), *gone)
    finally:
        for body in keyed:
            area.passes("admin", "delete", body["kind"].lower(), body["metadata"]["name"])
        area.passes("admin", "delete", "pod/bare", "--grace-period=0", "--force")


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
        with area.adapter("drill-autopilot") as autopilot, pytest.raises(Forbidden, match="leaves pods as they are"):
            autopilot.patch(ref, [op(key, "1")])
        with pytest.raises(Forbidden, match="only a run deletes pods"):
            sweeper.delete(ref)
        runner.delete(ref, uid=pod["metadata"]["uid"], grace=0)


# Undo records


def test_records_are_made_and_removed_by_runner_and_sweeper(area: Try) -> None:
    for who, labels in (("drill-runner", UNDO), ("drill-sweeper", RECOVERED), ("admin", UNDO)):
        area.passes(who, "create", "-f", "-", body=config_map("mine", **labels))
        area.passes("drill-sweeper", "delete", "configmap", "mine")


def test_without_the_opt_in_the_runner_makes_no_record_that_the_sweeper_would_obey(area: Try) -> None:
    refusal = "by runner and autopilot where the namespace has opted in"
    stored = ("another", "load", "scale", {"namespace": area.namespace}, 0, 60.0)
    area.passes("admin", "label", "namespace", area.namespace, "drill.internal/opt-in=false", "--overwrite")
    try:
        pause, deadline = Event(), time.monotonic() + 20
        record = config_map("forged", **UNDO)
        while area.kubectl("drill-runner", "create", "--dry-run=server", "-f", "-", body=record).returncode == 0:
            assert time.monotonic() < deadline, "the label's removal is not seen"
            pause.wait(0.2)
        for labels in (UNDO, RECOVERED, {"drill_internal__other": "true"}):
            area.refused(refusal, "drill-runner", "create", "-f", "-", body=config_map("forged", **labels))
        with area.adapter("drill-runner") as runner, pytest.raises(Forbidden, match=refusal):
            undo_records.store(runner, area.namespace, *stored)
        said = config_map("said", drill_internal__inbox="true")
        said["data"] = {"actor": "system:serviceaccount:drill-system:drill-autopilot"}
        area.refused(refusal, "drill-autopilot", "create", "-f", "-", body=said)
        area.passes("drill-sweeper", "create", "-f", "-", body=config_map("mine", **RECOVERED))
        area.passes("drill-sweeper", "delete", "configmap", "mine")
    finally:
        area.passes("admin", "label", "namespace", area.namespace, "drill.internal/opt-in=true", "--overwrite")
    with area.adapter("drill-runner") as runner:
        pause, deadline = Event(), time.monotonic() + 20
        while area.kubectl("drill-runner", "create", "--dry-run=server", "-f", "-", body=record).returncode != 0:
            assert time.monotonic() < deadline, "the label's return is not seen"
            pause.wait(0.2)
        undo_records.store(runner, area.namespace, *stored)
        undo_records.discard_run(runner, area.namespace, "another", "load")


@pytest.mark.parametrize("labels", [UNDO, RECOVERED, {"drill_internal__undo": ""}])
@pytest.mark.parametrize("who", ["somebody", "drill-autopilot"])
def test_nobody_else_writes_one_although_a_role_lets_it_write_config_maps(
    area: Try, who: str, labels: dict[str, str]
) -> None:
    forged = config_map("forged", **labels)
    # The guard holds the autopilot as well, and which of two refusals is told is the API server's choice.
    writes, removes = ("may not write undo records", "may not remove undo records") if who == "somebody" else (("ValidatingAdmissionPolicy",) * 2)  # fmt: skip # noqa: E501
    area.refused(writes, who, "create", "-f", "-", body=forged)
    area.refused(removes, who, "delete", "configmap", "record")
    area.refused(removes, who, "delete", "configmaps", "--selector=drill.internal/undo")


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
def test_the_harness_neither_makes_nor_removes_config_maps_of_others(area: Try, who: str) -> None:
    label = "only ConfigMaps that carry a label of its own"
    area.refused(label, who, "delete", "configmap", "theirs")
    area.refused(label, who, "create", "-f", "-", body=config_map("new", app="x"))
    taken = area.patch("theirs", op("/metadata/labels", {"drill.internal/other": "true"}), kind="configmap")
    area.refused("takes no ConfigMap of others", who, *taken)


FENCE = f"/metadata/labels/{fence.LABEL.replace('/', '~1')}"
SETTINGS = "settings"


@pytest.mark.parametrize("who", ["drill-runner", "drill-sweeper"])
def test_texts_of_config_maps_may_change_and_go_back(area: Try, who: str) -> None:
    with area.adapter(who) as cluster:
        ref = Ref("ConfigMap", area.namespace, SETTINGS)
        for one in (
            op("/data/a", "2"),
            op("/data/b", "new"),
            {"op": "remove", "path": "/data/a"},
            {"op": "remove", "path": "/data/b"},
            op("/data", {"a": "1"}),
            op(FENCE, "1"),
            op(FENCE, "2"),
            {"op": "remove", "path": FENCE},
        ):
            cluster.patch(ref, [one])
    with area.adapter("somebody") as cluster:
        body = cluster.get(ref)
    assert (body["data"], body["metadata"]["labels"]) == ({"a": "1"}, {"app": "x"})


@pytest.mark.parametrize("who", ["drill-runner", "drill-sweeper", "drill-autopilot"])
@pytest.mark.parametrize(
    "one",
    [
        op("/binaryData", {"c": "AAAA"}),
        op("/immutable", value=True),
        op("/metadata/labels/app", "y"),
        op("/metadata/labels/more", "1"),
        {"op": "remove", "path": "/metadata/labels/app"},
        op("/metadata/annotations", {"a": "1"}),
        op("/metadata/finalizers", ["example.org/stuck"]),
        op(
            "/metadata/ownerReferences",
            [{"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "00000000-0000-0000-0000-000000000000"}],
        ),
    ],
)
def test_nothing_else_of_a_config_map_may_change(area: Try, who: str, one: dict[str, Any]) -> None:
    with area.adapter(who) as cluster:
        for more in ([], [op("/data/a", "3")]):
            with pytest.raises(Forbidden, match="leaves everything else of it"):
                cluster.patch(Ref("ConfigMap", area.namespace, SETTINGS), [one, *more])


def test_who_is_none_of_those_that_drill_changes_no_config_map_of_others(area: Try) -> None:
    by_whom = "are changed by the sweeper, and by runner and autopilot"
    area.refused(by_whom, "drill-reader", *area.patch(SETTINGS, op("/data/a", "3"), kind="configmap"))
    area.refused(by_whom, "drill-reader", *area.patch(SETTINGS, op(FENCE, "3"), kind="configmap"))


@pytest.mark.parametrize("who", ["drill-runner", "drill-sweeper"])
def test_the_fence_makes_no_config_map_the_harness_own(area: Try, who: str) -> None:
    label = "only ConfigMaps that carry a label of its own"
    with area.adapter(who) as cluster:
        ref = Ref("ConfigMap", area.namespace, SETTINGS)
        cluster.patch(ref, [op(FENCE, "1")])
        try:
            with pytest.raises(Forbidden, match=label):
                cluster.delete(ref)
            with pytest.raises(Forbidden, match=r"takes no ConfigMap of others|no other ConfigMap can become one"):
                cluster.patch(ref, [op("/metadata/labels/drill.internal~1inbox", "true")])
            with pytest.raises(Forbidden, match="takes no ConfigMap of others"):
                cluster.patch(ref, [op("/metadata/labels/drill.internal~1other", "true")])
            with pytest.raises(Forbidden, match="leaves everything else of it"):
                cluster.patch(ref, [op("/binaryData", {"c": "AAAA"})])
        finally:
            cluster.patch(ref, [{"op": "remove", "path": FENCE}])
        made = config_map("new", drill_internal__fence="1")
        made["metadata"]["namespace"] = area.namespace
        with pytest.raises(Forbidden, match=label):
            cluster.create(made)


def test_the_autopilot_sends_messages_and_takes_no_text_away(area: Try) -> None:
    words = "sends messages, changes and adds texts"
    with area.adapter("drill-autopilot") as cluster:
        ref = Ref("ConfigMap", area.namespace, SETTINGS)
        for one in ({"op": "remove", "path": "/data/a"}, op("/data", {"b": "1"}), {"op": "remove", "path": "/data"}):
            with pytest.raises(Forbidden, match=words):
                cluster.patch(ref, [one])
        with pytest.raises(Forbidden, match="leaves everything else of it"):
            cluster.patch(ref, [op(FENCE, "1")])
        said = message(area.namespace, actor=cluster.whoami().username, action="note")
        for label in ("drill.internal/run", "drill.internal/other"):
            more = copy.deepcopy(said)
            more["metadata"]["labels"][label] = "true"
            with pytest.raises(Forbidden, match=words):
                cluster.create(more)
        sent = cluster.create(said)
        with pytest.raises(Forbidden, match=words):
            cluster.delete(Ref("ConfigMap", area.namespace, sent["metadata"]["name"]))
    area.passes("drill-runner", "delete", "configmap", sent["metadata"]["name"])


@pytest.mark.parametrize("who", ["drill-runner", "drill-sweeper"])
def test_what_the_cluster_publishes_is_no_setting(area: Try, who: str) -> None:
    with area.adapter(who) as cluster, pytest.raises(Forbidden, match="leaves everything else of it"):
        cluster.patch(Ref("ConfigMap", area.namespace, "kube-root-ca.crt"), [op("/data/ca.crt", "mine")])


@pytest.mark.parametrize("who", ["drill-runner", "drill-sweeper"])
def test_what_is_the_harness_own_is_given_to_nobody(area: Try, who: str) -> None:
    name = f"drill-own-{who}"
    area.passes(who, "create", "-f", "-", body=config_map(name, drill_internal__other="true"))
    given = area.patch(name, op("/metadata/labels", {fence.LABEL: "1"}), kind="configmap")
    area.refused("and gives none away", who, *given)
    area.passes(who, "delete", "configmap", name)


def test_a_namespace_goes_with_the_records_in_it(area: Try) -> None:
    name = f"{area.namespace}-gone"
    area.passes("admin", "create", "namespace", name)
    area.passes("admin", "create", "--namespace", name, "-f", "-", body=config_map("record", **UNDO))
    area.passes("admin", "delete", "namespace", name, "--timeout=60s")
