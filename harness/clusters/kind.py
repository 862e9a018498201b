"""A kind cluster: a node in a Docker container, made by the kind command.

Pinned to kind v0.33.0, with which the recipe was proved; other versions are used as found, and said.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.clusters import marker, oci
from harness.clusters.provider import Access, ClusterStatus
from harness.core.errors import BadInput, Unreachable
from harness.ports.progress import Progress

KIND_VERSION = "v0.33.0"
_CREATE_SECONDS = 300.0
_NAMES_SECONDS = 120
_LOAD_SECONDS = 300.0
_LOOK_SECONDS = 15.0
_CONFIG = {
    "kind": "Cluster",
    "apiVersion": "kind.x-k8s.io/v1alpha4",
    "nodes": [{"role": "control-plane"}],  # no port mappings: everything goes through the API server
}

Runner = Callable[[Sequence[str], float, str | None], "subprocess.CompletedProcess[str]"]
"""Runs a command line with a limit in seconds and a text for stdin; never raises for an exit code."""


def run_tool(argv: Sequence[str], seconds: float, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """The real runner; a command that is not there or takes too long looks like one that failed."""
    try:
        return subprocess.run(
            list(argv),
            input=stdin or "",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(list(argv), 127, "", str(error))


def docker_answers(run: Runner = run_tool) -> bool:
    """Whether a Docker engine answers this user."""
    return run(["docker", "version", "--format", "{{.Server.Version}}"], _LOOK_SECONDS, None).returncode == 0


def kind_found() -> bool:
    """Whether the kind command is on PATH."""
    return shutil.which("kind") is not None


class KindCluster:
    """The kind cluster `name`; its kubeconfig is kept apart from the user's own."""

    def __init__(
        self,
        name: str = "drill",
        *,
        run: Runner = run_tool,
        find: Callable[[str], str | None] = shutil.which,
        state_folder: Path | None = None,
    ) -> None:
        base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
        self._name = name
        self._run = run
        self._find = find
        self._folder = (state_folder or Path(base) / "drill" / "kind") / name

    def up(self, progress: Progress) -> Access:
        """Make the cluster answer, names included. Raises BadInput where kind or Docker are missing."""
        self._refuse_unfit()
        version = self._tool(["kind", "version"], _LOOK_SECONDS)
        if KIND_VERSION not in version.split():
            progress.say(f"found {version.strip()}; this was proved with kind {KIND_VERSION}")
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with progress.step(f"kind cluster {self._name}", expect_seconds=60) as step:
            if self._name not in self._clusters():
                step.update("creating")
                self._create()
            self._tool(["kind", "export", "kubeconfig", *self._named(), *self._kubeconfig_flag()], _LOOK_SECONDS)
            self._kubeconfig.chmod(0o600)
            step.update("marker")
            self._tool([*self._kubectl(), "apply", "-f", "-"], 60, marker.as_text(marker.objects()))
            step.update("name service")
            wait = ["rollout", "status", "deployment/coredns", f"--timeout={_NAMES_SECONDS}s"]
            self._tool([*self._kubectl(), "--namespace=kube-system", *wait], _NAMES_SECONDS + 10)
        return self._access()

    def down(self, progress: Progress) -> None:
        """Delete the cluster and its kubeconfig; silent when there is none."""
        self._refuse_unfit()
        if self._name in self._clusters():
            with progress.step(f"deleting kind cluster {self._name}", expect_seconds=2):
                self._tool(["kind", "delete", "cluster", *self._named(), *self._kubeconfig_flag()], 120)
        shutil.rmtree(self._folder, ignore_errors=True)

    def status(self) -> ClusterStatus:
        """Look without changing anything; without Docker or kind there can be no cluster."""
        try:
            self._refuse_unfit()
            if self._name not in self._clusters():
                return ClusterStatus("kind", self._name, "down", "kind knows no such cluster")
            self._tool([*self._kubectl(), "get", "--raw", "/readyz"], _LOOK_SECONDS)
        except BadInput as error:
            return ClusterStatus("kind", self._name, "down", error.fact)
        except Unreachable as error:
            return ClusterStatus("kind", self._name, "broken", error.fact)
        if not self._kubeconfig.exists():
            return ClusterStatus("kind", self._name, "broken", f"{self._kubeconfig} is missing; `up` writes it again")
        return ClusterStatus("kind", self._name, "up", "the API server is ready", self._access())

    def load_image(self, archive: Path, ref: str) -> None:
        """Load an OCI archive into the node unless it holds exactly that content as `ref`."""
        digest = oci.digest_of(archive, ref)
        inside = ["docker", "exec", self._node, "ctr", "--namespace=k8s.io", "images", "ls", f"name=={ref}"]
        listing = self._run(inside, _LOOK_SECONDS, None)
        if listing.returncode == 0 and digest in listing.stdout:
            return
        self._tool(["kind", "load", "image-archive", str(archive), *self._named()], _LOAD_SECONDS)

    @property
    def _node(self) -> str:
        return f"{self._name}-control-plane"

    @property
    def _kubeconfig(self) -> Path:
        return self._folder / "kubeconfig"

    def _named(self) -> list[str]:
        return ["--name", self._name]

    def _kubeconfig_flag(self) -> list[str]:
        return ["--kubeconfig", str(self._kubeconfig)]

    def _kubectl(self) -> list[str]:
        """The node's own kubectl: it fits the cluster, and the host needs none."""
        config = "--kubeconfig=/etc/kubernetes/admin.conf"
        return ["docker", "exec", "--interactive", self._node, "kubectl", config]

    def _create(self) -> None:
        argv = [
            "kind",
            "create",
            "cluster",
            *self._named(),
            *self._kubeconfig_flag(),
            "--wait",
            "120s",
            "--config",
            "-",
        ]
        self._tool(argv, _CREATE_SECONDS, json.dumps(_CONFIG))

    def _clusters(self) -> list[str]:
        return self._tool(["kind", "get", "clusters"], _LOOK_SECONDS).split()

    def _access(self) -> Access:
        kubectl = self._find("kubectl")
        return Access("kind", self._name, self._kubeconfig, f"kind-{self._name}", Path(kubectl) if kubectl else None)

    def _refuse_unfit(self) -> None:
        if self._find("docker") is None:
            raise BadInput(
                "no-docker",
                "there is no `docker` command on PATH",
                expected="a Docker engine and its command",
                remedy="install Docker, or use `--provider local` on Linux as root",
            )
        if not docker_answers(self._run):
            raise BadInput(
                "docker-silent",
                "the Docker engine does not answer",
                expected="`docker version` naming a server",
                remedy="start Docker, and see that this user may use it; or use `--provider local` on Linux as root",
            )
        if self._find("kind") is None:
            raise BadInput(
                "no-kind",
                "there is no `kind` command on PATH",
                expected=f"kind {KIND_VERSION}",
                remedy=f"`go install sigs.k8s.io/kind@{KIND_VERSION}`, and put Go's bin folder on PATH",
            )

    def _tool(self, argv: Sequence[str], seconds: float, stdin: str | None = None) -> str:
        done = self._run(argv, seconds, stdin)
        if done.returncode != 0:
            words = (done.stderr.strip() or done.stdout.strip())[-2000:]
            raise Unreachable(
                "tool-failed",
                f"`{' '.join(argv)}` ended with exit code {done.returncode}: {words}",
                expected=f"exit code 0 within {seconds:g} s",
                remedy=f"remove what the message names; `kind delete cluster --name {self._name}` starts afresh",
            )
        return done.stdout
