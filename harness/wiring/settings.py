"""What flags and environment mean, and the adapters that follow from them. The only importer of adapters."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event as Flag
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from harness.core.address import service_of
from harness.core.clock import Clock
from harness.core.configuration import FILE, PEERS
from harness.core.decide import UNDO_FOR
from harness.core.errors import BadInput, ExitCode, Unreachable
from harness.ports.endpoint import ApiServer, Credentials
from harness.ports.progress import Progress

if TYPE_CHECKING:
    from harness.adapters.alertmanager import Alertmanager
    from harness.adapters.endpoints import HttpTransport
    from harness.adapters.kubernetes import KubeCluster
    from harness.adapters.prometheus import Prometheus
    from harness.adapters.webhook_pager import WebhookPager
    from harness.clusters.provider import Access, ClusterProvider
    from harness.engine.guards import Need
    from harness.engine.preflight import Peers
    from harness.loading import LoadedConfiguration
    from harness.report.series import Outcome

P = TypeVar("P", "Prometheus", "Alertmanager", "WebhookPager")
ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = "service:monitoring/prometheus:9090"
ALERTMANAGER = "service:monitoring/alertmanager:9093"
RUNNER = ("drill-system", "drill-runner")
AUTOPILOT = ("drill-system", "drill-autopilot")
PAGER = "service:monitoring/pager:8080"


@dataclass(frozen=True, slots=True)
class Settings:
    """What flags and environment say. Empty means the default."""

    cluster: Literal["auto", "local", "kind", "context", "pod"] = "auto"
    context: str | None = None
    kubeconfig: Path | None = None
    name: str = "drill"
    runs: Path = Path("runs")
    prometheus: str = PROMETHEUS
    alertmanager: str = ALERTMANAGER
    pager: str = PAGER
    output: str = "text"
    namespace: str | None = None
    keep: Literal["folder", "cluster"] = "folder"
    """Where journals are kept: in a folder alone, or in the drilled namespace as well."""
    undo_for: float = UNDO_FOR
    """Seconds for which a failing undo is tried again."""
    credentials: Mapping[str, Credentials] = field(default_factory=dict)
    """What a peer's URL takes beside it, by the peer's name; from `drill.yaml` alone."""
    configuration: Path | None = None
    """The `drill.yaml` that was read."""


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended. `phases` are wall seconds by phase, in order."""

    run_id: str
    folder: Path
    summary: str
    exit_code: ExitCode
    row: Outcome
    """The run as one line of a table of several."""
    phases: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SeriesOutcome:
    """How several runs ended: each one's row, and the exit code of the worst."""

    rows: tuple[Outcome, ...]
    exit_code: ExitCode
    table: str


@dataclass(frozen=True, slots=True)
class RecoverOutcome:
    """What `drill recover` did, line by line."""

    lines: list[str]
    exit_code: ExitCode


@dataclass(frozen=True, slots=True)
class StatusReport:
    """What bare `drill` shows; `data` is the same for machines."""

    lines: list[str]
    exit_code: ExitCode
    data: dict[str, Any]


def configured(said: Mapping[str, Any], file: Path | None) -> Settings:
    """The settings that flags and environment (`said`, without what they left open) and `drill.yaml` mean together: of
    a value that both give, the file's is left out. Raises BadInput where the file cannot be used.

    A peer is one value, its credentials with it: they go to the address beside which they stand, and to no other. So
    is the place to drill in: a context that was said outside of the file leaves out the file's `cluster`, and a cluster
    that was said to be local or kind leaves out the file's `context`.
    """
    path = file if file is not None else here if (here := Path(FILE)).exists() else None
    if path is None:
        return Settings(**said)
    from harness.loading import load_configuration

    loaded = load_configuration(path)
    found = loaded.configuration
    given: dict[str, Any] = {name: getattr(found, name) for name in ("cluster", "context", "namespace")}
    given["runs"] = loaded.beside(found.runs) if found.runs is not None else None
    if "context" in said:
        given["cluster"] = None
    if said.get("cluster", given["cluster"]) in ("local", "kind"):
        given["context"] = None if "cluster" in said else given["context"]
    credentials: dict[str, Credentials] = {}
    for name in PEERS:
        peer = getattr(found, name)
        if peer is None or name in said:
            continue
        given[name] = peer if isinstance(peer, str) else peer.address
        if not isinstance(peer, str):
            credentials[name] = _credentials(loaded, name)
    kept = {name: value for name, value in given.items() if value is not None}
    return Settings(**{**kept, **said}, credentials=credentials, configuration=path)


def _credentials(loaded: LoadedConfiguration, name: str) -> Credentials:
    peer = getattr(loaded.configuration, name)
    tls, basic = peer.tls, peer.basic_auth

    def file(text: str | None) -> Path | None:
        return None if text is None else loaded.beside(text)

    pair = (file(tls.cert_file), file(tls.key_file)) if tls is not None else (None, None)
    return Credentials(
        bearer_token_file=file(peer.bearer_token_file),
        username=basic.username if basic is not None else "",
        password_file=file(basic.password_file) if basic is not None else None,
        ca_file=file(tls.ca_file) if tls is not None else None,
        cert=(pair[0], pair[1]) if pair[0] is not None and pair[1] is not None else None,
        server_name=(tls.server_name or "") if tls is not None else "",
        verify=tls is None or not tls.insecure_skip_verify,
        where=loaded.where(name),
    )


def version() -> str:
    """The harness' own version."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("drill-harness")
    except PackageNotFoundError:
        return "0.0.0+uninstalled"


def choose(settings: Settings) -> ClusterProvider:
    """The provider that the settings mean."""
    from harness.clusters.select import choose as select

    return select(settings.cluster, context=settings.context, kubeconfig=settings.kubeconfig, name=settings.name)


def existing_access(settings: Settings) -> Access:
    """Access to a cluster that is up. Raises BadInput where there is none, Unreachable where it does not answer."""
    state = choose(settings).status()
    if state.access is None or state.state != "up":
        family = Unreachable if state.state == "broken" else BadInput
        remedies = {
            "context": f"`kubectl config get-contexts` lists them; try `kubectl --context {state.name} version`",
            "pod": "outside of the cluster, name a context: --cluster context --context NAME",
        }
        whose = "the cluster behind context" if state.provider == "context" else f"{state.provider} cluster"
        raise family(
            "cluster-down",
            f"{whose} {state.name} is {state.state}: {state.detail}",
            expected="a cluster that answers",
            remedy=remedies.get(state.provider, "`drill cluster up` starts it"),
        )
    return state.access


def connect(settings: Settings, access: Access, clock: Clock) -> KubeCluster:
    """The API server as `access` says."""
    del settings
    if access.provider == "pod":
        return in_cluster(clock)
    from harness.adapters.kubernetes import KubeCluster

    return KubeCluster.from_kubeconfig(access.kubeconfig, access.context, now=clock.now)


def in_cluster(clock: Clock) -> KubeCluster:
    """The API server of the cluster that this pod is in, as its ServiceAccount."""
    from harness.adapters.kubernetes import KubeCluster

    return KubeCluster.in_cluster(now=clock.now)


def peers_of(settings: Settings, cluster: KubeCluster, clock: Clock) -> Peers:
    """Prometheus, Alertmanager and the pager as the settings say, those behind the API server under the cluster's
    identity.

    The pager is optional: "none" leaves pages unknown, and the report says so.
    """
    from harness.engine.preflight import Peers

    doors = Doors(settings, cluster.server(), clock)
    metrics, notifier, pager = doors.prometheus(), doors.alertmanager(), doors.pager()
    return Peers(
        cluster=cluster, metrics=metrics, notifier=notifier, pager=pager, close=doors.close, doubts=doors.doubts()
    )


class Doors:
    """The ways to the peers. `server` is the API server's door, where there is a cluster."""

    def __init__(self, settings: Settings, server: ApiServer | None, clock: Clock) -> None:
        self._settings = settings
        self._server = server
        self._clock = clock
        self._made: list[Prometheus | Alertmanager | WebhookPager] = []
        self._doubts: list[str] = []

    def prometheus(self) -> Prometheus:
        """Raises BadInput where its address or its files cannot be used."""
        from harness.adapters.prometheus import Prometheus

        transport = self._transport("prometheus")
        return self._kept(Prometheus(transport.endpoint, transport, now=self._clock.now))

    def alertmanager(self) -> Alertmanager:
        """Raises BadInput where its address or its files cannot be used."""
        from harness.adapters.alertmanager import Alertmanager

        return self._kept(Alertmanager(self._transport("alertmanager"), now=self._clock.now))

    def pager(self) -> WebhookPager | None:
        """None where there is none. Raises BadInput where its address or its files cannot be used."""
        from harness.adapters.webhook_pager import WebhookPager

        if self._settings.pager in {"", "none"}:
            return None
        return self._kept(WebhookPager(self._transport("pager")))

    def doubts(self) -> tuple[str, ...]:
        """What is let pass about those that were made, and should be known."""
        return tuple(self._doubts)

    def close(self) -> None:
        """Give the connections back."""
        while self._made:
            self._made.pop().close()

    def _kept(self, peer: P) -> P:
        self._made.append(peer)
        return peer

    def _transport(self, name: str) -> HttpTransport:
        from harness.adapters.endpoints import NOTHING, HttpTransport, resolve
        from harness.ports.trust import doubts

        held = self._settings.credentials.get(name, NOTHING)
        endpoint = resolve(getattr(self._settings, name), self._server, held)
        self._doubts += doubts(endpoint)
        return HttpTransport(endpoint, now=self._clock.now)


def autopilot_needs() -> tuple[Need, ...]:
    """The permissions that it takes to start the autopilot under its own identity."""
    from harness.engine.guards import Need

    namespace, name = AUTOPILOT
    return (Need("create", "ServiceAccount/token", namespace, name),)


def peer_needs(settings: Settings) -> tuple[Need, ...]:
    """The permissions that it takes to reach the peers which answer behind the API server."""
    from harness.engine.guards import Need

    found = map(service_of, (settings.prometheus, settings.alertmanager, settings.pager))
    return tuple(Need("get", "Service/proxy", one.namespace, one.proxied) for one in found if one is not None)


class Phases:
    """Wall seconds by phase, in the order in which they began."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def time(self, phase: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.monotonic() - started


def set_up(settings: Settings, profile: str, *, setup: bool, progress: Progress, phases: Phases) -> Access:
    provider = choose(settings)
    if not setup:
        return existing_access(settings)
    with phases.time("cluster"):
        access = provider.up(progress)
    if access.provider in {"local", "kind"}:
        from harness.clusters import roles, staging

        with phases.time("staging system"):
            _outwait_dead_lock(settings, access, staging.NAMESPACE, progress)
            staging.deploy(provider, access, profile, progress)  # type: ignore[arg-type]
            roles.install(provider, access, progress)  # into the namespaces that the line before makes
    return access


def _outwait_dead_lock(settings: Settings, access: Access, namespace: str, progress: Progress) -> None:
    """Take away the lock of a run that died, after having watched that nobody renews it; raises Refused where a run
    lives. What that run left is undone by the preflight, but the set-up comes first and respects any lock."""
    from harness.adapters.system_clock import SystemClock
    from harness.engine.lease import NAME, Lease
    from harness.ports.cluster import NotFound, Ref

    clock = SystemClock()
    cluster = connect(settings, access, clock)
    try:
        try:
            cluster.get(Ref("Lease", namespace, NAME))
        except NotFound:
            return
        with progress.step("Waiting out the lock of an earlier run", expect_seconds=16):
            lock = Lease(cluster, clock, namespace, f"set-up by {os.getpid()} on {os.uname().nodename}")
            lock.acquire(lambda seconds: not Flag().wait(seconds), progress.say)
            lock.release()
    finally:
        cluster.close()
