"""The staging system's image, made without Docker: Debian packages as one layer, our few sources as another.

The base layer takes half a minute and is cached under its recipe (packages, exclusions, hooks, architecture); the
layer of sources takes milliseconds, so editing staging/*.py costs an archive and no package. The image's tag is made
of the content of both layers: equal tags mean equal files, and a changed file is never hidden by a cached image.

The packages are extracted, not installed: no maintainer script runs, nothing of Debian's `Essential` set comes
along, and the image has no shell.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import platform
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.clusters import oci
from harness.core.errors import BadInput, Internal
from harness.ports.progress import Progress

REPOSITORY = "drill.internal/nova-staging"
SUITE = "bookworm"
USER = "10001:10001"
WORKDIR = "/opt/nova"
ENTRYPOINT = ("/usr/bin/python3",)
ENV = {"PYTHONPATH": "/opt/nova", "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
BASE_SECONDS = 35.0
"""What a cold base layer takes on two cores with a near mirror."""

# Byte code is compiled here because the root file system is read-only where it runs. It is not checked against the
# sources' times: layers do not keep them reliably. The resolver's file is the builder's own and stays behind.
_HOOK = (
    'chroot "$1" /usr/bin/python3 -m compileall -q --invalidation-mode unchecked-hash /usr/lib/python3.11'
    ' && rm -f "$1/etc/resolv.conf" "$1/etc/hostname"'
)
_KEPT_ARCHIVES = 3


@dataclass(frozen=True, slots=True)
class Image:
    """A built image: the name pods use, and the OCI archive that brings it to a cluster."""

    ref: str
    archive: Path


def cache_dir() -> Path:
    """Where images are kept between runs; safe to delete at any time."""
    base = os.environ.get("XDG_CACHE_HOME")
    path = (Path(base) if base else Path.home() / ".cache") / "drill" / "images"
    path.mkdir(parents=True, exist_ok=True)
    return path


def build(repository: Path, progress: Progress) -> Image:
    """The image of the sources under `repository`/staging, built as far as it is not cached.

    Raises BadInput where the machine lacks a tool or cannot fetch packages.
    """
    with _locked():
        base = _base(repository, progress)
        sources = sources_layer(repository)
        digest = _sha256(base) + hashlib.sha256(sources).hexdigest()
        tag = hashlib.sha256(digest.encode()).hexdigest()[:12]
        image = Image(f"{REPOSITORY}:{tag}", cache_dir() / f"nova-staging-{tag}.oci.tar")
        if image.archive.exists():
            os.utime(image.archive)
            return image
        with progress.step("staging image", expect_seconds=2), tempfile.TemporaryDirectory(dir=cache_dir()) as room:
            layer = Path(room) / "sources.tar"
            layer.write_bytes(sources)
            oci.write_archive(
                image.archive,
                image.ref,
                layers=[base, layer],
                entrypoint=list(ENTRYPOINT),
                env=ENV,
                user=USER,
                workdir=WORKDIR,
            )
        _forget_old_archives()
        return image


def promtool(repository: Path, progress: Progress) -> Path:
    """`promtool` of the very Prometheus that the image runs; see `program`."""
    return program("promtool", repository, progress)


def program(name: str, repository: Path, progress: Progress) -> Path:
    """A program of /usr/bin that the image runs, taken out of the base layer for use on this machine.

    Raises BadInput as `build` does, Internal where the layer holds no such program.
    """
    with _locked():
        base = _base(repository, progress)
        tool = base.with_name(f"{name}-{base.stem.removeprefix('base-')}")
        if not tool.exists():
            with tarfile.open(base) as archive, tempfile.TemporaryDirectory(dir=cache_dir()) as room:
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
                half_done = Path(room) / name
                with half_done.open("wb") as out:
                    shutil.copyfileobj(member, out)
                half_done.chmod(0o755)
                half_done.replace(tool)
    return tool


def sources_layer(repository: Path) -> bytes:
    """The layer of our own files as a tar: the same bytes for the same sources, whoever builds it and when."""
    files = {
        "etc/passwd": b"root:x:0:0:root:/:/nonexistent\nnova:x:10001:10001:nova:/opt/nova:/nonexistent\n",
        "etc/group": b"root:x:0:\nnova:x:10001:\n",
        "etc/nsswitch.conf": b"passwd: files\ngroup: files\nhosts: files dns\n",
    }
    for source in sorted((repository / "staging").glob("*.py")):
        files[f"opt/nova/staging/{source.name}"] = source.read_bytes()
    folders = sorted({str(parent) for name in files for parent in Path(name).parents if str(parent) != "."})
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for folder in folders:
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def read_list(path: Path) -> list[str]:
    """The lines of a list file without comments and blanks, in order."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _base(repository: Path, progress: Progress) -> Path:
    recipe = repository / "staging" / "image"
    packages = read_list(recipe / "packages.txt")
    excludes = read_list(recipe / "excludes.txt")
    key = "\n".join([SUITE, platform.machine(), _HOOK, *packages, "", *excludes])
    base = cache_dir() / f"base-{hashlib.sha256(key.encode()).hexdigest()[:12]}.tar"
    if base.exists():
        return base
    if shutil.which("mmdebstrap") is None:
        raise BadInput(
            "mmdebstrap-missing",
            "mmdebstrap is not installed",
            expected="mmdebstrap on PATH, to make the staging image without Docker",
            remedy="apt-get install mmdebstrap debian-archive-keyring",
        )
    with (
        progress.step("base layer from Debian packages", expect_seconds=BASE_SECONDS),
        tempfile.TemporaryDirectory(dir=cache_dir()) as room,
    ):
        half_done = Path(room) / "base.tar"
        command = [
            "mmdebstrap",
            "--quiet",
            "--variant=extract",
            "--format=tar",
            f"--include={','.join(packages)}",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in excludes),
            f"--extract-hook={_HOOK}",
            "--skip=output/dev",
            SUITE,
            str(half_done),
        ]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode != 0:
            last = "; ".join(done.stderr.strip().splitlines()[-3:]) or f"exit code {done.returncode}"
            raise BadInput(
                "base-layer",
                f"mmdebstrap did not make the base layer: {last}",
                expected=f"Debian {SUITE} packages {', '.join(packages)} from the default mirror",
                remedy="check the way to the mirror, the keyring (debian-archive-keyring) and the free disk space",
            )
        half_done.replace(base)
    return base


def _sha256(path: Path) -> str:
    """The digest of a cached file, remembered beside it: a base layer is written once and never changed."""
    note = path.with_name(path.name + ".sha256")
    if not note.exists():
        with path.open("rb") as file:
            note.write_text(hashlib.file_digest(file, "sha256").hexdigest(), encoding="utf-8")
    return note.read_text(encoding="utf-8").strip()


def _forget_old_archives() -> None:
    archives = sorted(cache_dir().glob("nova-staging-*.oci.tar"), key=lambda path: path.stat().st_mtime)
    for archive in archives[:-_KEPT_ARCHIVES]:
        archive.unlink(missing_ok=True)


@contextmanager
def _locked() -> Iterator[None]:
    """One builder at a time on this machine; the second finds the cache filled."""
    with (cache_dir() / ".lock").open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
