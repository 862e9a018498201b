"""Control groups, of the first and the second version, as far as a cluster needs a corner of its own."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.clusters.local.processes import Identity, identify

_OCTAL = re.compile(r"\\([0-7]{3})")

_NEEDED = {"cpu", "cpuset", "memory", "hugetlb", "pids"}  # what the kubelet looks for in version 2


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/PID/mountinfo, as far as it matters here."""

    point: Path
    kind: str
    options: frozenset[str]
    controllers: frozenset[str]


def parse_mounts(mountinfo: str) -> list[Mount]:
    """All mounts, in mount order."""
    found = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        before, after = left.split(), right.split()
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), before[4])
        found.append(Mount(Path(point), after[0], frozenset(before[5].split(",")), frozenset(after[2].split(","))))
    return found


def mounts() -> list[Mount]:
    """What this process sees mounted now."""
    return parse_mounts(Path("/proc/self/mountinfo").read_text(errors="replace"))


def hierarchies(seen: list[Mount]) -> list[Mount]:
    """The control-group file systems, each once, whichever version."""
    return list({mount.point: mount for mount in seen if mount.kind in ("cgroup", "cgroup2")}.values())


def memory_hierarchy(seen: list[Mount]) -> Mount | None:
    """The hierarchy that limits memory, or None where the kernel does not offer it."""
    for mount in hierarchies(seen):
        if mount.kind == "cgroup" and "memory" in mount.controllers:
            return mount
        if mount.kind == "cgroup2" and "memory" in _words(mount.point / "cgroup.controllers"):
            return mount
    return None


def make(group: str) -> None:
    """Make the corner `group` in every hierarchy that has one to give; the kubelet demands it before it starts."""
    for mount in hierarchies(mounts()):
        if "ro" in mount.options:
            continue
        if mount.kind == "cgroup2":
            for controller in _NEEDED & set(_words(mount.point / "cgroup.controllers")):
                with suppress(OSError):  # refused where the root holds processes; the parent has switched it on then
                    (mount.point / "cgroup.subtree_control").write_text(f"+{controller}")
        with suppress(OSError):  # a hierarchy of no use here may refuse; the kubelet names those that it misses
            (mount.point / group).mkdir(exist_ok=True)
            if "cpuset" in mount.controllers:
                for file in ("cpuset.cpus", "cpuset.mems"):
                    (mount.point / group / file).write_text((mount.point / file).read_text())


def members(group: str) -> list[Identity]:
    """All processes anywhere below `group`."""
    pids: set[int] = set()
    for folder in _folders(group):
        pids.update(int(pid) for pid in _words(folder / "cgroup.procs"))
    return [identity for pid in sorted(pids) if (identity := identify(pid))]


def remove(group: str, *, seconds: float) -> list[Path]:
    """Remove `group` from every hierarchy; answer what would not go within `seconds`, normally nothing."""
    deadline = time.monotonic() + seconds
    while True:
        for folder in _folders(group):
            with suppress(OSError):  # busy for a moment after its last process ended
                folder.rmdir()
        left = _folders(group)
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


def remains(group: str) -> list[Path]:
    """The folders of `group` that are there."""
    return _folders(group)


def _folders(group: str) -> list[Path]:
    """All folders of `group`, deepest first."""
    found = []
    for mount in hierarchies(mounts()):
        for folder, _, _ in os.walk(mount.point / group, topdown=False):
            found.append(Path(folder))
    return found


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
