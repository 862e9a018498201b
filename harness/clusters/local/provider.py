"""The local provider: brings a cluster up, repairs it, takes it away, and looks at it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.clusters.local import (
    cgroups,
    config,
    images,
    machine,
    network,
    packages,
    processes,
    state,
    sweep,
    toolchain,
)
from harness.clusters.local.config import Component
from harness.clusters.local.layout import DEFAULT_STATE, Layout
from harness.clusters.local.readiness import Api, names_resolve
from harness.clusters.local.start import Start, runs_as_wanted
from harness.clusters.local.state import State
from harness.clusters.local.toolchain import Binaries
from harness.clusters.provider import Access, ClusterStatus
from harness.core.errors import BadInput, Unreachable, disk_full
from harness.ports.progress import Progress

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
                self._start(known, binaries, step.update)
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
        if not all(runs_as_wanted(part) for part in self._components(known, binaries)):
            return False
        api = Api(self._layout, known.cable.node)
        return api.ready() and api.node_ready(self._layout.node) and names_resolve(self._layout, seconds=0.5)

    def _start(self, known: State, binaries: Binaries, tell: Callable[[str], None]) -> None:
        """Start what is missing. On a full disk parts die of it without saying so, and others for want of them."""
        try:
            Start(self._layout, known, binaries, tell).all()
        except Unreachable as error:
            free = machine.free_bytes(self._layout.root)
            if free >= machine.LEAST_BYTES:
                raise
            raise disk_full(
                f"{free >> 20} MiB are left under {self._layout.root}, and the cluster does not start",
                remedy="make room on that disk, then the same command again",
            ) from error

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
