"""The fault `manifest` with another engine's kind on a real API server. Its definition is installed, and the test plays
its controller: it says when the chaos is injected, and holds the object by a finalizer.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import yaml

from harness.adapters.kubernetes import KubeCluster
from harness.clusters.provider import Access
from harness.ports.cluster import Invalid, Json, NotFound, Ref
from tests.accounts import kubeconfig_of
from tests.faults.targets import OPT_IN

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[2]
GROUP = "chaos.example.org"
KIND = f"PodChaos.v1alpha1.{GROUP}"
FINALIZER = f"{GROUP}/records"
FIELD = "status.conditions[type=AllInjected].status"
WITHIN = 90.0
DEFINITION: Json = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"podchaos.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"kind": "PodChaos", "plural": "podchaos", "singular": "podchaos"},
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                        },
                    }
                },
            }
        ],
    },
}


@dataclass
class Lab:
    """A namespace that opted in, with the definition installed."""

    access: Access
    cluster: KubeCluster
    namespace: str
    folder: Path

    @property
    def ref(self) -> Ref:
        return Ref(KIND, self.namespace, "kill")

    def experiment(self, **fault: Any) -> Path:
        anything = {"query": "vector(1)", "above": 0}
        manifest = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "PodChaos", "metadata": {"name": "kill"}}
        spec = {
            "id": "chaos", "kind": "manifest", "manifest": {**manifest, "spec": {"mode": "one"}},
            "effect": {"field": FIELD, "equals": "True", "within": "40s"}, "blast_radius": {"pods": 1}, **fault,
        }  # fmt: skip
        data = {
            "name": "chaos", "title": "Chaos of another engine", "namespace": self.namespace, "severity": "P4",
            "why": {"probability": "high", "tests": ["the harness"]}, "narrative": "Something is on.",
            "facilitator": {"root_cause": {"object": "deployment/any", "reason": "a test"}},
            "signal": {"query": "vector(1)", "title": "One", "unit": ""},
            "steady_state": [{"name": "Prometheus answers", "for": "1s", **anything}], "faults": [spec],
            "mitigated": {"for": "1s", **anything}, "recovered": {"for": "1s", **anything},
            "slas": [{"from": "injected", "to": "chaos.effective", "within": "60s", "required": True}],
            "runbook": "runbooks/high-queue-depth.md",
            "profiles": {"smoke": {"timeout": "60s", "responder": "human"}},
        }  # fmt: skip
        path = self.folder / "chaos.yaml"
        path.write_text(yaml.safe_dump(data), encoding="utf-8")
        return path

    def start(self, *words: str, kubeconfig: Path | None = None, context: str = "") -> subprocess.Popen[str]:
        where = ["--cluster", "context", "--context", context or self.access.context]
        where += ["--kubeconfig", str(kubeconfig or self.access.kubeconfig)]
        argv = [sys.executable, "-m", "harness.cli", *words, "--runs", str(self.folder / "runs"), *where]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)

    def run(self, **fault: Any) -> subprocess.Popen[str]:
        return self.start("run", str(self.experiment(**fault)), "--no-setup")

    def until(self, what: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
        pause, deadline = Event(), time.monotonic() + WITHIN
        while not what():
            assert process is None or process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            pause.wait(0.1)

    def there(self) -> Json | None:
        try:
            return self.cluster.get(self.ref)
        except NotFound:
            return None

    def hold(self) -> None:
        self.cluster.patch(self.ref, [{"op": "add", "path": "/metadata/finalizers", "value": [FINALIZER]}])

    def let_go(self) -> None:
        self.cluster.patch(self.ref, [{"op": "remove", "path": "/metadata/finalizers"}])

    def say(self, status: str, **more: Any) -> None:
        """As a controller says it: in the status, which is a door of its own."""
        said = {"status": {"conditions": [{"type": "AllInjected", "status": status}], **more}}
        argv = [str(self.access.kubectl), f"--kubeconfig={self.access.kubeconfig}", "-n", self.namespace, "patch"]
        argv += [
            "podchaos.chaos.example.org/kill",
            "--subresource=status",
            "--type=merge",
            f"--patch={json.dumps(said)}",
        ]
        subprocess.run(argv, check=True, capture_output=True, timeout=30)

    def leaving(self) -> bool:
        body = self.there()
        return body is not None and "deletionTimestamp" in body["metadata"]

    def events(self) -> list[Json]:
        journal = max((self.folder / "runs").glob("*/journal.jsonl"))
        return [json.loads(line)["event"] for line in journal.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def lab(local_access: Access, tmp_path: Path) -> Iterator[Lab]:
    cluster = KubeCluster.from_kubeconfig(local_access.kubeconfig, local_access.context, now=time.time)
    made = Lab(local_access, cluster, f"chaos-{uuid.uuid4().hex[:6]}", tmp_path)
    cluster.create(DEFINITION)
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": made.namespace, "labels": OPT_IN}})

    def is_served() -> bool:
        try:
            return cluster.list(KIND, made.namespace) == []
        except (Invalid, NotFound):
            return False

    made.until(is_served)
    yield made
    if made.there() is not None:
        made.cluster.patch(made.ref, [{"op": "add", "path": "/metadata/finalizers", "value": []}])
    cluster.delete(Ref("Namespace", "", made.namespace))
    definition = Ref("CustomResourceDefinition.v1.apiextensions.k8s.io", "", DEFINITION["metadata"]["name"])
    cluster.delete(definition)

    def is_gone() -> bool:
        try:
            cluster.get(definition)
        except NotFound:
            return True
        return False

    made.until(is_gone)
    cluster.close()


def test_it_counts_once_its_engine_says_so_and_is_clean_once_its_finalizer_lets_it_go(lab: Lab) -> None:
    run = lab.run()
    lab.until(lambda: lab.there() is not None, run)
    body = lab.there()
    assert body is not None
    assert body["metadata"]["ownerReferences"][0]["name"].startswith("drill-undo-")
    lab.hold()
    lab.say("False")
    assert run.poll() is None, "what is not said does not count"
    lab.say("True")
    lab.until(lab.leaving, run)
    lab.let_go()
    told, _ = run.communicate(timeout=WITHIN)
    assert run.returncode == 0, told
    assert lab.there() is None
    assert lab.cluster.list("ConfigMap", lab.namespace, "drill.internal/undo=true") == []
    events = lab.events()
    shown = [event["fields"][FIELD] for event in events if event["type"] == "object.seen" and event["uid"]]
    assert shown[:1] == [None]
    assert "True" in shown
    (proved,) = [event for event in events if event["type"] == "effect.proved"]
    assert f"{FIELD} is True" in proved["proof"]


def test_what_a_finalizer_holds_leaves_the_run_dirty_until_it_lets_go(lab: Lab) -> None:
    run = lab.run()
    lab.until(lambda: lab.there() is not None, run)
    lab.hold()
    lab.say("True")
    told, _ = run.communicate(timeout=2 * WITHIN)
    assert run.returncode == 4, told
    assert f"held by {FINALIZER}" in told
    assert lab.leaving(), "nobody tore the finalizer out"
    lab.let_go()
    recovered = lab.start("recover", "--namespace", lab.namespace)
    said, _ = recovered.communicate(timeout=WITHIN)
    assert recovered.returncode == 0, said
    assert lab.cluster.list("ConfigMap", lab.namespace, "drill.internal/undo=true") == []


def test_one_that_its_engine_ended_aborts_the_run(lab: Lab) -> None:
    run = lab.run(over_when={"field": "status.phase", "equals": "Finished"}, effect={
        "field": "status.never", "equals": True, "within": "40s",
    })  # fmt: skip
    lab.until(lambda: lab.there() is not None, run)
    lab.say("True", phase="Finished")
    told, _ = run.communicate(timeout=WITHIN)
    assert run.returncode not in {0, 4, 70}, told
    assert "ended by itself" in told
    assert lab.there() is None


def test_without_a_role_for_the_kind_the_runner_is_refused_beforehand(lab: Lab) -> None:
    as_runner = kubeconfig_of(lab.access, "drill-runner", lab.folder)
    run = lab.start("run", str(lab.experiment()), "--no-setup", kubeconfig=as_runner, context="drill-runner")
    told, _ = run.communicate(timeout=WITHIN)
    assert run.returncode == 3, told
    assert lab.there() is None
