"""Puts the harness' own identities and the inbox policy onto a cluster that we may set up.

What was applied is noted by its hash on the namespace, so that a second call asks once and writes nothing.
"""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from harness.clusters.provider import Access
from harness.core.errors import Unreachable
from harness.ports.progress import Progress

NAMESPACE = "drill-system"
NOTE = "drill.internal/roles"
MANIFESTS = Path(__file__).resolve().parents[2] / "manifests" / "harness"


def install(access: Access, progress: Progress) -> None:
    """Apply manifests/harness. Raises Unreachable with kubectl's own words where that failed.

    Fields that somebody else has come to own are taken back: the namespace is the harness' own, and a role that was
    widened by hand is to be what the file says.
    """
    wanted = _digest()
    path = r"{.metadata.annotations.drill\.internal/roles}"
    if _kubectl(access, "get", "namespace", NAMESPACE, "--ignore-not-found", "-o", f"jsonpath={path}") == wanted:
        return
    with progress.step("Installing the harness' roles and the inbox policy", expect_seconds=2):
        _kubectl(
            access, "apply", "--server-side", "--force-conflicts", "--field-manager=drill-setup", "-k", str(MANIFESTS)
        )
        _kubectl(access, "annotate", "--overwrite", "namespace", NAMESPACE, f"{NOTE}={wanted}")


def _digest() -> str:
    content = hashlib.sha256()
    for path in sorted(MANIFESTS.rglob("*.yaml")):
        content.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return content.hexdigest()[:32]


def _kubectl(access: Access, *arguments: str) -> str:
    command = [
        str(access.kubectl or "kubectl"), "--kubeconfig", str(access.kubeconfig), "--context", access.context,
        "--request-timeout=20s", *arguments,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise Unreachable(
            "roles-not-installed",
            f"kubectl {arguments[0]} failed: {done.stderr.strip()[-600:]}",
            expected="a cluster that accepts manifests/harness",
            remedy="read the message above; `drill cluster status` shows whether the cluster answers",
        )
    return done.stdout.strip()
