"""The adapters against the real monitoring of the local cluster, through the API server's service proxy."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.adapters.alertmanager import Alertmanager
from harness.adapters.endpoints import HttpTransport, resolve
from harness.adapters.kubernetes import KubeCluster
from harness.adapters.prometheus import Prometheus
from harness.adapters.system_clock import SystemClock
from harness.adapters.webhook_pager import WebhookPager
from harness.core.errors import BadInput
from harness.ports.cluster import NotFound, Ref
from harness.ports.metrics import Matcher

if TYPE_CHECKING:
    from harness.clusters.provider import Access

pytestmark = pytest.mark.cluster
CLOCK = SystemClock()


@pytest.fixture(scope="module")
def to(request: pytest.FixtureRequest) -> Iterator[Callable[[str], HttpTransport]]:
    """Makes transports to services of the namespace `monitoring`."""
    given = os.environ.get("DRILL_TEST_KUBECONFIG")
    access: Access | None = None if given else request.getfixturevalue("local_access")
    kubeconfig = access.kubeconfig if access else Path(given or "")
    context = access.context if access else os.environ.get("DRILL_TEST_CONTEXT")
    cluster = KubeCluster.from_kubeconfig(kubeconfig, context, now=CLOCK.now)
    made: list[HttpTransport] = []

    def transport(service: str) -> HttpTransport:
        try:
            cluster.get(Ref("Service", "monitoring", service.partition(":")[0]))
        except NotFound:
            pytest.skip("the monitoring is not deployed on this cluster")
        made.append(HttpTransport(resolve(f"service:monitoring/{service}", cluster.server()), now=CLOCK.now))
        return made[-1]

    yield transport
    for one in made:
        one.close()
    cluster.close()


def test_prometheus_answers(to: Callable[[str], HttpTransport]) -> None:
    transport = to("prometheus:9090")
    metrics = Prometheus(transport.endpoint, transport, now=CLOCK.now)
    try:
        assert metrics.ready()[0].isdigit()
        assert metrics.started_at() == metrics.started_at() < CLOCK.now()
        offset = metrics.offset()
        assert offset.width < 1.0
        (one,) = metrics.vector("1 + vector(1)")
        assert one.samples[0][1] == 2.0
        assert abs(one.samples[0][0] - CLOCK.now()) < 10.0
        assert all(series.samples for series in metrics.raw("up", 60))
        assert metrics.scrape_intervals()
        assert {rule.health for rule in metrics.rules()} <= {"ok", "unknown"}
        with pytest.raises(BadInput, match="parse error"):
            metrics.vector("up{")
    finally:
        metrics.close()


def test_alertmanager_takes_and_ends_a_silence(to: Callable[[str], HttpTransport]) -> None:
    notifier = Alertmanager(to("alertmanager:9093"), now=CLOCK.now)
    assert notifier.ready()
    assert notifier.route({"alertname": "contract"}).receiver
    made = notifier.silence([Matcher("alertname", "contract")], author="contract", comment="a test", seconds=60)
    (found,) = [silence for silence in notifier.silences() if silence.id == made]
    assert found.state == "active"
    assert abs(found.starts_at - CLOCK.now()) < 10.0
    notifier.expire(made)
    notifier.expire(made)
    (found,) = [silence for silence in notifier.silences() if silence.id == made]
    assert found.state == "expired"
    notifier.expire("00000000-0000-4000-8000-000000000000")


def test_the_pager_is_read(to: Callable[[str], HttpTransport]) -> None:
    pager = WebhookPager(to("pager:8080"))
    assert all(one.received_at <= time.time() + 5.0 for one in pager.notifications(0))
    assert pager.offset().width < 2.0
