"""Taking a cluster away, whatever state it is in, by what is provably its own."""

from __future__ import annotations

import re
import shutil
import socket
from contextlib import suppress
from pathlib import Path

from harness.clusters.local import cgroups, network, processes
from harness.clusters.local.layout import Layout
from harness.clusters.local.processes import Identity
from harness.clusters.shell import attempt
from harness.core.errors import Internal

_PATIENCE_SECONDS = 20.0
_SHIM_SOCKET = re.compile(r"/run/containerd/s/[0-9a-f]{64}")
_LOG_LINKS = Path("/var/log/containers")
_CNI_NOTES = Path("/var/lib/cni/results")
_DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins")


def own_processes(layout: Layout) -> list[Identity]:
    """Recorded daemons, whatever lives in our network namespace or control group, and our containers' keepers."""
    found = {identity for record in layout.run.glob("*.pid") if (identity := processes.recorded(record))}
    found.update(processes.inside_namespace(layout.netns_path))
    found.update(cgroups.members(layout.cgroup))
    found.update(_shims(layout))
    return sorted(found, key=lambda identity: identity.pid)


def _shims(layout: Layout) -> list[Identity]:
    """Keepers of containers that serve our runtime: they outlive it, and a namespace that somebody else deleted."""
    found = []
    for pid in processes.everyone():
        identity = processes.identify(pid)  # first, so that a pid that changes hands meanwhile is not killed
        words = processes.command(pid)
        keeper = bool(words) and Path(words[0]).name.startswith("containerd-shim")
        if identity is not None and keeper and str(layout.containerd_socket) in words:
            found.append(identity)
    return found


def own_mounts(layout: Layout) -> list[Path]:
    """Mount points below the state folder, last mounted first."""
    return [mount.point for mount in reversed(cgroups.mounts()) if mount.point.is_relative_to(layout.root)]


def remains(layout: Layout) -> bool:
    """Whether anything of the cluster is there."""
    return (
        layout.root.exists()
        or layout.netns_path.exists()
        or bool(own_processes(layout))
        or bool(cgroups.remains(layout.cgroup))
    )


def sweep(layout: Layout) -> None:
    """Remove everything of the cluster. Raises Internal, naming it, when something will not go."""
    shims = _shim_sockets(layout)
    survivors = processes.kill_all(lambda: own_processes(layout), seconds=_PATIENCE_SECONDS)
    if survivors:
        _stuck("processes", [str(identity.pid) for identity in survivors])
    for point in own_mounts(layout):
        if attempt(["umount", str(point)], timeout=30).returncode != 0:
            attempt(["umount", "--lazy", str(point)], timeout=30)
    left = own_mounts(layout)
    if left:
        _stuck("mounts", [str(point) for point in left])
    network.unwire(layout)
    groups = cgroups.remove(layout.cgroup, seconds=_PATIENCE_SECONDS)
    if groups:
        _stuck("control groups", [str(group) for group in groups])
    for path in shims:
        path.unlink(missing_ok=True)
    _remove_shared_notes(layout)
    if layout.root.exists():
        shutil.rmtree(layout.root)


def _stuck(what: str, which: list[str]) -> None:
    raise Internal(
        "cluster-remains",
        f"{what} of the cluster are still there: {', '.join(which)}",
        expected=f"all {what} gone within {_PATIENCE_SECONDS:g} s",
        remedy="see what holds them, then run `drill cluster down` again",
    )


def _shim_sockets(layout: Layout) -> list[Path]:
    """The sockets of the containers' keepers; these lie outside the state folder, and only their notes tell where."""
    bundles = layout.run / "containerd"
    found: set[str] = set()
    for note in ("address", "bootstrap.json"):  # containerd 1 writes the one, containerd 2 the other
        for file in bundles.glob(f"io.containerd.runtime.v2.task/*/*/{note}"):
            with suppress(OSError):
                found.update(_SHIM_SOCKET.findall(file.read_text(errors="replace")))
    return [Path(path) for path in sorted(found)]


def _remove_shared_notes(layout: Layout) -> None:
    """What the kubelet and the network plugins leave in folders that all clusters share."""
    for link in _entries(_LOG_LINKS):
        if link.is_symlink() and link.readlink().is_relative_to(layout.root):
            link.unlink()
    # Each pod has a note of our network and one of its loopback interface, which only the pod's id tells apart.
    ours = re.compile(re.escape(layout.cni_network) + "-([0-9a-f]{64})-")
    notes = _entries(_CNI_NOTES)
    pods = {match[1] for note in notes if (match := ours.match(note.name))}
    for base in (layout.run / "containerd", layout.root / "containerd"):
        pods.update(path.name for path in base.glob("io.containerd.grpc.v1.cri/sandboxes/*"))
    for note in notes:
        if any(f"-{pod}-" in note.name for pod in pods):
            note.unlink(missing_ok=True)
    door = _DEVICE_PLUGINS / "kubelet.sock"
    if _is_answered(door):
        return  # another kubelet lives here and uses these folders
    if door.is_socket():
        for file in (door, _DEVICE_PLUGINS / "DEPRECATION"):
            file.unlink(missing_ok=True)
    for folder in (_LOG_LINKS, _CNI_NOTES, _CNI_NOTES.parent, _DEVICE_PLUGINS, _DEVICE_PLUGINS.parent):
        with suppress(OSError):  # not empty, or not there: somebody else's, or nobody's
            folder.rmdir()


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _is_answered(door: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as knock:
        knock.settimeout(1)
        try:
            knock.connect(str(door))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True
