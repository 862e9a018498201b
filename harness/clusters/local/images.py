"""Images put into the cluster's container runtime."""

from __future__ import annotations

import json
import socket
import tarfile
from pathlib import Path

from harness.clusters.local.shell import attempt, run
from harness.core.errors import BadInput

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


def digest_of(archive: Path, ref: str) -> str:
    """The manifest digest under which an OCI archive holds `ref`. Raises BadInput where it holds no such image."""
    try:
        with tarfile.open(archive) as tar:
            index = tar.extractfile("index.json")
            manifests = json.load(index)["manifests"] if index else []
    except (OSError, tarfile.TarError, KeyError, ValueError) as error:
        raise BadInput(
            "not-an-image",
            f"{archive} cannot be read as an OCI archive: {error}",
            expected="a tar file with an index.json",
            remedy="build the image again",
        ) from error
    for entry in manifests:
        if entry.get("annotations", {}).get("io.containerd.image.name") == ref:
            return str(entry["digest"])
    raise BadInput(
        "image-not-in-archive",
        f"{archive} does not hold {ref}",
        expected=f"an image named {ref} in its index",
        remedy="build the archive under that name",
    )


def load(door: Path, archive: Path, ref: str) -> None:
    """Import `archive` unless the runtime holds exactly its content as `ref`."""
    digest = digest_of(archive, ref)
    ctr = ["ctr", f"--address={door}", f"--namespace={_NAMESPACE}"]
    listing = attempt([*ctr, "images", "ls", f"name=={ref}"], timeout=30)
    if listing.returncode == 0 and digest in listing.stdout:
        return
    run([*ctr, "images", "import", str(archive)], timeout=_IMPORT_SECONDS)
