"""Drills in two clusters and two namespaces at the same time, as Jobs, by an account that may do no more than that."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.clusters.local import LocalCluster
from harness.core.event import EffectProved, RunStarted, UndoDone, decode
from harness.core.history import History
from harness.ports.progress import Silent
from tests.accounts import kubeconfig_of
from tests.e2e.conftest import EXAMPLES, NAMESPACE, ROOT, SHOP, Product

pytestmark = pytest.mark.cluster

HOME = "drill-system"


@pytest.fixture(autouse=True)
def nothing_goes_on(product: Product) -> Iterator[None]:
    """Whatever a failed test has started ends before its namespaces go."""
    yield
    product.kubectl("-n", HOME, "delete", "jobs", "-l", "app=drill-fleet", "--cascade=foreground", "--timeout=50s")


@pytest.fixture
def other(product: Product) -> Iterator[str]:
    """A second cluster with the staging system on it, beside the one that stands."""
    name = f"fleet-{secrets.token_hex(3)}"
    try:
        up = subprocess.run(
            [sys.executable, "-m", "harness.cli", "cluster", "up", "--name", name],
            capture_output=True, text=True, timeout=400, check=False, cwd=ROOT, env=product.environment(),
        )  # fmt: skip
        assert up.returncode == 0, up.stdout + up.stderr
        yield name
    finally:
        LocalCluster(name).down(Silent())


def written(product: Product, *targets: dict[str, Any]) -> Path:
    path = product.runs.parent / "fleet.yaml"
    path.write_text(yaml.safe_dump({"targets": list(targets)}))
    return path


def joined(product: Product, folder: Path) -> None:
    """Let the harness' accounts into the shop, by the lines that the documentation gives."""
    for name in ("drilled", "alerting"):
        room = folder / name
        room.mkdir()
        base = os.path.relpath(ROOT / "manifests" / "harness" / name, room.resolve())
        body = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "namespace": SHOP,
            "resources": [base],
        }  # fmt: skip
        (room / "kustomization.yaml").write_text(yaml.safe_dump(body))
        product.kubectl("apply", "-k", str(room.resolve()))


def run_of(product: Product, target: str) -> str:
    """The run that a target has begun, by what its pod has said so far; "" before."""
    for path in product.runs.glob(f"fleet-*/{target}.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if '"run.started"' in line and isinstance(event := decode(line).event, RunStarted):
                return event.run_id
    return ""


def seen(product: Product, target: str, kind: str, more: str = "") -> bool:
    """Whether a target's pod has told of such an event."""
    lines = [
        line for path in product.runs.glob(f"fleet-*/{target}.jsonl") for line in path.read_text().splitlines()
    ]  # fmt: skip
    return any(f'"type":"{kind}"' in line and more in line for line in lines)


def history(product: Product, run: str) -> History:
    (path,) = product.runs.glob(f"fleet-*/*/{run}/journal.jsonl")
    return History(decode(line) for line in path.read_text(encoding="utf-8").splitlines())


def jobs(product: Product) -> str:
    """The Jobs that are there; their pods go with them, a moment later."""
    product.kubectl("-n", HOME, "wait", "--for=delete", "pods", "-l", "app=drill-fleet", "--timeout=30s")
    return product.kubectl("-n", HOME, "get", "jobs", "-l", "app=drill-fleet", "-o", "name").strip()


def test_drills_in_two_clusters_and_two_namespaces_go_on_without_whoever_started_them(
    shop: Product, other: str, tmp_path: Path
) -> None:
    before = shop.deployment()
    joined(shop, tmp_path)
    account = {
        "context": "drill-fleet", "kubeconfig": str(kubeconfig_of(shop.access, "drill-fleet", tmp_path)),
    }  # fmt: skip
    file = written(
        shop,
        {"name": "staging", "experiment": "oom-workers", **account},
        {
            "name": "shop", "experiment": str(EXAMPLES / "few-tills.yaml"), **account, "pager": "none",
            "prometheus": f"service:{SHOP}/prometheus:9090", "alertmanager": f"service:{SHOP}/alertmanager:9093",
        },
        {"name": "other", "experiment": "scaled-down-workers", "local": other},
    )  # fmt: skip
    started = shop.start("fleet", str(file))
    targets = ("staging", "shop", "other")
    shop.until(lambda: all(seen(shop, target, "effect.proved") for target in targets), started, seconds=120)
    started.send_signal(signal.SIGKILL)  # the laptop's lid is closed
    started.wait()
    (folder,) = shop.runs.glob("fleet-*")

    again = shop.start("fleet", "--resume", folder.name)
    shop.until(lambda: seen(shop, "shop", "alert.transition", '"to":"firing"'), again)
    access = shop.access
    where = ("--cluster", "context", "--context", access.context, "--kubeconfig", str(access.kubeconfig))
    acknowledged = shop.drill("ack", "--namespace", SHOP, *where)
    assert acknowledged.returncode == 0, acknowledged.stderr
    shop.kubectl("-n", SHOP, "scale", "deployment/till", "--replicas=3")
    assert again.wait(timeout=200) == 0, shop.output(again)
    told = shop.output(again)
    assert "fleet: MET, exit code 0" in told

    runs = {target: history(shop, run_of(shop, target)) for target in targets}
    broken = [run.records(EffectProved)[0][0].at for run in runs.values()]
    back = [run.records(UndoDone)[0][0].at for run in runs.values()]
    assert max(broken) < min(back), "all three were broken at the same time"
    assert all(run.is_clean for run in runs.values())
    assert {run.start.identity for run in runs.values()} == {f"system:serviceaccount:{HOME}:drill-runner"}
    assert {run.start.experiment["namespace"] for run in runs.values()} == {NAMESPACE, SHOP}
    assert jobs(shop) == "", "what was collected is taken away"
    assert shop.deployment() == before
    junit = (folder / "junit.xml").read_text(encoding="utf-8")
    assert all(f'name="drill {name} (smoke)"' in junit for name in ("oom-workers", "few-tills", "scaled-down-workers"))


def test_a_fleet_that_is_called_off_has_every_drill_undo_what_it_did(product: Product) -> None:
    before = product.deployment()
    local = {"local": product.access.name}
    started = product.start("fleet", str(written(product, {"name": "one", "experiment": "oom-workers", **local})))
    product.until(lambda: seen(product, "one", "effect.proved"), started, seconds=120)
    assert product.limit() == "64Mi"
    started.send_signal(signal.SIGTERM)  # a shell lets what it runs in the background ignore SIGINT
    assert started.wait(timeout=120) == 2, product.output(started)
    assert "one: oom-workers" in product.output(started)
    assert product.deployment() == before
    run = history(product, run_of(product, "one"))
    assert run.ended is not None
    assert run.ended.reason == "stopped"
    assert run.is_clean is True
    assert jobs(product) == ""
    (folder,) = product.runs.glob("fleet-*")
    assert (
        json.loads((folder / "one" / run.start.run_id / "report.json").read_bytes())["headline"]["verdict"]
        == "UNDECIDED"
    )
