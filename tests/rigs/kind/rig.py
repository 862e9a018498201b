"""The whole rig: programs and images made, an engine started, the node image in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.clusters import harness_image, staging_image
from harness.clusters.local import toolchain
from harness.ports.progress import Progress
from tests.rigs.kind import engine, node_image
from tests.rigs.kind.engine import Engine
from tests.rigs.kind.node_image import NodeImage

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True)
class Rig:
    """An engine with `kind` and `docker` on its PATH, and the node image that it holds."""

    engine: Engine
    node: NodeImage


@contextmanager
def ready(progress: Progress) -> Iterator[Rig]:
    """The rig. All that needs a network is made before the engine starts, since there is none where its clients run.

    Raises DrillError where the machine does not allow it.
    """
    binaries = toolchain.ensure(toolchain.plan(), progress)
    programs = node_image.tools(progress)
    node = node_image.node_image(programs, binaries, progress)
    staging_image.build(ROOT, progress)
    harness_image.build(ROOT, progress)
    with engine.running([programs.folder], progress) as docker:
        with progress.step("node image into the engine", expect_seconds=15):
            changes = ("--change", "ENV container=docker", "--change", f"ENTRYPOINT {node_image.ENTRYPOINT}")
            docker.docker("import", *changes, str(node.archive), node.ref, within=180)
        yield Rig(docker, node)
