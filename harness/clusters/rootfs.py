"""Images made without Docker: Debian packages as the base layer, our own files as layers on top.

The base layer takes half a minute and is cached under its recipe (packages, exclusions, hooks, architecture); so is
every layer that is dear to make, under what it is made of. An image's tag is made of the content of all its layers:
equal tags mean equal files, and a changed file is never hidden by a cached image.

The packages are extracted, not installed: no maintainer script runs, nothing of Debian's `Essential` set comes
along, and the image has no shell.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import platform
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.clusters import oci
from harness.clusters.shell import work
from harness.core.errors import BadInput, disk_full, is_full
from harness.ports.progress import Progress

SUITE = "bookworm"
BASE_SECONDS = 35.0
"""What a cold base layer takes on two cores with a near mirror."""

# Byte code is compiled here because the root file system is read-only where it runs. It is not checked against the
# sources' times: layers do not keep them reliably. The resolver's file is the builder's own and stays behind.
COMPILE = ("-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash")
HOOK = (
    f'chroot "$1" /usr/bin/python3 {" ".join(COMPILE)} /usr/lib/python3.11'
    ' && rm -f "$1/etc/resolv.conf" "$1/etc/hostname"'
)
_KEPT_ARCHIVES = 3
_KEPT_LAYERS = 6


@dataclass(frozen=True, slots=True)
class Image:
    """A built image: the name pods use, and the OCI archive that brings it to a cluster."""

    ref: str
    archive: Path


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an image is apart from its layers. `name` stands in file names and in what is told of the work; `user` is
    `uid:gid`."""

    name: str
    repository: str
    user: str
    workdir: str
    entrypoint: tuple[str, ...]
    env: Mapping[str, str]


def cache_dir() -> Path:
    """Where images are kept between runs; safe to delete at any time."""
    base = os.environ.get("XDG_CACHE_HOME")
    path = (Path(base) if base else Path.home() / ".cache") / "drill" / "images"
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def locked() -> Iterator[None]:
    """One builder at a time on this machine; the second finds the cache filled. Leftovers of a killed one go first: the
    cache holds no folders, these are where it worked."""
    folder = cache_dir()
    with (folder / ".lock").open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for leftover in folder.iterdir():
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            elif leftover.name.endswith(oci.PARTIAL):
                leftover.unlink()
        yield


def assemble(recipe: Recipe, layers: Sequence[Path | bytes], progress: Progress) -> Image:
    """The image of these layers, tar files or their content, from bottom to top; from the cache where it is there."""
    digests = [_sha256(one) if isinstance(one, Path) else hashlib.sha256(one).hexdigest() for one in layers]
    tag = hashlib.sha256("".join(digests).encode()).hexdigest()[:12]
    image = Image(f"{recipe.repository}:{tag}", cache_dir() / f"{recipe.name}-{tag}.oci.tar")
    if image.archive.exists():
        os.utime(image.archive)
        return image
    with progress.step(f"{recipe.name} image", expect_seconds=2), room_for_work() as room:
        files: list[oci.Layer | Path] = []
        for number, layer in enumerate(layers):
            if isinstance(layer, bytes):
                file = room / f"{number}.tar"
                file.write_bytes(layer)
                files.append(file)
            else:
                files.append(layer)
        oci.write_archive(
            image.archive,
            image.ref,
            layers=files,
            entrypoint=recipe.entrypoint,
            env=recipe.env,
            user=recipe.user,
            workdir=recipe.workdir,
        )
    _forget_old(f"{recipe.name}-*.oci.tar", _KEPT_ARCHIVES)
    return image


def kept(sort: str, key: str, make: Callable[[Path], None]) -> Path:
    """The cached file of that sort for what `key` names; made by `make(path)` where it is not there, whole or not at
    all."""
    path = _kept_as(sort, key)
    if path.exists():
        os.utime(path)
        return path
    with room_for_work() as room:
        half_done = room / path.name
        make(half_done)
        half_done.replace(path)
    _forget_old(f"{sort}-*.tar", _KEPT_LAYERS)
    return path


def _kept_as(sort: str, key: str) -> Path:
    return cache_dir() / f"{sort}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.tar"


def base_layer(lists: Path, progress: Progress) -> Path:
    """The layer of Debian packages that packages.txt and excludes.txt in the folder `lists` name.

    Raises BadInput where the machine lacks a tool or cannot fetch packages.
    """
    packages, excludes, key = _base_recipe(lists)

    def make(out: Path) -> None:
        _refuse_without_mmdebstrap(shutil.which)
        with progress.step("base layer from Debian packages", expect_seconds=BASE_SECONDS):
            options = ("--variant=extract", f"--extract-hook={HOOK}")
            bootstrap("base layer", packages, excludes, out, options)

    return kept("base", key, make)


def refuse_unmakeable(lists: Path, find: Callable[[str], str | None] = shutil.which) -> None:
    """Raise BadInput where the base layer of the folder `lists` is still to be made and mmdebstrap is missing."""
    *_, key = _base_recipe(lists)
    if not _kept_as("base", key).exists():
        _refuse_without_mmdebstrap(find)


def bootstrap(
    what: str, packages: Sequence[str], excludes: Sequence[str], out: Path, options: Sequence[str] = ()
) -> None:
    """Let mmdebstrap write a tar file of these packages and of what they need, without the paths in `excludes`.

    Raises BadInput with its reason where it did not.
    """
    command = [
        "mmdebstrap",
        "--format=tar",
        f"--include={','.join(packages)}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in excludes),
        *options,
        "--skip=output/dev",
        SUITE,
        str(out),
    ]
    done = work(command)  # not --quiet: it would keep the reason to itself
    if done.returncode == 0:
        return
    errors = [line for line in done.stderr.splitlines() if re.match(r"[EW]: |.*: Cannot write: ", line)]
    said = [line for line in errors if "mmdebstrap failed to run" not in line and not line.startswith("W: skipping")]
    full = [line for line in said if is_full(line)]
    last = "; ".join((full or said or done.stderr.split("\n"))[-3:]).strip() or f"exit code {done.returncode}"
    if full:
        places = f"{tempfile.gettempdir()} (TMPDIR) and {cache_dir()}"
        raise disk_full(f"mmdebstrap, which works in {places}, did not make the {what}: {last}")
    raise BadInput(
        "base-layer",
        f"mmdebstrap did not make the {what}: {last}",
        expected=f"Debian {SUITE} packages {', '.join(packages)} from the default mirror",
        remedy="check the way to the mirror and the keyring (debian-archive-keyring)",
    )


def _base_recipe(lists: Path) -> tuple[list[str], list[str], str]:
    """Packages, what of them is left out, and the key under which the layer of both is kept."""
    packages, excludes = read_list(lists / "packages.txt"), read_list(lists / "excludes.txt")
    return packages, excludes, "\n".join([SUITE, platform.machine(), HOOK, *packages, "", *excludes])


def _refuse_without_mmdebstrap(find: Callable[[str], str | None]) -> None:
    if find("mmdebstrap") is None:
        raise BadInput(
            "mmdebstrap-missing",
            "mmdebstrap is not installed",
            expected="mmdebstrap on PATH, to make images without Docker",
            remedy="apt-get install mmdebstrap debian-archive-keyring",
        )


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """A layer of these files, root's and readable by all: the same bytes for the same files, whoever asks and when."""
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


def accounts(user: str, uid: int, home: str) -> dict[str, bytes]:
    """The files by which an image knows its one user, and finds names."""
    return {
        "etc/passwd": f"root:x:0:0:root:/:/nonexistent\n{user}:x:{uid}:{uid}:{user}:{home}:/nonexistent\n".encode(),
        "etc/group": f"root:x:0:\n{user}:x:{uid}:\n".encode(),
        "etc/nsswitch.conf": b"passwd: files\ngroup: files\nhosts: files dns\n",
    }


def read_list(path: Path) -> list[str]:
    """The lines of a list file without comments and blanks, in order."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _sha256(path: Path) -> str:
    """The digest of a cached file, remembered beside it: a layer is written once and never changed."""
    note = path.with_name(path.name + ".sha256")
    known = note.read_text(encoding="utf-8").strip() if note.exists() else ""
    if not known:  # or on a full disk a note without a word
        with path.open("rb") as file:
            known = hashlib.file_digest(file, "sha256").hexdigest()
        partial = note.with_name(note.name + oci.PARTIAL)
        partial.write_text(known, encoding="utf-8")
        partial.replace(note)
    return known


def _forget_old(pattern: str, keep: int) -> None:
    found = sorted(cache_dir().glob(pattern), key=lambda path: path.stat().st_mtime)
    for path in found[:-keep]:
        path.unlink(missing_ok=True)
        path.with_name(path.name + ".sha256").unlink(missing_ok=True)


@contextmanager
def room_for_work() -> Iterator[Path]:
    """A folder for half-done work, beside the cache so that what is done can be moved there."""
    with tempfile.TemporaryDirectory(dir=cache_dir()) as room:
        yield Path(room)
