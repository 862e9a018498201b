"""Faults of somebody else's package: offered as entry points, used like our own, refused where they are none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.cluster import FakeCluster
from tests.faults.outside.acme_faults import BLACKHOLE, NOBODY, BlackholeSpec

ROOT = Path(__file__).parents[2]
OUTSIDE = Path(__file__).parent / "outside"
EXPERIMENT = """\
name: no-way-in
title: Nobody behind the Service
why: {probability: low, tests: [service]}
namespace: shop
narrative: Nothing answers.
facilitator: {root_cause: {object: deployment/till, reason: its Service selects nobody}}
severity: P2
signal: {title: Errors, query: errors}
steady_state: [{name: well, query: errors, below: 1}]
faults:
  - {id: hole, kind: blackhole, service: till, effect: {query: errors, above: 1, within: 30s}, blast_radius: {pods: 1}}
alerts: [{name: TillDown, within: 1m, of: hole.effective}]
mitigated: {query: errors, below: 1}
recovered: {query: errors, below: 1}
slas: [{from: firing, to: recovered, within: 5m}]
runbook: docs/till.md
profiles: {smoke: {timeout: 3m, responder: human}}
"""


def installed(folder: Path, *points: str) -> Path:
    """A folder of packages in which a package of that name offers these entry points."""
    info = folder / "acme_faults-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-faults\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(["[drill.faults]", *points, ""]))
    return folder


def drill(packages: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(map(str, (packages, OUTSIDE, ROOT)))
    return subprocess.run(
        [sys.executable, "-m", "harness.cli", *arguments], capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths}, timeout=60,
    )  # fmt: skip


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    path = tmp_path / "no-way-in.yaml"
    path.write_text(EXPERIMENT)
    return path


def test_an_installed_fault_is_one_like_any_other(tmp_path: Path, experiment: Path) -> None:
    packages = installed(tmp_path / "packages", "blackhole = acme_faults:BLACKHOLE")
    done = drill(packages, "validate", str(experiment))
    assert done.returncode == 0, done.stderr
    schema = json.loads(drill(packages, "schema").stdout)
    assert "BlackholeSpec" in schema["definitions"]
    experiment.write_text(EXPERIMENT.replace("service: till", "servce: till"))
    wrong = drill(packages, "validate", str(experiment))
    assert wrong.returncode == 64
    assert "no-way-in.yaml:11:" in wrong.stderr
    assert "did you mean `service`?" in wrong.stderr


def test_without_the_package_its_kind_is_unknown(tmp_path: Path, experiment: Path) -> None:
    done = drill(tmp_path, "validate", str(experiment))
    assert done.returncode == 64
    assert "there is no fault of kind 'blackhole'" in done.stderr


@pytest.mark.parametrize(
    ("point", "words"),
    [
        ("a = acme_faults:NOWHERE", "cannot be loaded: AttributeError"),
        ("a = no_such_module:X", "cannot be loaded: ModuleNotFoundError"),
        ("a = acme_faults:NOBODY", "is a dict, not an Entry"),
        ("a = harness.catalog:ENTRIES", "is a tuple, not an Entry"),
    ],
)
def test_what_is_no_fault_is_an_error_that_says_whose_it_is(
    tmp_path: Path, experiment: Path, point: str, words: str
) -> None:
    done = drill(installed(tmp_path / "packages", point), "validate", str(experiment))
    assert done.returncode == 64
    assert f"entry point a of acme-faults (group drill.faults) {words}" in done.stderr
    assert "docs/adding-a-fault.md" in done.stderr


def test_a_kind_that_is_taken_is_refused(tmp_path: Path, experiment: Path) -> None:
    twice = installed(tmp_path / "packages", "a = acme_faults:BLACKHOLE", "b = acme_faults:BLACKHOLE")
    done = drill(twice, "validate", str(experiment))
    assert done.returncode == 64
    assert "entry point b of acme-faults (group drill.faults) offers the kind 'blackhole', which another" in done.stderr


def test_commands_that_need_no_fault_do_not_mind(tmp_path: Path) -> None:
    assert drill(installed(tmp_path / "packages", "a = no_such_module:X"), "--help").returncode == 0


def test_the_example_keeps_the_contract() -> None:
    cluster = FakeCluster(now=lambda: 1000.0)
    service: dict[str, Any] = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "till", "namespace": "shop"},
        "spec": {"selector": {"app": "till"}},
    }  # fmt: skip
    cluster.put(service)
    data = {"id": "h", "kind": "blackhole", "service": "till", "blast_radius": {"pods": 1},
            "effect": {"query": "q", "above": 1, "within": "5s"}}  # fmt: skip
    spec, fault = BlackholeSpec.model_validate(data), BLACKHOLE.fault
    plan = fault.plan(spec, "shop", cluster)
    undo = json.loads(json.dumps(plan.undo))
    for _ in range(2):
        fault.apply(undo, cluster)
    assert cluster.get(plan.targets[0])["spec"]["selector"] == NOBODY
    assert fault.differences(undo, cluster)
    assert [fault.undo(undo, cluster).outcome for _ in range(2)] == ["restored", "already"]
    assert fault.differences(undo, cluster) == ()
