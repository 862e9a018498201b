"""A Docker engine of its own: from Debian's packages, below one folder, in namespaces of its own.

Nothing is installed: the packages that the machine lacks are unpacked into the user's cache folder. The engine, its
containers and its networks live in a process, a mount and a network namespace without a way out of the machine, so
that its end is theirs, whoever ended it and how.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.clusters.local.toolchain import cache_folder
from harness.clusters.shell import clean_env, tail
from harness.core.errors import BadInput, Unreachable
from harness.ports.progress import Progress

HERE = Path(__file__).resolve().parent
FOLDER = Path("/var/lib/drill-kind")
"""All that the engine writes; a short path, since sockets lie below it."""
CGROUP = "drill-kind"
_PACKAGES = ("docker.io", "iproute2")
_START_SECONDS = 60.0
_END_SECONDS = 20.0
# The engine and what it starts write below these, and on the machine nobody shall find it.
_COVERED = ("etc", "opt", "usr")
_BOOT = """
set -eu
folder=$1; shift
mount -t tmpfs -o mode=0755 tmpfs /run
for place in "$@"; do
    mkdir -p "$folder/over/$place/new" "$folder/over/$place/work"
    mount -t overlay -o "lowerdir=/$place,upperdir=$folder/over/$place/new,workdir=$folder/over/$place/work" \
        overlay "/$place"
done
ip link set lo up
exec dockerd --config-file "$folder/daemon.json"
"""


@dataclass(frozen=True, slots=True)
class Engine:
    """A Docker engine that answers."""

    process: subprocess.Popen[bytes]
    path: str

    @property
    def socket(self) -> Path:
        """Where it answers."""
        return FOLDER / "docker.sock"

    def inside(self, argv: Sequence[str]) -> list[str]:
        """The command line within the engine's network: there, and only there, its published ports are."""
        nsenter = shutil.which("nsenter", path=self.path)  # whatever PATH the command will have
        return [str(nsenter), f"--target={self.process.pid}", "--net", "--", *argv]

    def env(self, **more: str) -> dict[str, str]:
        """The environment in which `docker` and `kind` mean this engine."""
        return clean_env({"PATH": self.path, "DOCKER_HOST": f"unix://{self.socket}", **more})

    def docker(self, *arguments: str, within: float = 60.0) -> str:
        """What `docker` says. Raises Unreachable with its words where it fails."""
        argv = ["docker", *arguments]
        done = subprocess.run(
            argv, capture_output=True, text=True, errors="replace", timeout=within, check=False, env=self.env()
        )
        if done.returncode != 0:
            raise _silent(f"`{' '.join(argv)}` ended with exit code {done.returncode}: {done.stderr.strip()[-2000:]}")
        return done.stdout


@contextmanager
def running(bin_folders: Sequence[Path], progress: Progress) -> Iterator[Engine]:
    """The engine, with these folders first on its clients' PATH; one at a time on this machine.

    Raises BadInput where the machine does not allow it, Unreachable where the engine does not answer.
    """
    if os.geteuid() != 0:
        raise BadInput(
            "not-root",
            f"this runs as user id {os.geteuid()}",
            expected="root: a Docker engine makes namespaces, mounts and control groups",
            remedy="run it with sudo",
        )
    packages = unpacked(progress)
    FOLDER.mkdir(parents=True, exist_ok=True, mode=0o711)
    with (FOLDER / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.say(f"another engine has {FOLDER}: waiting for its end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        _sweep()
        path, env = _surroundings(packages, bin_folders)
        (FOLDER / "daemon.json").write_text(json.dumps(_settings(path)))
        with (FOLDER / "dockerd.log").open("wb") as log:
            process = subprocess.Popen(
                # A parent that dies, however it dies, takes the engine along, and that takes all that it started.
                ["setpriv", "--pdeathsig=KILL", "--", "unshare", "--mount", "--propagation=private", "--net", "--pid",
                 "--fork", "--kill-child=KILL", "--mount-proc", "--", "sh", "-c", _BOOT, "boot", str(FOLDER),
                 *_COVERED],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=env, start_new_session=True,
            )  # fmt: skip
        engine = Engine(process, path)
        try:
            with progress.step("Docker engine of its own", expect_seconds=5):
                _await(engine)
            yield engine
        finally:
            process.kill()
            process.wait()
            _sweep()


def unpacked(progress: Progress) -> Path | None:
    """The folder that holds what the machine lacks of Debian's docker.io, dependencies included; None where Docker is
    installed. Raises BadInput where it cannot be fetched."""
    if all(shutil.which(name, path=clean_env()["PATH"]) for name in ("docker", "dockerd")):
        return None
    home = cache_folder() / "kind"
    with exclusively(home):
        room = home / ".building-docker"
        archives = room / "archives"
        (archives / "partial").mkdir(parents=True)
        wanted = ["install", "-y", "--no-install-recommends", "-o", f"Dir::Cache::archives={archives}", *_PACKAGES]
        named = _apt([*wanted, "--print-uris", "-qq"])
        if named.returncode != 0:
            _apt(["update"])
            named = _apt([*wanted, "--print-uris", "-qq"])
        final = home / f"docker-{hashlib.sha256(named.stdout.encode()).hexdigest()[:12]}"
        if named.returncode == 0 and not final.is_dir():
            with progress.step("Debian's docker.io, unpacked and not installed", expect_seconds=5):
                named = _apt([*wanted, "--download-only"])
                for package in sorted(archives.glob("*.deb")):
                    subprocess.run(["dpkg", "--extract", str(package), str(room / "root")], check=True)
                if named.returncode == 0:
                    (room / "root").rename(final)
        if final.is_dir():
            os.utime(final)
        shutil.rmtree(room)
        forget_old(home, "docker-*")
    if named.returncode != 0:
        raise BadInput(
            "docker-unfetched",
            f"apt-get could not fetch docker.io: {named.stderr.strip()[-1000:]}",
            expected="the package docker.io of Debian 12 or Ubuntu 24.04",
            remedy="check the way to the package mirror; an installed Docker is used as it is",
        )
    return final


def _apt(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    proxies = {key: value for key, value in os.environ.items() if key.lower().endswith("_proxy")}
    command = ["apt-get", "-o", "DPkg::Lock::Timeout=300", *arguments]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
        env=clean_env({"DEBIAN_FRONTEND": "noninteractive", **proxies}),
    )  # fmt: skip


@contextmanager
def exclusively(folder: Path) -> Iterator[None]:
    """One at a time makes something in this folder of the cache; leftovers of interrupted makers go first."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in folder.glob(".building-*"):
            shutil.rmtree(leftover)
        yield


def forget_old(folder: Path, pattern: str, keep: int = 2) -> None:
    """Remove what was made for other pins, but for the last that were used."""
    found = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime)
    for path in found[:-keep]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _surroundings(packages: Path | None, bin_folders: Sequence[Path]) -> tuple[str, Mapping[str, str]]:
    """PATH and environment with the unpacked programs and libraries before the machine's."""
    folders = [str(folder) for folder in bin_folders]
    libraries: list[str] = []
    if packages is not None:
        folders += [str(packages / place) for place in ("usr/sbin", "usr/bin", "sbin", "bin")]
        libraries = [str(place) for top in ("usr/lib", "lib") for place in (packages / top).glob("*-linux-gnu*")]
    temporary = FOLDER / "tmp"
    temporary.mkdir(exist_ok=True)
    path = ":".join([*folders, clean_env()["PATH"]])
    env = clean_env({"PATH": path, "TMPDIR": str(temporary)})
    return path, env | ({"LD_LIBRARY_PATH": ":".join(libraries)} if libraries else {})


def _settings(path: str) -> dict[str, object]:
    """The engine's configuration. Where the machine withholds capabilities, runc is told not to ask for them."""
    settings: dict[str, object] = {
        "data-root": str(FOLDER / "data"),
        "exec-root": str(FOLDER / "exec"),
        "pidfile": str(FOLDER / "dockerd.pid"),
        "hosts": [f"unix://{FOLDER / 'docker.sock'}"],
        "cgroup-parent": f"/{CGROUP}",
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "storage-driver": "overlay2",
    }
    lacking = lacking_capabilities()
    if lacking:
        shim = FOLDER / "runc"
        words = [
            sys.executable,
            "-IS",
            str(HERE / "lesser_runc.py"),
            ",".join(lacking),
            str(shutil.which("runc", path=path)),
        ]
        shim.write_text(f'#!/bin/sh\nexec {" ".join(words)} "$@"\n')
        shim.chmod(0o755)
        settings |= {"runtimes": {"lesser": {"path": str(shim)}}, "default-runtime": "lesser"}
    return settings


def lacking_capabilities() -> list[str]:
    """The capabilities that the kernel knows and that nobody here can have."""
    known = subprocess.run(["setpriv", "--list-caps"], capture_output=True, text=True, check=True).stdout.split()
    status = Path("/proc/self/status").read_text()
    bounding = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapBnd:")), 16)
    return [f"CAP_{name.upper()}" for bit, name in enumerate(known) if not bounding >> bit & 1]


def _await(engine: Engine) -> None:
    deadline = time.monotonic() + _START_SECONDS
    words = ""
    while time.monotonic() < deadline and engine.process.poll() is None:
        try:
            engine.docker("version", within=10)
        except (Unreachable, subprocess.TimeoutExpired) as error:
            words = str(error)
            time.sleep(0.1)
        else:
            return
    raise _silent(f"it did not answer within {_START_SECONDS:g} s: {words}")


def _silent(words: str) -> Unreachable:
    return Unreachable(
        "rig-engine",
        f"the rig's Docker engine: {words}\nIts own last words:\n{tail(FOLDER / 'dockerd.log')}",
        expected="a Docker engine that does what it is told",
        remedy="read the words above; nothing of the engine is kept",
    )


def _sweep() -> None:
    """Remove what an engine left: files and empty control groups. Its processes, mounts and links went with it."""
    deadline = time.monotonic() + _END_SECONDS
    while left := [path for path in Path("/sys/fs/cgroup").glob(f"**/{CGROUP}") if path.is_dir()]:
        for top in left:
            for folder in sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True):
                _remove(folder)
            _remove(top)
        if time.monotonic() > deadline:
            raise _silent(f"control groups are left: {', '.join(map(str, left))}")
        time.sleep(0.05)
    for entry in FOLDER.iterdir():
        if entry.name == ".lock":
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _remove(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:  # a process in it is still ending
        return
