"""What all tests share: the real cluster for those that are marked so, and a deterministic Hypothesis in CI.

Tests marked `cluster` run last. Where the cluster cannot be started they are skipped with the reason that it gave,
except with CI=true: there a missing cluster is a failure.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from harness.clusters.provider import Access

CLUSTER_TIMEOUT = 900
"""Seconds for one test on the cluster: the first one may have to build it."""
NAME = "drill"

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
def local_access(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Access]:
    """A real cluster that answers, DNS included: the one called "drill" where it is up, else one started here, which
    is then taken down again."""
    from harness.clusters.select import choose
    from harness.core.errors import DrillError
    from harness.terminal.progress import LineProgress
    from harness.terminal.stream import Lines

    log = tmp_path_factory.mktemp("cluster") / "progress.log"
    provider = choose("local", context=None, kubeconfig=None, name=NAME)
    was_up = provider.status().state == "up"
    with Path(log).open("w", encoding="utf-8") as stream:
        progress = LineProgress(Lines(stream))
        try:
            access = provider.up(progress)
        except DrillError as error:
            reason = f"no cluster: {error}"
            if os.environ.get("CI") == "true":
                pytest.fail(reason, pytrace=False)
            pytest.skip(reason)
        yield access
        if not was_up:
            provider.down(progress)
