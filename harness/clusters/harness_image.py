"""The harness' own image: Debian's Python, the locked packages that run, our package on top; no shell, no root.

The packages are those of requirements/runtime.lock, taken by their hashes, without what only builds or is never
loaded. Byte code is compiled by the very Python of the base layer: the one that runs this may be a newer one.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Collection
from pathlib import Path

from harness.clusters import oci, rootfs
from harness.clusters.rootfs import Image, Recipe
from harness.clusters.shell import work
from harness.core.errors import BadInput, Internal, disk_full, is_full
from harness.ports.progress import Progress

HOME = "/opt/drill"
LIBRARY = f"{HOME}/lib"
RECIPE = Recipe(
    name="harness",
    repository="drill.internal/harness",
    user="10002:10002",
    workdir=HOME,
    entrypoint=("/usr/bin/python3", "-m", "harness.cli"),
    env={
        "PYTHONPATH": f"{HOME}:{LIBRARY}",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "SSL_CERT_FILE": f"{LIBRARY}/certifi/cacert.pem",
    },
)
LARGEST = 250 * 1000 * 1000
"""Bytes that the image may hold, unpacked."""
_PYTHON = "3.11"
_LIBC = 36  # Debian bookworm's glibc is 2.36: wheels built for an older one run as well
_LIBRARY_SECONDS = 25.0
_PIP_SECONDS = 600.0
_OURS = "drill-harness (pyproject.toml)"


def build(repository: Path, progress: Progress) -> Image:
    """The image of the checkout `repository`, built as far as it is not cached.

    Raises BadInput where the machine lacks a tool or cannot fetch packages.
    """
    recipe = lists(repository)
    left_out = rootfs.read_list(recipe / "left-out.txt")
    unused = {line for line in left_out if not line.startswith("/")}
    paths = [line.lstrip("/") for line in left_out if line.startswith("/")]
    lock = runtime_only((repository / "requirements" / "runtime.lock").read_text(encoding="utf-8"), unused)
    sources = _sources(repository)
    with rootfs.locked():
        base = rootfs.base_layer(recipe, progress)

        def make_library(out: Path) -> None:
            with (
                progress.step("Python packages of the harness image", expect_seconds=_LIBRARY_SECONDS),
                tempfile.TemporaryDirectory(dir=out.parent) as room,
            ):
                library = Path(room) / LIBRARY.lstrip("/")
                _install(lock, library)
                for pattern in paths:
                    for found in list(library.glob(pattern)):
                        shutil.rmtree(found) if found.is_dir() else found.unlink()
                _finish(Path(room), base, out)

        def make_sources(out: Path) -> None:
            with tempfile.TemporaryDirectory(dir=out.parent) as room:
                for name, content in sources.items():
                    file = Path(room, name)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(content)
                _finish(Path(room), base, out)

        library = rootfs.kept("harness-library", "\n".join([base.name, *_platforms(), *paths, lock]), make_library)
        digest = hashlib.sha256(rootfs.tar_of(sources)).hexdigest()
        ours = rootfs.kept("harness-sources", f"{base.name}\n{digest}", make_sources)
        return rootfs.assemble(RECIPE, [base, library, ours], progress)


def lists(repository: Path) -> Path:
    """The folder that names the packages of the base layer."""
    return repository / "tools" / "harness-image"


def runtime_only(lock: str, unused: Collection[str] = ()) -> str:
    """The entries of a lock file that the harness wants, itself or through another, `unused` ones and what only they
    want left out."""
    entries = {entry.partition("==")[0]: entry for entry in re.findall(r"^\S+==.*\n(?:    .*\n?)*", lock, re.MULTILINE)}
    by = {name: set(re.findall(r"^    # +(?:via )?(\S.*)$", entry, re.MULTILINE)) for name, entry in entries.items()}
    wanted: set[str] = set()
    while more := {name for name in by.keys() - wanted - set(unused) if by[name] & {_OURS, *wanted}}:
        wanted |= more
    return "".join(entry for name, entry in entries.items() if name in wanted)


def _sources(repository: Path) -> dict[str, bytes]:
    """What the harness reads of a checkout at run time, and the account it runs under. The manifests and the staging
    system are for whoever sets a cluster up, which nobody does from inside."""
    files = rootfs.accounts("drill", int(RECIPE.user.partition(":")[0]), HOME)
    package = [path for path in (repository / "harness").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    for path in sorted([*package, *(repository / "experiments").glob("*.yaml")]):
        files[f"{HOME.lstrip('/')}/{path.relative_to(repository)}"] = path.read_bytes()
    version = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    told = f"Metadata-Version: 2.1\nName: drill-harness\nVersion: {version}\n"
    files[f"{HOME.lstrip('/')}/drill_harness-{version}.dist-info/METADATA"] = told.encode()
    return files


def _platforms() -> list[str]:
    """The platforms of wheels that run on the base layer, in pip's words."""
    machine = platform.machine()
    return [f"manylinux_2_{minor}_{machine}" for minor in range(_LIBC, 4, -1)] + [f"manylinux2014_{machine}"]


def _install(lock: str, library: Path) -> None:
    """Put the locked packages into a folder: wheels only, each with its hash, for the image's Python."""
    library.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as room:  # where the next build finds what a killed one left
        wanted = Path(room) / "runtime.lock"
        wanted.write_text(lock, encoding="utf-8")
        command = [
            sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet", "install",
            "--no-deps", "--require-hashes", "--only-binary=:all:", "--no-compile", "--python-version", _PYTHON,
            "--implementation", "cp", *(f"--platform={one}" for one in _platforms()), "--target", str(library),
            "--requirement", str(wanted),
        ]  # fmt: skip
        try:
            done = work(command, env=dict(os.environ) | {"TMPDIR": room}, timeout=_PIP_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise _not_installed(f"pip did not end within {_PIP_SECONDS:.0f} s") from error
    if done.returncode != 0:
        if is_full(done.stderr):
            raise disk_full(f"the Python packages of the harness image did not fit into {library}")
        raise _not_installed("; ".join(done.stderr.strip().splitlines()[-3:]) or f"pip's exit code {done.returncode}")


def _not_installed(why: str) -> BadInput:
    return BadInput(
        "image-packages",
        f"the Python packages of the harness image were not installed: {why}",
        expected="every package of requirements/runtime.lock that runs, as a wheel with its hash",
        remedy="tools/bootstrap.sh runtime makes an environment that has pip; check the way to the package index",
    )


def _finish(tree: Path, base: Path, out: Path) -> None:
    """Compile what is under `tree`, make it readable by all, and write it as a layer."""
    home = tree / HOME.lstrip("/")
    with tempfile.TemporaryDirectory(dir=out.parent) as room:
        _run_base_python(base, Path(room), [*rootfs.COMPILE, "-s", str(tree), "-p", "/", str(home)])
    for path in [tree, *tree.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    oci.write_layer(out, tree)


def _run_base_python(base: Path, room: Path, arguments: list[str]) -> None:
    """Run the base layer's Python, unpacked into `room`, by its own loader and libraries: no root is needed."""
    _done(["tar", "--extract", "--no-same-owner", f"--file={base}", f"--directory={room}"], room)
    loader = next((path for path in room.glob("lib/*/ld-linux-*.so.*") if not path.is_symlink()), None)
    if loader is None:
        raise Internal(
            "base-layer-broken",
            f"{base} holds no loader of programs",
            expected="/lib/<architecture>/ld-linux-*.so.*, from Debian's libc6",
            remedy="remove that file; it is made anew",
        )
    libraries = [loader.parent, room / "usr" / loader.parent.relative_to(room)]
    command = [str(loader), "--library-path", ":".join(map(str, libraries)), f"{room}/usr/bin/python{_PYTHON}"]
    _done([*command, "-s", *arguments], room, {"PYTHONHOME": f"{room}/usr", "LC_ALL": "C.UTF-8"})


def _done(command: list[str], room: Path, env: dict[str, str] | None = None) -> None:
    done = work(command, env=env)
    words = (done.stderr.strip() or done.stdout.strip())[-2000:]
    if done.returncode != 0 and is_full(words):
        raise disk_full(f"the byte code of the harness image did not fit into {room}")
    if done.returncode != 0:
        raise Internal(
            "byte-code",
            f"`{command[0]}` ended with exit code {done.returncode}: {words}",
            expected="the packages of the harness image compiled by its own Python",
            remedy="read the words above; all of ~/.cache/drill/images may be removed, and is made anew",
        )
