"""The lock and its keeper: renewed, fenced, told once when it is lost, given back, and waited for where it heals."""

from __future__ import annotations

from threading import Event as Flag
from typing import Any

import pytest

from harness.adapters.system_clock import SystemClock
from harness.core.errors import Refused, Unreachable
from harness.engine.lease import DURATION, NAME, PHASE, RECOVERING, Keeper, Lease, Watched
from harness.ports.cluster import NotFound, OutcomeUnknown, Ref
from tests.fakes.cluster import FakeCluster
from tests.fakes.world import Mortal, VirtualClock

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


def hand_over(cluster: FakeCluster, holder: str = "run-2") -> None:
    body = cluster.get(REF)
    body["spec"]["holderIdentity"] = holder
    cluster.put(body)


def lock(holder: str, renewed: str) -> dict[str, Any]:
    return {"metadata": {}, "spec": {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 15}}


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
    hand_over(cluster)
    with Keeper(lease, lost, every=0.01) as keeper:
        assert heard.wait(5.0)
        with pytest.raises(Refused) as caught:
            keeper.require()
        assert caught.value.slug == "lease-lost"
    assert len(told) == 1
    assert "run-2" in told[0]
    assert cluster.get(REF)["spec"]["holderIdentity"] == "run-2", "somebody else's lock is not ours to release"


def test_holding_says_what_comes_next_and_fails_where_the_lock_is_gone(cluster: FakeCluster) -> None:
    lease = held(cluster)
    lease.hold("injecting")
    assert cluster.get(REF)["metadata"]["annotations"][PHASE] == "injecting"
    lease.renew()
    assert cluster.get(REF)["metadata"]["annotations"][PHASE] == "injecting", "a renewal keeps the phase"
    cluster.delete(REF)
    with pytest.raises(Refused) as removed:
        lease.hold("injecting")
    assert "removed" in removed.value.fact, "it does not claim that somebody holds it"


def test_the_way_back_takes_a_free_lock_anew_but_never_somebody_elses(cluster: FakeCluster) -> None:
    lease = held(cluster)
    cluster.delete(REF)
    lease.regain("rolling back")
    assert cluster.get(REF)["spec"]["holderIdentity"] == "run-1"
    hand_over(cluster)
    with pytest.raises(Refused):
        lease.regain("rolling back")
    assert cluster.get(REF)["spec"]["holderIdentity"] == "run-2"


def test_a_renewal_counts_from_when_it_was_sent() -> None:
    clock = VirtualClock()
    cluster = Mortal(clock.now)
    cluster.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    lease = Lease(cluster, clock, "shop", "run-1")
    lease.acquire(lambda _: False, lambda _: None)
    clock.advance(DURATION - 1)
    assert [lease.is_lost] == [False]
    lost = OutcomeUnknown("lost", "the reply was lost", expected="a reply", remedy="none")
    cluster.fail_write("replace", "Lease", lost, after=True)
    with pytest.raises(Unreachable):
        lease.renew()
    clock.advance(1)
    assert [lease.is_lost] == [True], "a renewal whose reply was lost extends nothing on our side"
    lease.renew()
    assert [lease.is_lost] == [False], "and the next one finds the lock still ours"


def test_a_lock_lapses_only_under_our_own_eyes() -> None:
    watched = Watched()
    assert watched.look(lock("run-1", "t0"), 0.0) == "unknown"
    assert watched.look(lock("run-1", "t0"), 14.9) == "unknown"
    assert watched.look(lock("run-1", "t1"), 14.95) == "alive"
    assert watched.look(lock("run-1", "t1"), 29.9) == "unknown"
    assert watched.look(lock("run-1", "t1"), 29.95) == "lapsed"
    assert watched.look(None, 30.0) == "free"
    assert watched.look(lock("run-2", "t1"), 31.0) == "unknown", "another holder is watched from the beginning"


def test_what_could_not_be_read_is_not_held_against_the_holder() -> None:
    watched = Watched()
    assert watched.look(lock("run-1", "t0"), 0.0) == "unknown"
    watched.miss()
    assert watched.look(lock("run-1", "t0"), 40.0) == "unknown", "a frozen API server let nobody renew"
    assert watched.look(lock("run-1", "t0"), 55.0) == "lapsed"


@pytest.mark.parametrize(("phase", "refused"), [(RECOVERING, False), ("observing", True)])
def test_a_recovery_is_waited_for_and_a_run_is_not(phase: str, *, refused: bool) -> None:
    clock = VirtualClock()
    cluster = FakeCluster(now=clock.now)
    cluster.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    other = Lease(cluster, clock, "shop", "somebody", phase=phase)
    other.acquire(lambda _: False, lambda _: None)
    began, said = clock.now(), list[str]()

    def wait(seconds: float) -> bool:
        clock.advance(seconds)
        if clock.now() - began >= 60.0:
            other.release()
        else:
            other.renew()
        return True

    mine = Lease(cluster, clock, "shop", "run-1")
    if refused:
        with pytest.raises(Refused) as caught:
            mine.acquire(wait, said.append)
        assert caught.value.slug == "run-in-progress"
        return
    mine.acquire(wait, said.append)
    assert clock.now() - began >= 60.0
    assert ["bringing back" in text for text in said] == [True]
