"""Where one local cluster keeps its things, and every name that is derived from the cluster's name."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import BadInput

DEFAULT_STATE = Path("/var/lib/drill")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,18}[a-z0-9])?")
_SOCKET_LIMIT = 107  # bytes in sockaddr_un.sun_path, without the closing zero
_LONGEST_SOCKET = "kubelet/pod-resources/kubelet.sock"


@dataclass(frozen=True, slots=True)
class Layout:
    """All paths and names of the cluster `name`; touches nothing."""

    name: str
    base: Path = DEFAULT_STATE

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise BadInput(
                "cluster-name",
                f"{self.name!r} cannot name a cluster",
                expected="1 to 20 lower-case letters, digits and dashes, starting and ending with a letter or digit",
                remedy="choose another name, for instance `drill`",
            )
        if len(os.fsencode(self.root / _LONGEST_SOCKET)) > _SOCKET_LIMIT:
            raise BadInput(
                "state-folder-too-deep",
                f"{self.root} is too long a path: unix sockets below it would not fit",
                expected=f"at most {_SOCKET_LIMIT} bytes for {_LONGEST_SOCKET} below it",
                remedy="use a shorter state folder",
            )

    @property
    def root(self) -> Path:
        """The state folder: all that the cluster writes; `down` removes it."""
        return self.base / self.name

    @property
    def lock(self) -> Path:
        """Held while somebody changes the cluster; beside the state folder, so that it outlives it."""
        return self.base / f".{self.name}.lock"

    @property
    def state_file(self) -> Path:
        """What `up` decided and how far it came."""
        return self.root / "state.json"

    @property
    def pki(self) -> Path:
        """Certificates and keys."""
        return self.root / "pki"

    @property
    def conf(self) -> Path:
        """Configuration files of the components, and their kubeconfigs."""
        return self.root / "conf"

    @property
    def run(self) -> Path:
        """Pid records and sockets."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """One log per component."""
        return self.root / "logs"

    @property
    def audit_log(self) -> Path:
        """What the harness' own identities asked of the API server, one JSON object a line."""
        return self.logs / "audit.log"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's way in, mode 0600."""
        return self.root / "kubeconfig"

    @property
    def containerd_socket(self) -> Path:
        """Where the container runtime listens."""
        return self.run / "containerd.sock"

    @property
    def tag(self) -> str:
        """Six hexadecimal digits that stand for the name where names must be short."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:6]

    @property
    def netns(self) -> str:
        """The network namespace, as `ip netns` lists it."""
        return f"drill-{self.name}"

    @property
    def netns_path(self) -> Path:
        """The network namespace, as nsenter wants it."""
        return Path("/run/netns") / self.netns

    @property
    def host_link(self) -> str:
        """The host's end of the one cable into the namespace."""
        return f"drill{self.tag}"

    @property
    def cgroup(self) -> str:
        """The control group, in every hierarchy, under which all pods of the cluster live."""
        return f"drill-{self.name}"

    @property
    def cni_network(self) -> str:
        """The pod network's name; plugins file their notes under it."""
        return f"drill-{self.name}"

    @property
    def node(self) -> str:
        """The Kubernetes node."""
        return f"{self.name}-node"

    @property
    def context(self) -> str:
        """The context in the kubeconfig."""
        return f"drill-local-{self.name}"
