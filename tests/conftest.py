"""What all tests share: the real cluster for those that are marked so, and a deterministic Hypothesis in CI.

Tests marked `cluster` run last. Where the cluster cannot be started they are skipped with the reason that it gave,
except with CI=true: there a missing cluster is a failure.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from harness.clusters.provider import Access

if TYPE_CHECKING:
    from harness.adapters.kubernetes import KubeCluster

CLUSTER_TIMEOUT = 1800
"""Seconds for one test on the cluster: the first one may have to build Kubernetes."""
FIRST = os.environ.get("DRILL_TEST_CLUSTER", "drill")
"""The local cluster to test on; another than that of one's drills, where both are to go on at the same time."""
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
NAME = FIRST if _WORKER == "gw0" or os.environ.get("DRILL_TEST_CLUSTERS") != "each" else f"{FIRST}-{_WORKER}"
"""The cluster of this process. With DRILL_TEST_CLUSTERS=each, processes that test side by side have one each: what
breaks the staging system of a cluster cannot share it."""

settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("here", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "here")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Cluster tests last, whatever the random order of the others, and with time enough. Of these the longest begins
    first, or the others' processes would wait for it in the end."""

    def on_a_cluster(item: pytest.Item) -> bool:
        return any(item.get_closest_marker(mark) for mark in ("cluster", "kind"))

    for item in filter(on_a_cluster, items):
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(CLUSTER_TIMEOUT, func_only=False))
    items.sort(key=lambda item: (on_a_cluster(item), item.get_closest_marker("longest") is None))


@contextmanager
def users(path: Path) -> Iterator[dict[str, int]]:
    """The notes on this process' cluster that test processes share which run side by side; one at a time has them, so
    that what all clusters need is built once."""
    with path.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        notes: dict[str, dict[str, int]] = json.loads(file.read() or "{}")
        yield notes.setdefault(NAME, {"users": 0, "was_up": 0})
        file.seek(0)
        file.truncate()
        json.dump(notes, file)


@pytest.fixture(scope="session")
def local_access(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Access]:
    """A real cluster with the staging system on it: the one called `NAME` where it is up, else one started here, which
    the last of the processes that test on it takes down again. Progress is shown past pytest's capture: building a
    cluster can take minutes."""
    from harness.clusters import roles, staging
    from harness.clusters.select import choose
    from harness.core.errors import DrillError
    from harness.ports.progress import Silent
    from harness.terminal.progress import LineProgress
    from harness.terminal.stream import Lines

    provider = choose("local", name=NAME)
    capture = request.config.pluginmanager.getplugin("capturemanager")
    uncaptured = capture.global_and_fixture_disabled if capture else nullcontext
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "users-of-the-cluster.json"
    reason, access = "", None
    with users(shared) as notes, uncaptured():
        if not notes["users"]:
            notes["was_up"] = int(provider.status().state == "up")
        try:
            access = provider.up(LineProgress(Lines(sys.stderr)))
        except DrillError as error:
            reason = f"no cluster: {error}"
        if access is not None:
            progress = LineProgress(Lines(sys.stderr))
            staging.deploy(provider, access, "smoke", progress)
            roles.install(provider, access, progress)
            notes["users"] += 1
    if access is None and os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    if access is None:
        pytest.skip(reason)
    yield access
    with users(shared) as notes:
        notes["users"] -= 1
        if not notes["users"] and not notes["was_up"]:
            provider.down(Silent())


@pytest.fixture(scope="session")
def real_cluster(request: pytest.FixtureRequest) -> Iterator[KubeCluster]:
    """$DRILL_TEST_KUBECONFIG (with $DRILL_TEST_CONTEXT) where it is set, and otherwise the local cluster."""
    from harness.adapters.kubernetes import KubeCluster
    from harness.adapters.system_clock import SystemClock

    given = os.environ.get("DRILL_TEST_KUBECONFIG")
    if given:
        kubeconfig, context = Path(given), os.environ.get("DRILL_TEST_CONTEXT")
    else:
        access: Access = request.getfixturevalue("local_access")
        kubeconfig, context = access.kubeconfig, access.context
    cluster = KubeCluster.from_kubeconfig(kubeconfig, context, now=SystemClock().now)
    yield cluster
    cluster.close()
