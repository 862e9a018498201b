"""What the fleet's account may start, by the API server's own word: the harness' own Job, and nothing beside it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.adapters.kubernetes import KubeCluster
from harness.clusters.provider import Access
from harness.engine.jobs import Order, image_of, job_of
from harness.ports.cluster import Forbidden, Json
from tests.accounts import kubeconfig_of

pytestmark = pytest.mark.cluster

CRONJOB = Path(__file__).resolve().parents[2] / "manifests" / "gameday" / "cronjob.yaml"
FLEET = "drill-fleet"


@pytest.fixture(scope="module")
def fleet(local_access: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeCluster]:
    folder = tmp_path_factory.mktemp("fleet")
    cluster = KubeCluster.from_kubeconfig(kubeconfig_of(local_access, FLEET, folder), FLEET, now=time.time)
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def body(fleet: KubeCluster) -> Json:
    order = Order("fleet-20261126-100312-93fd", "one", "noop", "name: noop\n", ("--profile=smoke",), 60)
    return job_of(order, yaml.safe_load(CRONJOB.read_text(encoding="utf-8")), image_of(fleet))


def pod(body: Json) -> Any:
    return body["spec"]["template"]["spec"]


def container(body: Json) -> Any:
    return pod(body)["containers"][0]


def secret(body: Json) -> None:
    pod(body)["volumes"].append({"name": "key", "secret": {"secretName": "llm-key"}})
    container(body)["volumeMounts"].append({"name": "key", "mountPath": "/key"})


def another(body: Json) -> None:
    pod(body)["containers"].append({**copy.deepcopy(container(body)), "name": "two"})


def started_before(body: Json) -> None:
    pod(body)["initContainers"] = [{**copy.deepcopy(container(body)), "name": "first"}]


CHANGES: dict[str, Callable[[Json], object]] = {
    "another image": lambda body: container(body).update(image="registry.example.org/mine:1"),
    "another program": lambda body: container(body).update(command=["/usr/bin/python3"]),
    "another command of ours": lambda body: container(body).update(args=["sweep", "--once"]),
    "an experiment from elsewhere": lambda body: container(body).update(args=["run", "/var/run/drill/mine.yaml"]),
    "a variable": lambda body: container(body).update(env=[{"name": "PYTHONPATH", "value": "/mine"}]),
    "the sweeper's identity": lambda body: pod(body).update(serviceAccountName="drill-sweeper"),
    "the node's network": lambda body: pod(body).update(hostNetwork=True),
    "a place of its choice": lambda body: pod(body).update(nodeName="somewhere"),
    "no time to undo": lambda body: pod(body).update(terminationGracePeriodSeconds=5),
    "no end": lambda body: body["spec"].pop("activeDeadlineSeconds"),
    "again and again": lambda body: body["spec"].update(backoffLimit=3),
    "many at once": lambda body: body["spec"].update(parallelism=5, completions=5),
    "another name": lambda body: body["metadata"].update(name="drill-gameday-1"),
    "no mark": lambda body: body["metadata"]["labels"].pop("drill.internal/fleet"),
    "the sweeper's label": lambda body: body["spec"]["template"]["metadata"]["labels"].update(app="drill-sweeper"),
    "an annotation that others read": lambda body: body["spec"]["template"]["metadata"]["annotations"].update(
        {"sidecar.istio.io/inject": "true"}
    ),
    "a secret": secret,
    "another container": another,
    "a container before": started_before,
}


def test_the_harness_own_job_passes(fleet: KubeCluster, body: Json) -> None:
    fleet.create(body, dry_run=True)


@pytest.mark.parametrize("what", CHANGES)
def test_nothing_else_does(fleet: KubeCluster, body: Json, what: str) -> None:
    changed = copy.deepcopy(body)
    CHANGES[what](changed)
    with pytest.raises(Forbidden, match="drill-guard-fleet"):
        fleet.create(changed, dry_run=True)


@pytest.mark.parametrize("namespace", ["default", "nova-staging"])
def test_nowhere_else(fleet: KubeCluster, body: Json, namespace: str) -> None:
    with pytest.raises(Forbidden):
        fleet.create({**body, "metadata": {**body["metadata"], "namespace": namespace}}, dry_run=True)
