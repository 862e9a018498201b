"""What the machine must offer, looked at before anything is changed, each lack told with its remedy."""

from __future__ import annotations

import os
import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from harness.clusters.local import cgroups
from harness.core.errors import BadInput

_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
_GIB = 1 << 30
BUILD_BYTES = 6 * _GIB
"""Free disk for the build: Go's module and build caches, and the binaries."""
LEAST_BYTES = 128 << 20
"""With less free disk than this etcd does not start: it sets 64 MiB aside, twice."""
RUN_BYTES = 2 * _GIB
"""Free disk for a running cluster: images, containers, etcd, logs."""
GO_PLACES = ("/usr/local/go/bin/go", "/usr/lib/go/bin/go", "/snap/bin/go")


@dataclass(frozen=True, slots=True)
class Facts:
    """The machine as it was found. Bytes where sizes are meant."""

    system: str
    uid: int
    lacking_capabilities: tuple[str, ...]
    memory_cgroup: bool
    memory_cgroup_writable: bool
    missing_packages: tuple[str, ...]
    apt: bool
    build_needed: bool
    go_version: str | None
    go_needed: str
    state: Path
    free_state_bytes: int
    cache: Path
    free_cache_bytes: int


def effective_user() -> int:
    """The user id whose rights this process has."""
    return os.geteuid()


def find_go() -> str | None:
    """The go command, on PATH or where its installer puts it."""
    return shutil.which("go") or next((place for place in GO_PLACES if Path(place).exists()), None)


def lacking_capabilities(status: str) -> tuple[str, ...]:
    """Which needed capabilities a /proc/PID/status text does not show as effective."""
    match = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    effective = int(match[1], 16) if match else 0
    return tuple(name for name, bit in _CAPABILITIES.items() if not effective >> bit & 1)


def release(version: str) -> tuple[int, ...]:
    """`go1.26.8`, `1.25` and the like as numbers that compare; () when there is no number in it."""
    match = re.search(r"(\d+(?:\.\d+)*)", version)
    return tuple(int(part) for part in match[1].split(".")) if match else ()


def free_bytes(folder: Path) -> int:
    """Free disk under `folder`, or under its nearest parent that exists."""
    place = folder
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def gather(
    *,
    missing_packages: tuple[str, ...],
    build_needed: bool,
    go_version: str | None,
    go_needed: str,
    state: Path,
    cache: Path,
) -> Facts:
    """Look at the machine; changes nothing."""
    linux = platform.system() == "Linux"
    memory = cgroups.memory_hierarchy(cgroups.mounts()) if linux else None
    status = Path("/proc/self/status").read_text() if linux else ""
    return Facts(
        system=platform.system(),
        uid=os.geteuid(),
        lacking_capabilities=lacking_capabilities(status),
        memory_cgroup=memory is not None,
        memory_cgroup_writable=memory is not None and "ro" not in memory.options,
        missing_packages=missing_packages,
        apt=shutil.which("apt-get") is not None,
        build_needed=build_needed,
        go_version=go_version,
        go_needed=go_needed,
        state=state,
        free_state_bytes=free_bytes(state),
        cache=cache,
        free_cache_bytes=free_bytes(cache),
    )


def refuse_unfit(facts: Facts) -> None:
    """Raise BadInput for the first thing that the machine lacks; silent on a machine that will do."""
    _refuse_kernel(facts)
    _refuse_software(facts)
    _refuse_disk(facts)


def _refuse_kernel(facts: Facts) -> None:
    if facts.system != "Linux":
        raise BadInput(
            "not-linux",
            f"this machine runs {facts.system or 'an unknown system'}",
            expected="Linux: the local cluster runs on this machine's own kernel",
            remedy="use `--provider kind` with a Docker engine, or `--context` with a staging cluster",
        )
    if facts.uid != 0:
        raise BadInput(
            "not-root",
            f"this command runs as user id {facts.uid}",
            expected="root: the local cluster makes a network namespace, mounts and control groups",
            remedy="run it with sudo, or use `--provider kind` or `--context`",
        )
    if facts.lacking_capabilities:
        raise BadInput(
            "missing-capability",
            f"root lacks {', '.join(facts.lacking_capabilities)} here, as in an unprivileged container",
            expected="the rights to make namespaces and mounts",
            remedy="run it on the host or in a privileged container, or use `--context` with a staging cluster",
        )
    if not facts.memory_cgroup:
        raise BadInput(
            "no-memory-cgroup",
            "the kernel offers no memory control group",
            expected="the memory controller, without which no pod is ever OOMKilled",
            remedy="boot with `cgroup_enable=memory`, mount /sys/fs/cgroup, or use `--context` with a staging cluster",
        )
    if not facts.memory_cgroup_writable:
        raise BadInput(
            "cgroup-read-only",
            "the memory control group is mounted read-only",
            expected="a writable /sys/fs/cgroup",
            remedy="run it on the host or in a container with writable control groups",
        )


def _refuse_software(facts: Facts) -> None:
    if facts.missing_packages and not facts.apt:
        raise BadInput(
            "no-apt",
            f"missing: {', '.join(facts.missing_packages)}; and there is no apt-get to install it with",
            expected="Debian or Ubuntu, or these packages installed in another way",
            remedy=f"install {' '.join(facts.missing_packages)} with this system's package manager",
        )
    if not facts.build_needed:
        return
    if facts.go_version is None:
        raise BadInput(
            "no-go",
            "there is no `go` command on PATH",
            expected=f"Go {facts.go_needed} or newer, to build the Kubernetes binaries once",
            remedy="install Go from https://go.dev/dl/ and put its bin folder on PATH",
        )
    if release(facts.go_version) < release(facts.go_needed):
        raise BadInput(
            "go-too-old",
            f"the `go` command is {facts.go_version}",
            expected=f"Go {facts.go_needed} or newer, to build the Kubernetes binaries once",
            remedy="install a newer Go from https://go.dev/dl/ and put its bin folder first on PATH",
        )


def _refuse_disk(facts: Facts) -> None:
    needs = [(facts.state, facts.free_state_bytes, RUN_BYTES, "")]
    if facts.build_needed:
        larger = ", or point XDG_CACHE_HOME to a larger one"
        needs.append((facts.cache, facts.free_cache_bytes, BUILD_BYTES, larger))
    for folder, free, needed, more in needs:
        if free < needed:
            raise BadInput(
                "disk-too-small",
                f"{free / _GIB:.1f} GiB are free for {folder}",
                expected=f"at least {needed / _GIB:.0f} GiB",
                remedy=f"make room on that disk{more}",
            )
