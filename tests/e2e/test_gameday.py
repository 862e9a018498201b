"""A game day as the cluster's own CronJob starts it: in a pod, read from outside, and killed in the middle."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml

from harness.clusters import harness_image
from harness.clusters.kubectl import Kubectl
from harness.clusters.select import choose
from harness.core.event import EffectProved, RunStarted
from harness.ports.progress import Silent
from tests.e2e.conftest import NAMESPACE, ROOT, Product

pytestmark = pytest.mark.cluster

HOME = "drill-system"
DAY = {
    "experiments": ["oom-workers"], "profile": "smoke", "responder": "autopilot", "announcement": {"before": "2s"},
}  # fmt: skip


@contextmanager
def installed(product: Product, tmp_path: Path, **more: Any) -> Iterator[Product]:
    """The CronJob of manifests/gameday with a day of its own, never started by its schedule; `more` of a
    kustomization."""
    folder = tmp_path / "gameday"
    shutil.copytree(ROOT / "manifests" / "gameday", folder)
    (folder / "gameday.yaml").write_text(yaml.safe_dump(DAY))
    mine = tmp_path / "mine"
    mine.mkdir()
    head = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": ["../gameday"]}
    (mine / "kustomization.yaml").write_text(yaml.safe_dump(head | more))
    image = harness_image.build(ROOT, Silent())
    choose("local", name=product.access.name).load_image(image.archive, image.ref)
    rendered = tmp_path / "rendered.yaml"
    bodies: list[dict[str, Any]] = list(yaml.safe_load_all(Kubectl(product.access).render(mine, image.ref)))
    for body in bodies:
        if body["kind"] == "CronJob":
            body["spec"]["suspend"] = True
    rendered.write_text(yaml.safe_dump_all(bodies))
    product.kubectl("apply", "-f", str(rendered))
    try:
        yield product
    finally:
        product.kubectl("delete", "-f", str(rendered), "--wait=false")
        apps = "app in (drill-gameday,drill-results)"
        product.kubectl("-n", HOME, "delete", "jobs,pods", "-l", apps, "--ignore-not-found")


@pytest.fixture
def cronjob(product: Product, tmp_path: Path) -> Iterator[Product]:
    with installed(product, tmp_path):
        yield product


@pytest.fixture
def volume(product: Product, tmp_path: Path) -> Iterator[Product]:
    """The CronJob with the component for a volume, which is a folder of the only node: this machine. It belongs to root
    until the kubelet gives it to the pod's group."""
    place = tmp_path / "volume"
    place.mkdir()
    place.chmod(0o700)
    (node,) = json.loads(product.kubectl("get", "nodes", "-o", "json"))["items"]
    host = "kubernetes.io/hostname"
    here = {"matchExpressions": [{"key": host, "operator": "In", "values": [node["metadata"]["labels"][host]]}]}
    body = {
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "drill-runs-of-a-test"},
        "spec": {
            "capacity": {"storage": "5Gi"}, "accessModes": ["ReadWriteOnce"], "local": {"path": str(place)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [here]}},
            "claimRef": {"namespace": HOME, "name": "drill-runs"}, "persistentVolumeReclaimPolicy": "Retain",
        },
    }  # fmt: skip
    file = tmp_path / "persistent-volume.yaml"
    file.write_text(yaml.safe_dump(body))
    product.kubectl("apply", "-f", str(file))
    try:
        with installed(product, tmp_path, components=["../gameday/volume"]):
            yield product
    finally:
        product.kubectl("delete", "-f", str(file), "--wait=false")
        product.kubectl("wait", "--for=delete", "persistentvolume/drill-runs-of-a-test", "--timeout=30s")


def start(product: Product, name: str) -> None:
    product.kubectl("-n", HOME, "create", "job", name, "--from=cronjob/drill-gameday")


def jobs(product: Product, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(product.kubectl("-n", HOME, "get", "job", name, "-o", "json"))
    return found.get("status") or {}


def pod(product: Product, name: str) -> str:
    found = product.kubectl("-n", HOME, "get", "pods", "-l", f"job-name={name}", "-o", "name").split()
    return found[0] if found else ""


def told(product: Product, name: str) -> str:
    return product.kubectl("-n", HOME, "logs", f"job/{name}", "--tail=500")


def kept(product: Product) -> list[dict[str, Any]]:
    """The runs that the cluster keeps."""
    done = product.drill("runs", "--output", "json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])["runs"]
    return [run for run in found if any("namespace" in place for place in run["places"])]


def until(what: Any, seconds: float, why: str) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"{why} within {seconds} s"
        time.sleep(0.3)


def assert_shown(product: Product, run_id: str, fetched: dict[str, Any]) -> None:
    """The volume holds the same run, and its reader shows it to whoever may forward a port."""
    product.kubectl("-n", HOME, "create", "job", "drill-results", "--from=cronjob/drill-results")
    product.kubectl("-n", HOME, "wait", "--for=condition=Ready", "pod", "-l", "app=drill-results", "--timeout=55s")
    words = ("-n", HOME, "port-forward", "job/drill-results", ":8000", "--address=127.0.0.1")
    command = [str(product.access.kubectl), "--kubeconfig", str(product.access.kubeconfig), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forwarding:
        try:
            assert forwarding.stdout is not None
            (port,) = re.findall(r"127\.0\.0\.1:(\d+) ->", forwarding.stdout.readline())
            there = f"http://127.0.0.1:{port}/{run_id}"
            page, shown = (urllib3.request("GET", f"{there}/report.{kind}", timeout=10) for kind in ("html", "json"))
        finally:
            forwarding.terminate()
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html")
    assert (shown.json()["slas"], shown.json()["headline"]) == (fetched["slas"], fetched["headline"])


def test_a_drill_of_the_clusters_own_is_judged_the_same_from_anywhere(volume: Product) -> None:
    before = volume.deployment()
    start(volume, "drill-gameday-by-hand")
    until(lambda: jobs(volume, "drill-gameday-by-hand").keys() & {"succeeded", "failed"}, 300, "the job did not end")
    text = told(volume, "drill-gameday-by-hand")
    assert jobs(volume, "drill-gameday-by-hand").get("succeeded") == 1, text
    assert "announced: it begins at" in text
    (run,) = kept(volume)
    assert (run["verdict"], run["clean"], run["places"]) == ("MET", True, [f"namespace {NAMESPACE}"])
    report = volume.drill("report", run["run_id"])
    assert report.returncode == 0, report.stderr
    assert f"MET  oom-workers (smoke), run {run['run_id']}" in report.stdout
    fetched = json.loads((volume.runs / run["run_id"] / "report.json").read_text(encoding="utf-8"))
    assert fetched["header"]["identity"] == "system:serviceaccount:drill-system:drill-runner"
    assert all(row["verdict"] == "MET" for row in fetched["slas"] if row["required"])
    assert volume.deployment() == before
    assert [line for line in volume.leftovers().splitlines() if "drill-journal-" not in line] == []
    assert_shown(volume, run["run_id"], fetched)


def test_a_pod_that_is_killed_in_the_middle_is_undone_by_the_sweeper_and_its_run_can_be_read(cronjob: Product) -> None:
    before = cronjob.deployment()
    start(cronjob, "drill-gameday-killed")
    until(lambda: cronjob.limit() == "64Mi", 120, "nothing was broken")
    until(lambda: kept(cronjob), 30, "no journal was kept")
    name = pod(cronjob, "drill-gameday-killed")
    cronjob.kubectl("-n", HOME, "delete", name, "--grace-period=0", "--force")
    until(lambda: cronjob.limit() == "128Mi", 45, "the sweeper did not undo it")
    until(lambda: cronjob.deployment() == before, 30, "it is not as it was")
    until(
        lambda: "lease" not in cronjob.leftovers() and "drill-undo-" not in cronjob.leftovers(), 60, "records are left"
    )
    (run,) = kept(cronjob)
    assert run["verdict"] is None, "it never ended"
    report = cronjob.drill("report", run["run_id"])
    assert report.returncode == 0, report.stderr
    assert "UNDECIDED  oom-workers (smoke)" in report.stdout
    history = cronjob.history()
    assert isinstance(history[0].event, RunStarted)
    assert history.is_clean is True, "the sweeper's note was taken into the journal"
    assert history.all(EffectProved) or history.open_faults() == ()
    again = cronjob.drill("status")
    assert again.returncode == 0, again.stdout
