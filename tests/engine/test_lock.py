"""The lock's keeper: it renews, it tells a loss once, and it gives the lock back."""

from __future__ import annotations

from threading import Event as Flag

import pytest

from harness.adapters.system_clock import SystemClock
from harness.core.errors import Refused
from harness.engine.lease import NAME, Keeper, Lease
from harness.ports.cluster import NotFound, Ref
from tests.fakes.cluster import FakeCluster

REF = Ref("Lease", "shop", NAME)


@pytest.fixture
def cluster() -> FakeCluster:
    cluster = FakeCluster(now=lambda: 1000.0)
    cluster.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    return cluster


def held(cluster: FakeCluster) -> Lease:
    lease = Lease(cluster, SystemClock(), "shop", "run-1")
    lease.acquire(lambda _: False, lambda _: None)
    return lease


def test_it_renews_while_it_is_held_and_gives_it_back(cluster: FakeCluster) -> None:
    first = cluster.get(REF)["spec"]["renewTime"] if held(cluster) else ""
    renewed = Flag()
    lease = held(cluster)
    real = lease.renew

    def renew() -> None:
        real()
        renewed.set()

    lease.renew = renew  # type: ignore[method-assign]
    with Keeper(lease, lambda _: None, every=0.01) as keeper:
        assert renewed.wait(5.0)
        keeper.require()
        assert cluster.get(REF)["spec"]["renewTime"] > first
    with pytest.raises(NotFound):
        cluster.get(REF)


def test_a_lock_in_other_hands_is_told_once_and_stops_what_comes(cluster: FakeCluster) -> None:
    told: list[str] = []
    heard = Flag()

    def lost(why: str) -> None:
        told.append(why)
        heard.set()

    lease = held(cluster)
    body = cluster.get(REF)
    body["spec"]["holderIdentity"] = "run-2"
    cluster.put(body)
    with Keeper(lease, lost, every=0.01) as keeper:
        assert heard.wait(5.0)
        with pytest.raises(Refused) as caught:
            keeper.require()
        assert caught.value.slug == "lease-lost"
    assert len(told) == 1
    assert "run-2" in told[0]
    assert cluster.get(REF)["spec"]["holderIdentity"] == "run-2", "somebody else's lock is not ours to release"
