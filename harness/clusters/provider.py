"""What every place to drill in offers: a way up, a way down, a look, and images put where pods find them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from harness.ports.progress import Progress

ProviderName = Literal["local", "kind", "context", "pod"]


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach a cluster. `context` names an entry in `kubeconfig`; `kubectl` is a binary that fits it."""

    provider: ProviderName
    name: str
    kubeconfig: Path
    context: str
    kubectl: Path | None


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """What `drill cluster status` shows. `state` is one of down, up, broken; `detail` says why in a sentence."""

    provider: ProviderName
    name: str
    state: Literal["down", "up", "broken"]
    detail: str
    access: Access | None = None


class ClusterProvider(Protocol):
    """One way to have a cluster. All verbs are idempotent."""

    def up(self, progress: Progress) -> Access:
        """Make the cluster answer, DNS included. Raises BadInput with slug and remedy where it cannot."""

    def down(self, progress: Progress) -> None:
        """Leave nothing behind: no process, mount, interface, namespace or cgroup."""

    def status(self) -> ClusterStatus:
        """Look without changing anything."""

    def load_image(self, archive: Path, ref: str) -> None:
        """Put an OCI archive where the cluster's pods find it as `ref`; cheap when it is there already."""
