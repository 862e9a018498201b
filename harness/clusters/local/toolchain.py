"""Kubernetes, etcd and CoreDNS, built once from pinned Go modules and kept by content.

The key of a build is everything that it is made from, so a finished folder is right for ever and a changed pin makes
a new one. A build appears whole or not at all, and two builds never run at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.clusters import oci
from harness.clusters.local import machine
from harness.clusters.shell import worker
from harness.core.errors import BadInput, disk_full, is_full
from harness.ports.progress import Progress, StepHandle

_KUBERNETES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")
_PACKAGES = (
    "./pause",
    "./coredns",
    "go.etcd.io/etcd/server/v3",
    *(f"k8s.io/kubernetes/cmd/{name}" for name in _KUBERNETES),
)
_RENAMED = {"server": "etcd"}
_EXPECTED_PACKAGES = 2860
_COLD_CPU_SECONDS = 650.0
_FETCH_SECONDS = 60.0
_UNUSED_SECONDS = 30 * 86_400.0
_IMAGES = ("pause", "coredns")
_VERSION = "k8s.io/component-base/version"


def cache_folder() -> Path:
    """Where finished builds are kept: the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "drill"


def source_folder() -> Path:
    """The pinned Go module in the checkout. Raises BadInput where the harness runs without its checkout."""
    folder = Path(__file__).resolve().parents[3] / "tools" / "kubernetes"
    if not (folder / "go.mod").is_file():
        raise BadInput(
            "tools-missing",
            f"{folder} is not there",
            expected="the harness run from its repository, which holds the pinned Go modules",
            remedy="run it from a checkout, or use `--provider kind` or `--context`",
        )
    return folder


@dataclass(frozen=True, slots=True)
class Binaries:
    """A finished build."""

    folder: Path

    def path(self, name: str) -> Path:
        """The binary `name`."""
        return self.folder / name

    @property
    def tag(self) -> str:
        """Stands for the content in image names."""
        return self.folder.name[:12]

    def image(self, name: str) -> tuple[Path, str]:
        """Archive and reference of the image that holds the binary `name` alone."""
        return self.folder / f"{name}.oci.tar", f"drill.internal/{name}:{self.tag}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be built, and with what; made by looking only."""

    source: Path
    source_key: str
    kubernetes: str
    go: str | None
    go_version: str | None
    go_needed: str

    def finished(self) -> Binaries | None:
        """The build, where it is done. Without a Go command any build from the same sources will do."""
        keys = [f"{self.source_key}-{self.go_version}"] if self.go_version else []
        folder = cache_folder() / "kubernetes"
        if not keys and folder.is_dir():
            keys = sorted(entry.name for entry in folder.glob(f"{self.source_key}-go*"))
        return next((Binaries(folder / key) for key in keys if (folder / key).is_dir()), None)


def plan() -> Plan:
    """Look at sources and Go command."""
    source = source_folder()
    module = (source / "go.mod").read_text()
    kubernetes = _pin(r"^\s*k8s\.io/kubernetes (v\S+)", module)
    go = machine.find_go()
    version = None
    if go is not None:
        # Outside the module: inside it a Go that is too old answers with an error instead of its version.
        done = subprocess.run(
            [go, "env", "GOVERSION"], cwd="/", env=_env(), capture_output=True, text=True, check=False, timeout=60
        )
        version = done.stdout.strip() or None
    digest = hashlib.sha256()
    for file in [source / "go.mod", source / "go.sum", *sorted(source.rglob("*.go"))]:
        digest.update(f"{file.relative_to(source)}\0".encode() + file.read_bytes() + b"\0")
    digest.update(repr((_flags(kubernetes), _PACKAGES, platform.machine())).encode())
    return Plan(source, digest.hexdigest()[:16], kubernetes, go, version, _pin(r"^go (\S+)", module))


def _pin(pattern: str, module: str) -> str:
    match = re.search(pattern, module, re.MULTILINE)
    return match[1] if match else ""


def _env() -> dict[str, str]:
    return dict(os.environ) | {
        "GOFLAGS": "",
        "GOWORK": "off",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
        "GOGC": "400",  # the compiler trades memory for a third of the time
    }


def _flags(kubernetes: str) -> list[str]:
    major, minor = machine.release(kubernetes)[:2]
    stamps = {"gitVersion": kubernetes, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    linker = "-s -w " + " ".join(f"-X {_VERSION}.{key}={value}" for key, value in stamps.items())
    return ["-v", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", linker]


def ensure(wanted: Plan, progress: Progress) -> Binaries:
    """The finished build, made now where it is not there. The first time costs minutes; interrupting it is harmless."""
    finished = wanted.finished()
    if finished is not None:
        os.utime(finished.folder)
        return finished
    with _locked():
        finished = wanted.finished()
        if finished is not None:
            return finished
        fresh = _build(wanted, progress)
        _forget_unused(fresh)
        return fresh


def _forget_unused(fresh: Binaries) -> None:
    """Remove builds that nobody has asked for in a long time; each is half a gigabyte."""
    for folder in fresh.folder.parent.iterdir():
        if folder.is_dir() and time.time() - folder.stat().st_mtime > _UNUSED_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked() -> Iterator[None]:
    """One builder at a time on this machine; leftovers of interrupted builds go first."""
    folder = cache_folder() / "kubernetes"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in folder.glob(".building-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


def _build(wanted: Plan, progress: Progress) -> Binaries:
    folder = cache_folder() / "kubernetes"
    with tempfile.TemporaryDirectory(prefix=".building-", dir=folder, ignore_cleanup_errors=True) as room:
        rough = Path(room) / "out"
        rough.mkdir()
        progress.say(f"first start: Kubernetes {wanted.kubernetes} is built from source, and kept in {folder}")
        title = f"building with {wanted.go_version}"
        seconds = _FETCH_SECONDS + _COLD_CPU_SECONDS / (os.cpu_count() or 1)
        with progress.step(title, expect_seconds=seconds) as step:
            _compile(wanted, rough, step)
            for before, after in _RENAMED.items():
                (rough / before).rename(rough / after)
            final = Binaries(folder / f"{wanted.source_key}-{wanted.go_version}")
            for name in _IMAGES:
                tree = Path(room) / name
                tree.mkdir()
                os.link(rough / name, tree / name)
                _, ref = final.image(name)
                oci.write_archive(rough / f"{name}.oci.tar", ref, layers=[tree], entrypoint=[f"/{name}"])
        rough.rename(final.folder)
    return final


def _compile(wanted: Plan, out: Path, step: StepHandle) -> None:
    argv = [str(wanted.go), "build", *_flags(wanted.kubernetes), "-o", f"{out}/", *_PACKAGES]
    seen: list[str] = []
    done = 0
    # Its half-done work lies where the next build finds and removes it: what kills Go keeps it from doing so.
    env = _env() | {"GOTMPDIR": str(out.parent)}
    with worker(argv, cwd=wanted.source, env=env, stdout=subprocess.DEVNULL) as process:
        for line in process.stderr or ():
            text = line.strip()
            seen = [*seen[-19:], text]
            if text.startswith("go: downloading"):
                step.update(text.removeprefix("go: "))
            else:
                done += 1
                step.update(text, min(0.99, done / _EXPECTED_PACKAGES))
    if process.returncode != 0:
        full = [text for text in seen if is_full(text)]
        if full:
            raise disk_full(
                f"`go build` says: {full[0]}",
                remedy=f"make room for {machine.BUILD_BYTES >> 30} GiB, or point XDG_CACHE_HOME (GOCACHE, GOMODCACHE) "
                "to a larger disk; the same command goes on with what is compiled already",
            )
        raise BadInput(
            "build-failed",
            "`go build` of the Kubernetes binaries failed:\n" + "\n".join(seen),
            expected="every pinned module fetched and compiled",
            remedy="look at the first error above; the Go module proxy must be reachable (`go env GOPROXY`)",
        )
