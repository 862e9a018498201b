"""A game day as the cluster's own CronJob starts it: in a pod, read from outside, and killed in the middle."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
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


@pytest.fixture
def cronjob(product: Product, tmp_path: Path) -> Iterator[Product]:
    """The CronJob of manifests/gameday with a day of its own, never started by its schedule."""
    folder = tmp_path / "gameday"
    shutil.copytree(ROOT / "manifests" / "gameday", folder)
    (folder / "gameday.yaml").write_text(yaml.safe_dump(DAY))
    image = harness_image.build(ROOT, Silent())
    choose("local", name=product.access.name).load_image(image.archive, image.ref)
    rendered = tmp_path / "rendered.yaml"
    bodies: list[dict[str, Any]] = list(yaml.safe_load_all(Kubectl(product.access).render(folder, image.ref)))
    for body in bodies:
        if body["kind"] == "CronJob":
            body["spec"]["suspend"] = True
    rendered.write_text(yaml.safe_dump_all(bodies))
    product.kubectl("apply", "-f", str(rendered))
    try:
        yield product
    finally:
        product.kubectl("delete", "-f", str(rendered), "--wait=false")
        product.kubectl("-n", HOME, "delete", "jobs,pods", "-l", "app=drill-gameday", "--ignore-not-found")


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


def test_a_drill_of_the_clusters_own_is_judged_the_same_from_anywhere(cronjob: Product) -> None:
    before = cronjob.deployment()
    start(cronjob, "drill-gameday-by-hand")
    until(lambda: jobs(cronjob, "drill-gameday-by-hand").keys() & {"succeeded", "failed"}, 300, "the job did not end")
    text = told(cronjob, "drill-gameday-by-hand")
    assert jobs(cronjob, "drill-gameday-by-hand").get("succeeded") == 1, text
    assert "announced: it begins at" in text
    (run,) = kept(cronjob)
    assert (run["verdict"], run["clean"], run["places"]) == ("MET", True, [f"namespace {NAMESPACE}"])
    report = cronjob.drill("report", run["run_id"])
    assert report.returncode == 0, report.stderr
    assert f"MET  oom-workers (smoke), run {run['run_id']}" in report.stdout
    fetched = json.loads((cronjob.runs / run["run_id"] / "report.json").read_text(encoding="utf-8"))
    assert fetched["header"]["identity"] == "system:serviceaccount:drill-system:drill-runner"
    assert all(row["verdict"] == "MET" for row in fetched["slas"] if row["required"])
    assert cronjob.deployment() == before
    assert [line for line in cronjob.leftovers().splitlines() if "drill-journal-" not in line] == []


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
