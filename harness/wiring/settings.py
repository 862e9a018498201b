"""What flags and environment mean, and the adapters that follow from them. The only importer of adapters."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event as Flag
from typing import TYPE_CHECKING, Any, Literal

from harness.core.clock import Clock
from harness.core.decide import UNDO_FOR
from harness.core.errors import BadInput, ExitCode
from harness.ports.progress import Progress

if TYPE_CHECKING:
    from harness.adapters.kubernetes import KubeCluster
    from harness.clusters.provider import Access, ClusterProvider
    from harness.engine.guards import Need
    from harness.engine.preflight import Peers
    from harness.report.series import Outcome

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
    """Access to a cluster that is up. Raises BadInput where it is not."""
    state = choose(settings).status()
    if state.access is None or state.state != "up":
        raise BadInput(
            "cluster-down",
            f"{state.provider} cluster {state.name} is {state.state}: {state.detail}",
            expected="a cluster that answers",
            remedy="`drill cluster up` starts it",
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
    """Prometheus, Alertmanager and the pager as the settings say, reached under the cluster's identity.

    The pager is optional: "none" leaves pages unknown, and the report says so.
    """
    from harness.adapters.alertmanager import Alertmanager
    from harness.adapters.endpoints import HttpTransport, resolve
    from harness.adapters.prometheus import Prometheus
    from harness.adapters.webhook_pager import WebhookPager
    from harness.engine.preflight import Peers

    server = cluster.server()

    def transport(text: str) -> HttpTransport:
        return HttpTransport(resolve(text, server), now=clock.now)

    metrics = Prometheus(resolve(settings.prometheus, server), transport(settings.prometheus), now=clock.now)
    notifier = Alertmanager(transport(settings.alertmanager), now=clock.now)
    pager = None if settings.pager in {"", "none"} else WebhookPager(transport(settings.pager))

    def close() -> None:
        for peer in (metrics, notifier, pager):
            if peer is not None:
                peer.close()

    return Peers(cluster=cluster, metrics=metrics, notifier=notifier, pager=pager, close=close)


def autopilot_needs() -> tuple[Need, ...]:
    """The permissions that it takes to start the autopilot under its own identity."""
    from harness.engine.guards import Need

    namespace, name = AUTOPILOT
    return (Need("create", "ServiceAccount/token", namespace, name),)


def peer_needs(settings: Settings) -> tuple[Need, ...]:
    """The permissions that it takes to reach the peers which answer behind the API server."""
    from harness.engine.guards import Need

    found = []
    for text in (settings.prometheus, settings.alertmanager, settings.pager):
        kind, _, place = text.partition(":")
        namespace, slash, service = place.partition("/")
        if kind == "service" and slash:
            found.append(Need("get", "Service/proxy", namespace, service))
    return tuple(found)


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
