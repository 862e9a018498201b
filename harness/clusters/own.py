"""The cluster that this process runs in, as a pod: whoever set it up did so from outside."""

from __future__ import annotations

import os
from pathlib import Path

from harness.clusters.provider import Access, ClusterStatus
from harness.core.errors import BadInput, Refused
from harness.ports.progress import Progress

_HOST = "KUBERNETES_SERVICE_HOST"


def in_pod() -> bool:
    """Whether this process runs in a pod that may ask the API server."""
    return _HOST in os.environ


class OwnCluster:
    """Reached as the pod's ServiceAccount."""

    def up(self, progress: Progress) -> Access:
        """It is up, since this runs in it. Raises BadInput outside of a pod."""
        del progress
        if not in_pod():
            raise BadInput(
                "not-in-a-pod",
                f"this process runs in no pod: {_HOST} is not set",
                expected="a pod with a ServiceAccount's token",
                remedy="outside of the cluster, name a context: --cluster context --context NAME",
            )
        return Access("pod", "own", Path(), "", None)

    def down(self, progress: Progress) -> None:
        """Refuse: nobody saws off the branch that he sits on."""
        del progress
        raise Refused(
            "not-our-cluster",
            "the cluster that this pod runs in was not made by the harness",
            expected="`down` for a cluster of provider local or kind",
            remedy="remove it with the tool that made it",
        )

    def status(self) -> ClusterStatus:
        """Whether there is such a cluster; it is not asked anything."""
        if not in_pod():
            return ClusterStatus("pod", "own", "down", f"this process runs in no pod ({_HOST} is not set)")
        access = Access("pod", "own", Path(), "", None)
        return ClusterStatus("pod", "own", "up", f"API server at {os.environ[_HOST]}", access)

    def load_image(self, archive: Path, ref: str) -> None:
        """Refuse: a pod has no way to the node's images."""
        del archive
        raise Refused(
            "no-image-loading",
            f"{ref} cannot be put into the cluster from one of its pods",
            expected="a cluster of provider local or kind",
            remedy="push it to a registry that the cluster pulls from",
        )
