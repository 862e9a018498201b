"""What all tests share: the real cluster for those that are marked so, and a deterministic Hypothesis in CI.

Tests marked `cluster` run last. Where the cluster cannot be started they are skipped with the reason that it gave,
except with CI=true: there a missing cluster is a failure.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from harness.clusters.provider import Access

if TYPE_CHECKING:
    from harness.adapters.kubernetes import KubeCluster

CLUSTER_TIMEOUT = 1800
"""Seconds for one test on the cluster: the first one may have to build Kubernetes."""
NAME = os.environ.get("DRILL_TEST_CLUSTER", "drill")
"""The local cluster to test on; another than that of one's drills, where both are to go on at the same time."""

settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("here", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "here")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Cluster tests last, whatever the random order of the others, and with time enough."""
    for item in items:
        if item.get_closest_marker("cluster") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(CLUSTER_TIMEOUT, func_only=False))
    items.sort(key=lambda item: item.get_closest_marker("cluster") is not None)


@pytest.fixture(scope="session")
def local_access(request: pytest.FixtureRequest) -> Iterator[Access]:
    """A real cluster with the staging system on it: the one called `NAME` where it is up, else one started here, which
    is then taken down again. Progress is shown past pytest's capture: building a cluster can take minutes."""
    from harness.clusters import roles, staging
    from harness.clusters.select import choose
    from harness.core.errors import DrillError
    from harness.ports.progress import Silent
    from harness.terminal.progress import LineProgress
    from harness.terminal.stream import Lines

    provider = choose("local", name=NAME)
    was_up = provider.status().state == "up"
    capture = request.config.pluginmanager.getplugin("capturemanager")
    uncaptured = capture.global_and_fixture_disabled if capture else nullcontext
    reason, access = "", None
    try:
        with uncaptured():
            access = provider.up(LineProgress(Lines(sys.stderr)))
    except DrillError as error:
        reason = f"no cluster: {error}"
    if access is None and os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    if access is None:
        pytest.skip(reason)
    with uncaptured():
        progress = LineProgress(Lines(sys.stderr))
        staging.deploy(provider, access, "smoke", progress)
        roles.install(provider, access, progress)
    yield access
    if not was_up:
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
