"""kubectl, for what a cluster that we may set up is filled with: bound to one cluster, bounded in time."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

from harness.clusters.provider import Access
from harness.core.errors import BadInput, Unreachable

READ_TIMEOUT = 20.0
WRITE_TIMEOUT = 60.0


class Kubectl:
    """kubectl bound to one cluster. Bodies go through standard input: arguments are visible to the whole machine."""

    def __init__(self, access: Access) -> None:
        self._prefix = [
            str(access.kubectl or "kubectl"),
            f"--kubeconfig={access.kubeconfig}",
            f"--context={access.context}",
        ]
        self._cluster = access.name

    def run(
        self, *args: str, body: str | None = None, timeout: float = READ_TIMEOUT
    ) -> subprocess.CompletedProcess[str]:
        """Run and return whatever came of it. Raises Unreachable after `timeout` seconds."""
        try:
            return subprocess.run(
                [*self._prefix, *args], input=body, capture_output=True, text=True, timeout=timeout, check=False
            )
        except FileNotFoundError as error:
            raise BadInput(
                "kubectl-missing",
                f"{self._prefix[0]} is not there",
                expected="a kubectl that fits the cluster",
                remedy="install kubectl, or use the one that `drill cluster up` builds",
            ) from error
        except subprocess.TimeoutExpired as error:
            raise Unreachable(
                "cluster-silent",
                f"`kubectl {' '.join(args[:3])}` did not end within {timeout:.0f} s",
                expected=f"cluster {self._cluster} to answer",
                remedy="drill cluster status",
            ) from error

    def must(self, *args: str, body: str | None = None, timeout: float = READ_TIMEOUT) -> str:
        """Run and return the output. Raises Unreachable where kubectl failed."""
        done = self.run(*args, body=body, timeout=timeout)
        if done.returncode != 0:
            raise Unreachable(
                "kubectl-failed",
                f"`kubectl {' '.join(args[:3])}` failed: {done.stderr.strip()}",
                expected=f"cluster {self._cluster} to accept it",
                remedy="drill cluster status; the message above is the API server's",
            )
        return done.stdout

    def render(self, overlay: Path, ref: str) -> str:
        """The objects of a kustomization with the tag of the image `ref`, without touching the checkout."""
        name, _, tag = ref.rpartition(":")
        with tempfile.TemporaryDirectory(prefix="drill-kustomize-") as room:
            # kustomize takes relative folders only, and reads them through symbolic links.
            here = Path(room).resolve()
            body = {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "resources": [os.path.relpath(overlay, here)],
                "images": [{"name": name, "newTag": tag}],
            }
            (here / "kustomization.yaml").write_text(yaml.safe_dump(body), encoding="utf-8")
            return self.must("kustomize", str(here))


def checkout() -> Path:
    """The checkout that this runs from. Raises BadInput where there is none."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "manifests" / "overlays").is_dir():
        raise BadInput(
            "manifests-missing",
            f"{root} holds no manifests/",
            expected="a checkout of the repository: what a cluster is filled with is not part of the installed package",
            remedy="clone the repository and install it from there with `pip install -e .`",
        )
    return root


def rolled_out(deployment: dict[str, Any]) -> bool:
    """Whether all replicas of a Deployment are there, new and available."""
    spec, status = deployment["spec"], deployment.get("status", {})
    wanted = spec.get("replicas", 1)
    return bool(
        status.get("observedGeneration") == deployment["metadata"]["generation"]
        and status.get("replicas", 0) == wanted
        and status.get("updatedReplicas", 0) == wanted
        and status.get("availableReplicas", 0) == wanted
    )
