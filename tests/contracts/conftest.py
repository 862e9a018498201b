"""The clusters under contract: the fake always, the real one where there is one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.adapters.kubernetes import KubeCluster
from harness.adapters.system_clock import SystemClock

if TYPE_CHECKING:
    from harness.clusters.provider import Access


@pytest.fixture(scope="session")
def real_cluster(request: pytest.FixtureRequest) -> Iterator[KubeCluster]:
    """$DRILL_TEST_KUBECONFIG (with $DRILL_TEST_CONTEXT) where it is set, and otherwise the local cluster."""
    given = os.environ.get("DRILL_TEST_KUBECONFIG")
    if given:
        kubeconfig, context = Path(given), os.environ.get("DRILL_TEST_CONTEXT")
    else:
        access: Access = request.getfixturevalue("local_access")
        kubeconfig, context = access.kubeconfig, access.context
    cluster = KubeCluster.from_kubeconfig(kubeconfig, context, now=SystemClock().now)
    yield cluster
    cluster.close()
