"""The local provider: brings a cluster up, repairs it, takes it away, and looks at it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from harness.clusters import marker
from harness.clusters.local import (
    cgroups,
    config,
    images,
    machine,
    manifests,
    network,
    packages,
    pki,
    processes,
    state,
    sweep,
    toolchain,
)
from harness.clusters.local.config import Component
from harness.clusters.local.layout import DEFAULT_STATE, Layout
from harness.clusters.local.readiness import Api, names_resolve, wait_until
from harness.clusters.local.state import State
from harness.clusters.local.toolchain import Binaries
from harness.clusters.provider import Access, ClusterStatus
from harness.clusters.shell import run, tail
from harness.core.errors import BadInput, Unreachable
from harness.ports.progress import Progress

_COMPONENT_SECONDS = 60.0
_NAMES_SECONDS = 60.0
_WARM_SECONDS = 10.0


class LocalCluster:
    """A single-node Kubernetes named `name` on this machine; several of different names live side by side."""

    def __init__(self, name: str = "drill", *, state_folder: Path = DEFAULT_STATE) -> None:
        self._layout = Layout(name, state_folder)

    @property
    def name(self) -> str:
        """The cluster's name."""
        return self._layout.name

    @property
    def exists(self) -> bool:
        """Whether anything of it was started and not taken away, in whatever state it is."""
        return self._layout.root.exists()

    def up(self, progress: Progress) -> Access:
        """Make the cluster answer, names included; repair what is partly dead; start afresh over remains.

        The first time on a machine it builds Kubernetes (minutes); afterwards a start takes seconds, and a look at a
        running cluster less than one. Raises BadInput where the machine will not do, before anything is changed, and
        Unreachable, with the component's last words, where a part does not come up.
        """
        plan = toolchain.plan()
        missing = packages.missing()
        machine.refuse_unfit(
            machine.gather(
                missing_packages=missing,
                build_needed=plan.finished() is None,
                go_version=plan.go_version,
                go_needed=plan.go_needed,
                state=self._layout.root,
                cache=toolchain.cache_folder(),
            )
        )
        packages.install(missing, progress)
        binaries = toolchain.ensure(plan, progress)
        with state.locked(self._layout):
            known = state.load(self._layout)
            if known is not None and self._is_whole(known, binaries):
                return self._access(binaries)
            with progress.step(f"cluster {self.name}", expect_seconds=_WARM_SECONDS) as step:
                if known is None or not self._can_repair(known):
                    known = self._lay_ground(binaries)
                _Start(self._layout, known, binaries, step.update).all()
                state.save(self._layout, _completed(known, binaries))
        return self._access(binaries)

    def down(self, progress: Progress) -> None:
        """Leave no process, mount, interface, namespace, control group, socket or state; caches stay."""
        if not sweep.remains(self._layout):
            return
        _refuse_without_root("take the cluster away")
        with state.locked(self._layout):
            if sweep.remains(self._layout):
                with progress.step(f"taking cluster {self.name} away", expect_seconds=2):
                    sweep.sweep(self._layout)

    def status(self) -> ClusterStatus:
        """Look without changing anything."""
        known = state.load(self._layout)
        if known is None and not sweep.remains(self._layout):
            return ClusterStatus("local", self.name, "down", "nothing of it is on this machine")
        if known is None or not known.complete:
            return ClusterStatus("local", self.name, "broken", "remains of a start that did not end")
        _refuse_without_root("look into the cluster")
        binaries = Binaries(Path(known.binaries))
        dead = [c.name for c in self._components(known, binaries) if processes.recorded(c.record) is None]
        if dead:
            detail = f"not running: {', '.join(dead)}"
        elif not network.is_wired(self._layout, known.cable):
            detail = "its network namespace or cable is not there"
        elif not (api := Api(self._layout, known.cable.node)).ready():
            detail = f"the API server does not answer at https://{known.cable.node}:6443"
        elif not api.node_ready(self._layout.node):
            detail = "the node is not ready"
        else:
            detail = f"API server at https://{known.cable.node}:6443, state in {self._layout.root}"
            return ClusterStatus("local", self.name, "up", detail, self._access(binaries))
        return ClusterStatus("local", self.name, "broken", f"{detail}; `drill cluster up` repairs it")

    def load_image(self, archive: Path, ref: str) -> None:
        """Import an OCI archive as `ref`; a look at the index is all it costs when that content is there already."""
        known = state.load(self._layout)
        if known is None or processes.recorded(self._layout.run / "containerd.pid") is None:
            raise Unreachable(
                "cluster-down",
                f"cluster {self.name} is not running",
                expected="a running cluster to put the image into",
                remedy="run `drill cluster up` first",
            )
        images.load(self._layout.containerd_socket, archive, ref)

    def _access(self, binaries: Binaries) -> Access:
        kubectl = binaries.path("kubectl")
        return Access("local", self.name, self._layout.kubeconfig, self._layout.context, kubectl)

    def _components(self, known: State, binaries: Binaries) -> list[Component]:
        return config.components(self._layout, known.cable, binaries)

    def _can_repair(self, known: State) -> bool:
        return known.complete and known.boot == processes.boot_id() and network.is_wired(self._layout, known.cable)

    def _is_whole(self, known: State, binaries: Binaries) -> bool:
        if not self._can_repair(known) or known.binaries != str(binaries.folder):
            return False
        if not all(_runs_as_wanted(part) for part in self._components(known, binaries)):
            return False
        api = Api(self._layout, known.cable.node)
        return api.ready() and api.node_ready(self._layout.node) and names_resolve(self._layout, seconds=0.5)

    def _lay_ground(self, binaries: Binaries) -> State:
        """Clear any remains and make what every process stands on: state folder, network, control group."""
        layout = self._layout
        if sweep.remains(layout):
            sweep.sweep(layout)
        layout.root.mkdir(parents=True, mode=0o711)
        with state.subnets_locked(layout):
            cable = network.choose_cable(layout.name, network.networks_in_use())
            fresh = State(str(cable.subnet), processes.boot_id(), str(binaries.folder), complete=False)
            state.save(layout, fresh)
            network.wire(layout, cable)
        cgroups.make(layout.cgroup)
        return fresh


class _Start:
    """One walk from ground to answering names; on a partly dead cluster it starts what is missing."""

    def __init__(self, layout: Layout, known: State, binaries: Binaries, tell: Callable[[str], None]) -> None:
        self._layout = layout
        self._known = known
        self._binaries = binaries
        self._tell = tell
        self._parts = {c.name: c for c in config.components(layout, known.cable, binaries)}

    def all(self) -> None:
        """Start everything, in parallel where nothing depends on it."""
        layout, node = self._layout, self._known.cable.node
        self._tell("certificates and configuration")
        config.write_files(layout, self._binaries)
        pki.ensure(layout, node)
        self._end_strangers()
        with ThreadPoolExecutor(max_workers=2) as pool:
            self._tell("control plane")
            self._run("containerd")
            self._run("etcd")
            self._run("kube-apiserver")
            runtime = pool.submit(self._runtime)
            api = Api(layout, node)
            self._wait("kube-apiserver", "the API server is ready", api.ready)
            for name in ("kube-controller-manager", "kube-scheduler"):
                self._run(name)
            objects: Future[None] = pool.submit(self._objects)
            runtime.result()
            self._tell("node")
            self._run("kubelet")
            self._run("kube-proxy")
            objects.result()
            self._wait("kubelet", "the node is ready", lambda: api.node_ready(layout.node))
        self._tell("name service")
        if not names_resolve(layout, seconds=_NAMES_SECONDS):
            words = tail(self._parts["kubelet"].log)
            raise Unreachable(
                "no-name-service",
                f"{config.DNS_ADDRESS} resolves nothing in {_NAMES_SECONDS:g} s; the kubelet says last\n{words}",
                expected="CoreDNS answering for kubernetes.default",
                remedy=f"look at `kubectl -n kube-system get pods` and {layout.logs}",
            )
        for name in self._parts:
            self._wait(name, f"{name} runs", lambda: True)

    def _end_strangers(self) -> None:
        """End daemons of ours that no record names: those that a killed repair left between start and record."""
        names = {part.argv[0] for part in self._parts.values()}
        keep = {processes.recorded(part.record) for part in self._parts.values()}
        for identity in processes.inside_namespace(self._layout.netns_path):
            if identity not in keep and processes.command(identity.pid)[:1] in ([name] for name in names):
                processes.kill(identity)

    def _run(self, name: str) -> None:
        part = self._parts[name]
        if _runs_as_wanted(part):
            return
        if processes.recorded(part.record) is not None:  # started by an older version, with other words
            processes.kill_all(lambda: [i] if (i := processes.recorded(part.record)) else [], seconds=10)
        processes.launch([*network.enter(self._layout), *part.argv], record=part.record, log=part.log)

    def _wait(self, name: str, what: str, check: Callable[[], bool]) -> None:
        part = self._parts[name]
        wait_until(
            what,
            check,
            seconds=_COMPONENT_SECONDS,
            log=part.log,
            alive=lambda: processes.recorded(part.record) is not None,
        )

    def _runtime(self) -> None:
        """The container runtime and the two images without which no pod starts."""
        door = self._layout.containerd_socket
        self._wait("containerd", "the container runtime answers", lambda: images.answers(door))
        for name in ("pause", "coredns"):
            images.load(door, *self._binaries.image(name))

    def _objects(self) -> None:
        _, coredns = self._binaries.image("coredns")
        objects = marker.objects() + manifests.name_service(coredns)
        kubectl = [str(self._binaries.path("kubectl")), f"--kubeconfig={self._layout.kubeconfig}"]
        run([*kubectl, "apply", "--validate=false", "-f", "-"], timeout=60, stdin=marker.as_text(objects))


def _runs_as_wanted(part: Component) -> bool:
    running = processes.recorded(part.record)
    return running is not None and tuple(processes.command(running.pid)) == part.argv


def _completed(known: State, binaries: Binaries) -> State:
    return State(known.subnet, known.boot, str(binaries.folder), complete=True)


def _refuse_without_root(purpose: str) -> None:
    facts = machine.effective_user()
    if facts != 0:
        raise BadInput(
            "not-root",
            f"this command runs as user id {facts}",
            expected=f"root, to {purpose}",
            remedy="run it with sudo",
        )
