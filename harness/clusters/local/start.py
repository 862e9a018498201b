"""The way from ground to a cluster that answers; on a partly dead cluster it starts what is missing."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from harness.clusters import marker
from harness.clusters.local import config, images, manifests, network, pki, processes
from harness.clusters.local.config import Component
from harness.clusters.local.layout import Layout
from harness.clusters.local.readiness import Api, names_resolve, wait_until
from harness.clusters.local.state import State
from harness.clusters.local.toolchain import Binaries
from harness.clusters.shell import run, tail
from harness.core.errors import Unreachable

_COMPONENT_SECONDS = 60.0
_NAMES_SECONDS = 60.0


def runs_as_wanted(part: Component) -> bool:
    """Whether the component lives, and with the words that this version of the harness would start it with."""
    running = processes.recorded(part.record)
    return running is not None and tuple(processes.command(running.pid)) == part.argv


class Start:
    """One walk up. `tell` hears what it is at."""

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
        if runs_as_wanted(part):
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
