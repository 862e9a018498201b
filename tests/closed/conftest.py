"""Runs the room's drills side by side, each once, and only those whose tests were chosen."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.clusters.rootfs import cache_dir
from harness.clusters.staging_image import program
from harness.core.errors import BadInput
from harness.ports.progress import Silent
from tests.closed.drill import Drill, Ran, Scenario

ROOT = Path(__file__).parents[2]
AT_ONCE = 8
"""Each is a Prometheus and a drill; more of them would make two cores late for their seconds."""


@pytest.fixture(scope="session")
def real_prometheus() -> Path:
    """The image's own Prometheus where its base layer is cached (or on CI, where it is built), or the machine's."""
    reason = "no prometheus: the image's base layer is not cached and the package prometheus not installed"
    on_ci = os.environ.get("CI") == "true"
    if list(cache_dir().glob("base-*.tar")) or on_ci:
        try:
            return program("prometheus", ROOT, Silent())
        except BadInput as error:
            reason = error.fact
    installed = shutil.which("prometheus")
    if installed is None and on_ci:
        pytest.fail(f"{reason}; expected on CI")
    if installed is None:
        pytest.skip(reason)
    return Path(installed)


Drills = dict[str, Future[Ran]]


@pytest.fixture(scope="session")
def drills(
    request: pytest.FixtureRequest, real_prometheus: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Drills]:
    """The drill of every scenario that a chosen test asks for.

    Exporters answer from this process. What thousands of other tests left in its heap is frozen meanwhile: a full
    collection over it stops every thread for two seconds, and a scrape waits one.
    """
    asked = [getattr(item, "callspec", None) for item in request.session.items]
    chosen = [spec.params["scenario"] for spec in asked if spec and isinstance(spec.params.get("scenario"), Scenario)]
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="closed") as pool:

        def start(scenario: Scenario) -> Future[Ran]:
            folder = tmp_path_factory.mktemp("closed")
            return pool.submit(lambda: Drill(scenario, real_prometheus, folder).run())

        gc.collect()
        gc.freeze()
        running = {scenario.name: start(scenario) for scenario in {one.name: one for one in chosen}.values()}
        yield running
        for future in running.values():
            future.cancel()
        gc.unfreeze()


@pytest.fixture
def ran(scenario: Scenario, drills: Drills) -> Ran:
    """How the drill of this test's scenario ended."""
    return drills[scenario.name].result()
