"""`drill doctor` on a real cluster: what it says is so, and it writes nothing: whoever may only look can use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.clusters.provider import Access
from tests.accounts import SYSTEM, kubeconfig_of
from tests.docs.pages import ROOT

pytestmark = pytest.mark.cluster

NAMESPACE = "nova-staging"
ALERT = "experiment oom-workers, alert HighQueueDepth"


@dataclass(frozen=True)
class Place:
    """A cluster with the staging system, and a folder to work in."""

    access: Access
    folder: Path

    def doctor(
        self, *arguments: str, kubeconfig: Path | None = None, context: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """`drill doctor` as somebody who has only a context, and no variables."""
        mine = ("DRILL_", "KUBECONFIG", "CONTEXT", "PROFILE", "RESPONDER")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
        where = (
            "--cluster", "context", "--context", context or self.access.context,
            "--kubeconfig", str(kubeconfig or self.access.kubeconfig),
        )  # fmt: skip
        return subprocess.run(
            [sys.executable, "-m", "harness.cli", "doctor", *arguments, *where], capture_output=True, text=True,
            timeout=90, check=False, cwd=self.folder, env={**kept, "NO_COLOR": "1", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    def objects(self) -> list[str]:
        """Whatever is in the namespaces that a drill touches, but for what the sweeper and pods do by themselves."""
        kinds = "configmaps,leases,secrets,deployments,jobs,serviceaccounts,roles,rolebindings"
        found = []
        for namespace in (NAMESPACE, SYSTEM, "monitoring"):
            words = ("-n", namespace, "get", kinds, "-o", "json")
            for item in json.loads(kubectl(self.access, *words))["items"]:
                meta = item["metadata"]
                version = meta["generation"] if "generation" in meta else meta["resourceVersion"]
                stays = f"{item['kind']}/{meta['name']}" != "Lease/drill-sweeper"
                found.append(f"{item['kind']}/{meta['name']} {meta['uid']} {version if stays else ''}")
        return sorted(found)


def kubectl(access: Access, *words: str) -> str:
    argv = [str(access.kubectl or "kubectl"), f"--kubeconfig={access.kubeconfig}", f"--context={access.context}"]
    done = subprocess.run([*argv, *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """$DRILL_TEST_KUBECONFIG (with $DRILL_TEST_CONTEXT) where it is set, and otherwise the local cluster."""
    given = os.environ.get("DRILL_TEST_KUBECONFIG")
    if given:
        context = os.environ["DRILL_TEST_CONTEXT"]
        return Place(Access("context", context, Path(given), context, None), tmp_path)
    access: Access = request.getfixturevalue("local_access")
    return Place(access, tmp_path)


def rows(done: subprocess.CompletedProcess[str]) -> dict[tuple[str, str], dict[str, Any]]:
    told = [json.loads(line) for line in done.stdout.splitlines()]
    (found,) = [one["doctor"] for one in told if "doctor" in one]
    return {(row["group"], row["check"]): row for row in found}


def test_the_staging_system_lacks_nothing_and_is_left_as_it_is(place: Place) -> None:
    before = place.objects()
    done = place.doctor("oom-workers")
    assert done.returncode == 0, done.stdout + done.stderr
    assert place.objects() == before
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "nothing is missing" in done.stdout.splitlines()[-1]
    assert "\x1b" not in done.stdout


def test_what_it_says_is_what_kubectl_says(place: Place) -> None:
    done = place.doctor("oom-workers", "--output", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = rows(done)
    version = json.loads(kubectl(place.access, "version", "-o", "json"))["serverVersion"]["gitVersion"]
    assert found["cluster", "API server"]["fact"] == f"Kubernetes {version}"
    proxy = "/api/v1/namespaces/monitoring/services/prometheus:9090/proxy/api/v1"
    groups = json.loads(kubectl(place.access, "get", "--raw", f"{proxy}/rules?type=alert"))["data"]["groups"]
    (rule,) = [rule for group in groups for rule in group["rules"] if rule["name"] == "HighQueueDepth"]
    evaluation = next(group["interval"] for group in groups if rule in group["rules"])
    assert found[ALERT, "rule"]["values"]["for_s"] == rule["duration"]
    assert found[ALERT, "rule"]["values"]["evaluation_s"] == evaluation
    assert found[ALERT, "runbook"]["fact"] == rule["annotations"]["runbook_url"]
    assert found[ALERT, "route"]["fact"].startswith("receiver pager through webhook; group_wait ")
    floor = found[ALERT, "floor"]["values"]
    longest = max(found["alerting", "scrape intervals"]["values"]["scrape_intervals_s"].values())
    assert floor["firing_latest_s"] == rule["duration"] + evaluation + longest
    for peer in ("API server", "Prometheus", "Alertmanager", "pager"):
        values = found["clocks", peer]["values"]
        assert values["offset_earliest_s"] <= 0.05 <= values["offset_latest_s"] + 0.1, "they run on this machine"
    assert "plain files" in found["alerting", "rule objects"]["fact"]


def test_whoever_may_only_look_is_told_what_is_missing_and_sees_the_rest(place: Place, tmp_path: Path) -> None:
    reader = kubeconfig_of(place.access, "drill-reader", tmp_path)
    done = place.doctor("oom-workers", "--output", "json", kubeconfig=reader, context="drill-reader")
    assert done.returncode == 3, done.stdout + done.stderr
    found = rows(done)
    states = {where: row["state"] for where, row in found.items()}
    assert [where for where, state in states.items() if state == "MISSING"] == [
        (f"namespace {NAMESPACE}", "permissions")
    ]
    missing = found[f"namespace {NAMESPACE}", "permissions"]
    assert f"patch Deployment in {NAMESPACE}" in missing["fact"]
    assert missing["remedy"]
    for check in (("cluster", "mark"), ("cluster", "sweeper"), ("alerting", "Prometheus"), (ALERT, "floor")):
        assert states[check] == "OK"
    assert states["cluster", "guard policies"] == "UNKNOWN"


def test_the_runner_lacks_nothing_and_may_do_no_more_than_it_needs(place: Place, tmp_path: Path) -> None:
    runner = kubeconfig_of(place.access, "drill-runner", tmp_path)
    done = place.doctor("oom-workers", "--output", "json", kubeconfig=runner, context="drill-runner")
    assert done.returncode == 0, done.stdout + done.stderr
    permissions = rows(done)[f"namespace {NAMESPACE}", "permissions"]
    assert permissions["state"] == "OK"
    assert permissions["fact"].endswith("asked for and granted")


def test_drill_yaml_says_where_things_are_and_what_is_wrong_is_a_line_of_the_table(place: Place) -> None:
    (place.folder / "drill.yaml").write_text(
        "prometheus: {service: monitoring/nowhere:9090}\n"
        "alertmanager: service:monitoring/alertmanager:9093\n"
        "pager: none\n"
    )
    done = place.doctor("oom-workers", "--output", "json")
    assert done.returncode == 3, done.stdout + done.stderr
    found = rows(done)
    assert found["alerting", "Prometheus"]["state"] == "MISSING"
    assert "nowhere" in found["alerting", "Prometheus"]["fact"]
    assert found["alerting", "Alertmanager"]["state"] == "OK"
    assert found["alerting", "pager"]["state"] == "WARNING"
