"""Images put into the cluster's container runtime."""

from __future__ import annotations

import socket
from pathlib import Path

from harness.clusters import oci
from harness.clusters.shell import attempt, run

_NAMESPACE = "k8s.io"
_IMPORT_SECONDS = 300.0


def answers(door: Path) -> bool:
    """Whether the container runtime accepts connections."""
    with socket.socket(socket.AF_UNIX) as knock:
        try:
            knock.connect(str(door))
        except OSError:
            return False
    return True


def load(door: Path, archive: Path, ref: str) -> None:
    """Import `archive` unless the runtime holds exactly its content as `ref`."""
    digest = oci.digest_of(archive, ref)
    ctr = ["ctr", f"--address={door}", f"--namespace={_NAMESPACE}"]
    listing = attempt([*ctr, "images", "ls", f"name=={ref}"], timeout=30)
    if listing.returncode == 0 and digest in listing.stdout:
        return
    run([*ctr, "images", "import", str(archive)], timeout=_IMPORT_SECONDS)
