"""The staging system's image: its Debian packages, and our few sources on top.

Editing staging/*.py costs an archive and no package.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

from harness.clusters import rootfs
from harness.clusters.rootfs import Image, Recipe
from harness.core.errors import Internal
from harness.ports.progress import Progress

RECIPE = Recipe(
    name="nova-staging",
    repository="drill.internal/nova-staging",
    user="10001:10001",
    workdir="/opt/nova",
    entrypoint=("/usr/bin/python3",),
    env={"PYTHONPATH": "/opt/nova", "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"},
)


def build(repository: Path, progress: Progress) -> Image:
    """The image of the sources under `repository`/staging, built as far as it is not cached.

    Raises BadInput where the machine lacks a tool or cannot fetch packages.
    """
    with rootfs.locked():
        return rootfs.assemble(RECIPE, [_base(repository, progress), sources_layer(repository)], progress)


def promtool(repository: Path, progress: Progress) -> Path:
    """`promtool` of the very Prometheus that the image runs; see `program`."""
    return program("promtool", repository, progress)


def program(name: str, repository: Path, progress: Progress) -> Path:
    """A program of /usr/bin that the image runs, taken out of the base layer for use on this machine.

    Raises BadInput as `build` does, Internal where the layer holds no such program.
    """
    with rootfs.locked():
        base = _base(repository, progress)
        tool = base.with_name(f"{name}-{base.stem.removeprefix('base-')}")
        if not tool.exists():
            with tarfile.open(base) as archive, rootfs.room_for_work() as room:
                try:
                    member = archive.extractfile(f"./usr/bin/{name}")
                except KeyError:
                    member = None
                if member is None:
                    raise Internal(
                        f"{name}-missing",
                        f"{base} holds no /usr/bin/{name}",
                        expected="the package that brings it",
                        remedy="see staging/image/packages.txt and excludes.txt",
                    )
                half_done = room / name
                with half_done.open("wb") as out:
                    shutil.copyfileobj(member, out)
                half_done.chmod(0o755)
                half_done.replace(tool)
    return tool


def sources_layer(repository: Path) -> bytes:
    """The layer of our own files as a tar: the same bytes for the same sources, whoever builds it and when."""
    files = rootfs.accounts("nova", 10001, "/opt/nova")
    for source in sorted((repository / "staging").glob("*.py")):
        files[f"opt/nova/staging/{source.name}"] = source.read_bytes()
    return rootfs.tar_of(files)


def _base(repository: Path, progress: Progress) -> Path:
    return rootfs.base_layer(lists(repository), progress)


def lists(repository: Path) -> Path:
    """The folder that names the packages of the base layer."""
    return repository / "staging" / "image"
