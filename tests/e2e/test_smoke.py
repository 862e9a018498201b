"""`drill smoke` for real: a cluster of its own beside the one that stands, a drill, its files, and nothing is left."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from harness.clusters.local import LocalCluster, cgroups, sweep
from harness.clusters.local.layout import Layout
from harness.clusters.provider import Access
from harness.ports.progress import Silent
from tests.e2e.conftest import ROOT, Product

pytestmark = pytest.mark.cluster


@pytest.fixture
def name() -> Iterator[str]:
    """A name that no cluster has; whatever a failed test leaves of it goes."""
    name = f"ci-smoke-{secrets.token_hex(3)}"
    yield name
    LocalCluster(name).down(Silent())


def test_a_cluster_comes_is_drilled_and_leaves_nothing(local_access: Access, tmp_path: Path, name: str) -> None:
    standing = LocalCluster(local_access.name).status()
    assert standing.state == "up"
    results, step = tmp_path / "results", tmp_path / "step.md"
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", "smoke", "noop", "--name", name, "--results", str(results),
         "--output", "json"],
        capture_output=True, text=True, timeout=600, check=False, cwd=ROOT,
        env=Product(local_access, tmp_path).environment(GITHUB_STEP_SUMMARY=str(step)),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["outcome"], told["exit_code"], told["cluster"]) == ("MET", 0, name)
    assert [(row["experiment"], row["verdict"], row["clean"]) for row in told["series"]] == [("noop", "MET", True)]
    assert list(told["phases"]) == ["cluster up", "staging system", "drill noop", "cluster down"]
    assert told["phases"]["drill noop"] > 30.0, "it was silent for as long as the experiment says"
    assert sum(told["phases"].values()) <= told["seconds"]
    suites = ET.parse(results / "junit.xml").getroot()  # noqa: S314 - our own file
    assert suites.get("failures") == suites.get("errors") == "0"
    assert [suite.get("name") for suite in suites] == ["drill noop (smoke)"]
    summary = (results / "summary.md").read_text(encoding="utf-8")
    assert summary.startswith("# Drill smoke: MET\n")
    assert "| cluster down |" in summary
    assert step.read_text(encoding="utf-8") == summary
    (run,) = (path for path in results.iterdir() if path.is_dir() and not path.is_symlink())
    assert (run / "journal.jsonl").is_file()
    left = Layout(name)
    assert not left.root.exists()
    assert not left.lock.exists()
    assert not left.netns_path.exists()
    assert sweep.own_processes(left) == []
    assert list(cgroups.remains(left.cgroup)) == []
    assert not Path("/sys/class/net", left.host_link).exists()
    assert LocalCluster(local_access.name).status() == standing


def test_the_name_of_a_cluster_that_stands_is_refused(local_access: Access, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", "smoke", "noop", "--name", local_access.name, "--output", "json"],
        capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
        env=Product(local_access, tmp_path).environment(),
    )  # fmt: skip
    assert done.returncode == 3
    assert json.loads(done.stderr)["error"] == "cluster-left-behind"
    assert LocalCluster(local_access.name).status().state == "up"
