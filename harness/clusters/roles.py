"""Puts the harness' own part onto a cluster that we may set up: identities, roles, policies and the sweeper.

What was applied is noted on the namespace, with the fingerprint of the sweeper that came of it, so that a second call
asks once and writes nothing. A sweeper that somebody changed or removed is put back.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from harness.clusters import harness_image
from harness.clusters.kubectl import WRITE_TIMEOUT, Kubectl, checkout, rolled_out
from harness.clusters.provider import Access, ClusterProvider
from harness.core.errors import Unreachable
from harness.ports.progress import Progress

NAMESPACE = "drill-system"
SWEEPER = "drill-sweeper"
NOTE = "drill.internal/roles"
_FOLDERS = ("harness", "overlays/harness")
_START_TIMEOUT = 60.0


def install(provider: ClusterProvider, access: Access, progress: Progress) -> None:
    """Apply manifests/overlays/harness with an image of this checkout, and wait until the sweeper runs. Idempotent.

    Fields that somebody else has come to own are taken back: the namespace is the harness' own, and a role that was
    widened by hand is to be what the file says. Raises Unreachable with kubectl's own words where that failed, or
    where the sweeper does not start; BadInput where the image cannot be built.
    """
    repository, kubectl = checkout(), Kubectl(access)
    image = harness_image.build(repository, progress)
    wanted = _declared(repository, image.ref)
    noted, live, available = _look(kubectl)
    if noted != f"{wanted} {live}":
        with progress.step("harness image into the cluster", expect_seconds=4):
            provider.load_image(image.archive, image.ref)
        with progress.step("roles, policies and the sweeper", expect_seconds=3):
            objects = kubectl.render(repository / "manifests" / "overlays" / "harness", image.ref)
            command = ("apply", "--server-side", "--force-conflicts", "--field-manager=drill-setup", "--filename=-")
            kubectl.must(*command, body=objects, timeout=WRITE_TIMEOUT)
            _, live, available = _look(kubectl)
            kubectl.must("annotate", "--overwrite", "namespace", NAMESPACE, f"{NOTE}={wanted} {live}")
    if not available:
        _wait_sweeper(kubectl, progress)


def manifests() -> list[Path]:
    """The files that are applied, the kustomizations that put them together among them."""
    folders = [checkout() / "manifests" / folder for folder in _FOLDERS]
    return sorted(path for folder in folders for path in folder.rglob("*.yaml"))


def _declared(repository: Path, ref: str) -> str:
    """A digest of all that decides what ends up in the cluster."""
    content = hashlib.sha256(ref.encode())
    for path in manifests():
        content.update(f"\n{path.relative_to(repository)}\n".encode() + path.read_bytes())
    return content.hexdigest()[:32]


def _look(kubectl: Kubectl) -> tuple[str, str, bool]:
    """What was noted, what the sweeper is now, and whether it is available."""
    names = (f"namespace/{NAMESPACE}", f"deployment.apps/{SWEEPER}")
    out = kubectl.must("get", *names, "--namespace", NAMESPACE, "--ignore-not-found", "--output=json")
    noted, live, available = "", "", False
    for item in json.loads(out)["items"] if out.strip() else ():
        meta = item["metadata"]
        if item["kind"] == "Namespace":
            noted = meta.get("annotations", {}).get(NOTE, "")
        else:
            live, available = f"{meta['uid']}/{meta['generation']}", rolled_out(item)
    return noted, live, available


def _wait_sweeper(kubectl: Kubectl, progress: Progress) -> None:
    watch = ("rollout", "status", f"deployment/{SWEEPER}", "--namespace", NAMESPACE)
    with progress.step("the sweeper starts", expect_seconds=4):
        done = kubectl.run(*watch, f"--timeout={_START_TIMEOUT:.0f}s", timeout=_START_TIMEOUT + 10)
    if done.returncode == 0:
        return
    words = kubectl.run("logs", f"deployment/{SWEEPER}", "--namespace", NAMESPACE, "--tail=5")
    last = "; ".join(((words.stdout + words.stderr).strip() or done.stderr.strip()).splitlines()[-5:])
    raise Unreachable(
        "sweeper-not-running",
        f"the sweeper did not become available within {_START_TIMEOUT:.0f} s; it says last: {last}",
        expected="a sweeper that undoes what a dead run leaves",
        remedy=f"kubectl --namespace {NAMESPACE} describe pods; then the same command again",
    )
