"""A kind cluster: a node in a Docker container, made by the kind command.

Kind and its node image are pinned together, as kind's release notes pair them. A cluster that is there already is taken
whatever made it; what the harness did not make it does not delete.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.clusters import marker, oci
from harness.clusters.provider import Access, ClusterStatus
from harness.core.clock import parse_utc
from harness.core.errors import BadInput, DrillError, Refused, Unreachable
from harness.ports.progress import Progress, StepHandle

KIND_VERSION = "v0.33.0"
NODE_IMAGE = "kindest/node:v1.34.11@sha256:44e222ee2132dab25ff87301682f89eb82c7880ea3a1bf543bfe9708fd08d67d"
IMAGE_VARIABLE = "DRILL_KIND_IMAGE"
"""Names another node image, for those whose Docker engine reaches no public registry or whose kind is another one."""
ROOM_BYTES = 2 << 30
"""Free disk that Docker needs for a new cluster, and for the images that go into it."""
_LEAST_BYTES = 256 << 20  # with less than this pods do not start, nor does etcd
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,48}[a-z0-9])?")
_BALANCER = "external-load-balancer"
_CREATE_SECONDS = 600.0  # a node image of half a gigabyte may have to be fetched
_READY_SECONDS = 120.0
_NAMES_SECONDS = 120
_LOAD_SECONDS = 300.0
_LOOK_SECONDS = 15.0
_PAUSE_SECONDS = 0.5

Runner = Callable[[Sequence[str], float, str | None], "subprocess.CompletedProcess[str]"]
"""Runs a command line with a limit in seconds and a text for stdin; never raises for an exit code."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What the words of a failed tool mean: the slug, and what to do."""

    pattern: str
    slug: str
    remedy: str


_FULL = _Known(
    r"(?i)no space left on device|disk quota exceeded",
    "disk-full",
    "make room where Docker keeps its data: `docker system df` shows what is there, `docker system prune` removes what "
    "nothing uses; then the same command again",
)
# In this order: Docker's refusals of a user come with words of their own, whatever was asked.
_KNOWN = (
    _Known(
        r"permission denied.*(docker\.sock|docker daemon|docker API|dial unix)",
        "docker-denied",
        "let this user use Docker (`sudo usermod -aG docker $USER`, then log in again), or run this as a user who may",
    ),
    _Known(
        r"[Cc]annot connect to the Docker daemon|failed to connect to the docker API|error during connect",
        "docker-silent",
        "start Docker, and see that DOCKER_HOST or `docker context` names it; or use `--provider local` as root",
    ),
    _FULL,
    _Known(
        r"is already in use by container|node\(s\) already exist",
        "kind-name-taken",
        "a container that is no kind node has that name: `docker ps --all` shows it; rename or remove it, or choose "
        "another name with --name",
    ),
    _Known(
        r"address already in use|port is already allocated",
        "kind-port-taken",
        "something else has the port that the message names, where this cluster's API server was published: `ss -ltnp` "
        "shows what; end it, or `drill cluster down --provider kind` first: a new cluster gets a free port",
    ),
    _Known(
        r"failed to pull image|pull access denied|manifest unknown",
        "kind-image-missing",
        f"see that Docker reaches a registry, or load a node image into it and name that by {IMAGE_VARIABLE}",
    ),
)  # fmt: skip


def run_tool(argv: Sequence[str], seconds: float, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """The real runner; a command that is not there or takes too long looks like one that failed."""
    # All else here speaks to Docker, so kind must not make the nodes elsewhere.
    env = dict(os.environ) | {"KIND_EXPERIMENTAL_PROVIDER": "docker"}
    try:
        return subprocess.run(
            list(argv),
            input=stdin or "",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
            env=env,
            close_fds=False,  # the lock is theirs too, see `_alone`
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(list(argv), 127, "", str(error))


def free_bytes(folder: Path) -> int | None:
    """Free disk under a folder; None where it cannot be seen."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def usable(name: str, run: Runner = run_tool, find: Callable[[str], str | None] = shutil.which) -> bool:
    """Whether kind is what somebody means who named no provider: Docker answers, and kind has a cluster of that name or
    would make one as it is pinned."""
    if find("kind") is None or _asked(run).returncode != 0:
        return False
    if os.environ.get(IMAGE_VARIABLE) or _is_pinned(run(["kind", "version"], _LOOK_SECONDS, None).stdout):
        return True
    return name in run(["kind", "get", "clusters"], _LOOK_SECONDS, None).stdout.split()


def _is_pinned(version: str) -> bool:
    return KIND_VERSION in version.split()


def _asked(run: Runner) -> subprocess.CompletedProcess[str]:
    return run(["docker", "version", "--format", "{{.Server.Version}}"], _LOOK_SECONDS, None)


class KindCluster:
    """The kind cluster `name`; its kubeconfig is kept apart from the user's own.

    Raises BadInput for a name that kind does not take.
    """

    def __init__(
        self,
        name: str = "drill",
        *,
        run: Runner = run_tool,
        find: Callable[[str], str | None] = shutil.which,
        state_folder: Path | None = None,
        now: Callable[[], float] = time.time,
        free: Callable[[Path], int | None] = free_bytes,
    ) -> None:
        if not _NAME.fullmatch(name):
            raise BadInput(
                "cluster-name",
                f"{name!r} cannot name a kind cluster",
                expected="1 to 50 lower-case letters, digits, dots and dashes; a letter or digit at both ends",
                remedy="`kind get clusters` lists the names that are there",
            )
        base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
        self._name = name
        self._run = run
        self._find = find
        self._states = state_folder or Path(base) / "drill" / "kind"
        self._folder = self._states / name
        self._now = now
        self._free = free

    def up(self, progress: Progress) -> Access:
        """Make the cluster answer, names included.

        Raises BadInput where kind, Docker or what makes the images for it are missing or not fit, Refused where the
        cluster says that it is no staging cluster, Unreachable with the words of the tool that failed.
        """
        from harness.clusters import harness_image, rootfs, staging_image
        from harness.clusters.kubectl import checkout

        self._refuse_unfit()
        for image in (staging_image, harness_image):
            rootfs.refuse_unmakeable(image.lists(checkout()), self._find)
        with self._alone(progress), progress.step(f"kind cluster {self._name}", expect_seconds=60) as step:
            there = self._name in self._clusters()
            if there and self._is_half_made():
                step.update("removing what an interrupted creation left")
                self._delete()
                there = False
            if not there:
                step.update("creating")
                self._create()
            else:
                self._wake(step)
            self._tool(["kind", "export", "kubeconfig", *self._named(), *self._kubeconfig_flag()], _LOOK_SECONDS)
            self._kubeconfig.chmod(0o600)
            step.update("marker")
            self._mark(progress)
            step.update("name service")
            wait = ["rollout", "status", "deployment/coredns", f"--timeout={_NAMES_SECONDS}s"]
            self._tool([*self._kubectl(), "--namespace=kube-system", *wait], _NAMES_SECONDS + 10)
            self._fetch_kubectl()
        return self._access()

    def down(self, progress: Progress) -> None:
        """Delete the cluster and its kubeconfig; silent when there is none. Raises Refused where the harness did not
        make it."""
        self._refuse_unfit()
        with self._alone(progress):
            if self._name in self._clusters():
                if not self._is_ours():
                    raise Refused(
                        "not-our-cluster",
                        f"the kind cluster {self._name} was not made by the harness",
                        expected="`down` for a cluster that `up` made on this machine",
                        remedy=f"`kind delete cluster --name {self._name}` deletes it; `drill recover` puts back "
                        "what a drill changed",
                    )
                with progress.step(f"deleting kind cluster {self._name}", expect_seconds=2):
                    self._delete()
            shutil.rmtree(self._folder, ignore_errors=True)

    def status(self) -> ClusterStatus:
        """Look without changing anything; without Docker or kind there can be no cluster."""
        try:
            self._refuse_unfit()
            if self._name not in self._clusters():
                return ClusterStatus("kind", self._name, "down", "kind knows no such cluster")
            if not all(self._containers().values()):
                return ClusterStatus("kind", self._name, "broken", "its node is stopped; `up` starts it")
            self._tool([*self._kubectl(), "get", "--raw", "/readyz"], _LOOK_SECONDS)
        except BadInput as error:
            return ClusterStatus("kind", self._name, "down", error.fact)
        except Unreachable as error:
            return ClusterStatus("kind", self._name, "broken", error.fact)
        if not self._kubeconfig.exists():
            return ClusterStatus("kind", self._name, "broken", f"{self._kubeconfig} is missing; `up` writes it again")
        return ClusterStatus("kind", self._name, "up", "the API server is ready", self._access())

    def load_image(self, archive: Path, ref: str) -> None:
        """Load an OCI archive into the nodes unless each of them holds exactly that content as `ref`."""
        digest = oci.digest_of(archive, ref)

        def holds(node: str) -> bool:
            inside = ["docker", "exec", node, "ctr", "--namespace=k8s.io", "images", "ls", f"name=={ref}"]
            listing = self._run(inside, _LOOK_SECONDS, None)
            return listing.returncode == 0 and digest in listing.stdout

        if not all(holds(node) for node in self._containers(nodes=True)):
            self._tool(["kind", "load", "image-archive", str(archive), *self._named()], _LOAD_SECONDS)

    @property
    def _node(self) -> str:
        return f"{self._name}-control-plane"

    @property
    def _kubeconfig(self) -> Path:
        return self._folder / "kubeconfig"

    @property
    def _note(self) -> Path:
        """Which cluster of that name is the harness' own: the id of its first node; "" while it is being made."""
        return self._folder / "made.json"

    def _named(self) -> list[str]:
        return ["--name", self._name]

    def _kubeconfig_flag(self) -> list[str]:
        return ["--kubeconfig", str(self._kubeconfig)]

    def _kubectl(self) -> list[str]:
        """The node's own kubectl: it fits the cluster, and the host needs none."""
        config = "--kubeconfig=/etc/kubernetes/admin.conf"
        return ["docker", "exec", "--interactive", self._node, "kubectl", config]

    @contextmanager
    def _alone(self, progress: Progress) -> Iterator[None]:
        """One at a time makes or deletes this cluster. A tool that outlives a killed harness keeps the lock until it
        ends: kind cleans up behind a creation that failed, by name, and must not meet the next one."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._states / f".{self._name}.lock").open("w") as lock:
            os.set_inheritable(lock.fileno(), True)  # noqa: FBT003 - it takes no names
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress.say(f"somebody else makes or deletes kind cluster {self._name}: waiting")
                fcntl.flock(lock, fcntl.LOCK_EX)
            self._folder.mkdir(exist_ok=True, mode=0o700)  # whoever had the lock may have removed it
            yield

    def _create(self) -> None:
        image = os.environ.get(IMAGE_VARIABLE)
        version = self._tool(["kind", "version"], _LOOK_SECONDS).strip()
        if not image and not _is_pinned(version):
            raise BadInput(
                "kind-version",
                f"the `kind` command on PATH is {version or 'of an unknown version'}",
                expected=f"kind {KIND_VERSION}, whose node image of Kubernetes v1.34 is pinned by its digest",
                remedy=f"`go install sigs.k8s.io/kind@{KIND_VERSION}`; or name a node image of your kind by "
                f"{IMAGE_VARIABLE}; or make the cluster yourself: `kind create cluster --name {self._name}`",
            )
        self._refuse_small_disk()
        config = {
            "kind": "Cluster",
            "apiVersion": "kind.x-k8s.io/v1alpha4",
            # No port mappings: everything goes through the API server.
            "nodes": [{"role": "control-plane", "image": image or NODE_IMAGE}],
        }
        shutil.rmtree(self._folder)
        self._folder.mkdir(mode=0o700)
        self._note.write_text(json.dumps({"node": "", "began": self._now()}), encoding="utf-8")
        wait = ["--wait", f"{_READY_SECONDS:.0f}s", "--config", "-"]
        argv = ["kind", "create", "cluster", *self._named(), *self._kubeconfig_flag(), *wait]
        self._tool(argv, _CREATE_SECONDS, json.dumps(config))
        self._note.write_text(json.dumps({"node": self._identity()[0]}), encoding="utf-8")

    def _refuse_small_disk(self) -> None:
        """Where Docker's disk can be seen: on a full one kind waits for minutes, and then shows kubeadm's stack."""
        folder, free = self._room()
        if free is not None and free < ROOM_BYTES:
            raise BadInput(
                "disk-too-small",
                f"{free / (1 << 30):.1f} GiB are free for {folder}, where Docker keeps its data",
                expected=f"at least {ROOM_BYTES >> 30} GiB, to make a kind cluster and fill it",
                remedy=_FULL.remedy,
            )

    def _room(self) -> tuple[str, int | None]:
        """Where Docker keeps its data, and the free bytes there; None where that cannot be seen from here."""
        asked = self._run(["docker", "info", "--format", "{{.Name}} {{.DockerRootDir}}"], _LOOK_SECONDS, None)
        machine, _, folder = asked.stdout.strip().partition(" ")
        here = asked.returncode == 0 and machine == platform.node() and folder != ""
        return folder, self._free(Path(folder)) if here else None

    def _delete(self) -> None:
        self._tool(["kind", "delete", "cluster", *self._named(), *self._kubeconfig_flag()], 120)

    def _is_ours(self) -> bool:
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        identity, _ = self._identity()
        return (bool(identity) and identity == note.get("node")) or self._is_half_made()

    def _is_half_made(self) -> bool:
        """Whether the cluster is what a creation by the harness left that was never finished."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            began = float(note["began"])
        except (OSError, ValueError, KeyError):
            return False
        identity, created = self._identity()
        return bool(identity) and 0 <= created - began + 1 <= _CREATE_SECONDS

    def _identity(self) -> tuple[str, float]:
        """The id of the first node and when it was made; "" where there is none."""
        told = self._run(["docker", "inspect", "--format", "{{.Id}} {{.Created}}", self._node], _LOOK_SECONDS, None)
        identity, _, created = told.stdout.strip().partition(" ")
        try:
            return (identity, parse_utc(created)) if told.returncode == 0 else ("", 0.0)
        except ValueError:
            return identity, 0.0

    def _containers(self, *, nodes: bool = False) -> dict[str, bool]:
        """The containers of this cluster, and whether each runs; without what only balances loads where `nodes`."""
        label = f"label=io.x-k8s.kind.cluster={self._name}"
        columns = '{{.Names}} {{.State}} {{.Label "io.x-k8s.kind.role"}}'
        listed = self._tool(["docker", "ps", "--all", "--filter", label, "--format", columns], _LOOK_SECONDS)
        rows = [line.split() for line in listed.splitlines() if line.strip()]
        return {name: state == "running" for name, state, *role in rows if not nodes or role != [_BALANCER]}

    def _wake(self, step: StepHandle) -> None:
        """Start nodes that are stopped, as they are after a restart of the machine, and wait for the API server."""
        stopped = [name for name, running in self._containers().items() if not running]
        if stopped:
            step.update(f"starting {', '.join(stopped)}")
            self._tool(["docker", "start", *stopped], _READY_SECONDS)
        step.update("API server")  # which may be on its way back, say from a disk that was full
        deadline = time.monotonic() + _READY_SECONDS
        pause = threading.Event()
        while True:
            try:
                self._tool([*self._kubectl(), "get", "--raw", "/readyz"], _LOOK_SECONDS)
            except DrillError as error:
                if error.slug != "tool-failed" or time.monotonic() > deadline:
                    raise
                pause.wait(_PAUSE_SECONDS)
            else:
                return

    def _mark(self, progress: Progress) -> None:
        """Mark a cluster that bears no mark; one that says what it is keeps its word."""
        get = ["get", "configmap", marker.CONFIG_MAP, f"--namespace={marker.NAMESPACE}", "--ignore-not-found"]
        found = self._tool([*self._kubectl(), *get, "--output=json"], 60)
        if not found.strip():
            if not self._is_ours():
                progress.say(f"kind cluster {self._name} was made by somebody else: it is marked for drills, and kept")
            self._tool([*self._kubectl(), "apply", "-f", "-"], 60, marker.as_text(marker.objects()))
            return
        says = (json.loads(found).get("data") or {}).get("environment", "(absent)")
        if says != "staging":
            raise Refused(
                "cluster-not-staging",
                f"configmap/{marker.CONFIG_MAP} of the kind cluster {self._name} says environment={says}",
                expected="environment=staging, or a cluster without that mark",
                remedy="choose another cluster with --name; this harness never drills anything else",
            )

    def _fetch_kubectl(self) -> None:
        """Take the node's kubectl along where this machine can run it: whatever is on PATH may not fit the cluster."""
        copy = self._own_kubectl
        if platform.system() != "Linux" or copy.exists():
            return
        half_done = copy.with_suffix(".part")
        self._tool(["docker", "cp", f"{self._node}:/usr/bin/kubectl", str(half_done)], 60)
        if self._run([str(half_done), "version", "--client"], _LOOK_SECONDS, None).returncode == 0:
            half_done.replace(copy)
        else:  # an engine on a machine of another architecture
            half_done.unlink(missing_ok=True)

    @property
    def _own_kubectl(self) -> Path:
        return self._folder / "kubectl"

    def _clusters(self) -> list[str]:
        return self._tool(["kind", "get", "clusters"], _LOOK_SECONDS).split()

    def _access(self) -> Access:
        found = str(self._own_kubectl) if self._own_kubectl.exists() else self._find("kubectl")
        return Access("kind", self._name, self._kubeconfig, f"kind-{self._name}", Path(found) if found else None)

    def _refuse_unfit(self) -> None:
        if self._find("docker") is None:
            raise BadInput(
                "no-docker",
                "there is no `docker` command on PATH",
                expected="a Docker engine and its command",
                remedy="install Docker, or use `--provider local` on Linux as root",
            )
        asked = _asked(self._run)
        if asked.returncode != 0:
            words = _words(asked)
            known = _known(words) or _KNOWN[1]
            raise BadInput(
                known.slug if known.slug == "docker-denied" else "docker-silent",
                f"the Docker engine does not answer this user: {words}",
                expected="`docker version` naming a server",
                remedy=known.remedy,
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
            words = _words(done)
            known = _known(words)
            if known is None:  # what waits for something else than the disk does not speak of the disk
                folder, free = self._room()
                if free is not None and free < _LEAST_BYTES:
                    known, words = _FULL, f"{words}; {free >> 20} MiB are free for {folder}"
            raise Unreachable(
                known.slug if known else "tool-failed",
                f"`{' '.join(argv)}` ended with exit code {done.returncode}: {words}",
                expected=f"exit code 0 within {seconds:g} s",
                remedy=known.remedy
                if known
                else f"remove what the message names; `kind delete cluster --name {self._name}` starts afresh",
            )
        return done.stdout


def _words(done: subprocess.CompletedProcess[str]) -> str:
    """What a tool gave as the reason. kind says first what it was doing all the while."""
    said = done.stderr.strip() or done.stdout.strip()
    _, error, reason = said.rpartition("ERROR: ")
    return (reason if error else said)[-2000:]


def _known(words: str) -> _Known | None:
    return next((one for one in _KNOWN if re.search(one.pattern, words)), None)
