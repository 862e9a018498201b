"""What the fake offers beyond the contract: faults to order, hands of controllers, identities, denials."""

from __future__ import annotations

import time
from threading import Event as Flag

import pytest

from harness.core.errors import Unreachable
from harness.ports.cluster import Forbidden, Json, NotFound, OutcomeUnknown, Ref
from tests.fakes.cluster import Call, FakeCluster

THERE = Ref("ConfigMap", "shop", "settings")


def config(color: str = "red") -> Json:
    return {"kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "shop"}, "data": {"color": color}}


@pytest.fixture
def cluster() -> FakeCluster:
    made = FakeCluster(now=time.time)
    made.put({"kind": "Namespace", "metadata": {"name": "shop"}})
    return made


def test_a_write_can_be_lost_before_or_after_it_took_effect(cluster: FakeCluster) -> None:
    cluster.fail_next("create")
    with pytest.raises(Unreachable):
        cluster.create(config())
    with pytest.raises(NotFound):
        cluster.get(THERE)
    cluster.fail_next("create", after=True)
    with pytest.raises(OutcomeUnknown):
        cluster.create(config())
    assert cluster.get(THERE)["data"] == {"color": "red"}
    assert [call.verb for call in cluster.writes()] == ["create", "create"]


def test_faults_are_spent(cluster: FakeCluster) -> None:
    cluster.put(config())
    cluster.fail_next("get", times=2)
    for _ in range(2):
        with pytest.raises(Unreachable):
            cluster.get(THERE)
    assert cluster.get(THERE)["metadata"]["name"] == "settings"


def test_a_controller_sets_status_and_a_patch_cannot(cluster: FakeCluster) -> None:
    body: Json = {"kind": "Deployment", "metadata": {"name": "w", "namespace": "shop"}, "spec": {"replicas": 1}}
    cluster.create({**body, "status": {"replicas": 9}})
    there = Ref("Deployment", "shop", "w")
    assert "status" not in cluster.get(there)
    cluster.put({**cluster.get(there), "status": {"replicas": 1}})
    found = cluster.get(there)
    assert (found["status"], found["metadata"]["generation"]) == ({"replicas": 1}, 1)
    cluster.patch(there, [{"op": "replace", "path": "/status/replicas", "value": 7}])
    assert cluster.get(there)["status"] == {"replicas": 1}


def test_admission_and_rights_refuse(cluster: FakeCluster) -> None:
    def no_blue(call: Call, before: Json | None, after: Json | None) -> str | None:
        return f"{call.user} may not paint it blue" if after and after["data"]["color"] == "blue" else None

    cluster.admission.append(no_blue)
    cluster.create(config())
    with pytest.raises(Forbidden, match="alice may not paint it blue"):
        cluster.as_user("alice").patch(THERE, [{"op": "replace", "path": "/data/color", "value": "blue"}])
    weak = cluster.as_user("bob")
    weak.denied.add(("delete", "ConfigMap"))
    assert not weak.allowed("delete", "ConfigMap", "shop")
    assert cluster.allowed("delete", "ConfigMap", "shop")
    with pytest.raises(Forbidden):
        weak.delete(THERE)
    assert weak.whoami().username == "bob"


def test_a_watch_that_lost_its_place_syncs_again(cluster: FakeCluster) -> None:
    stop = Flag()
    events = cluster.watch("ConfigMap", "shop", "", stop)
    assert next(events).items == ()
    cluster.put(config())
    assert next(events).type == "added"
    cluster.forget()
    again = next(events)
    assert (again.type, len(again.items)) == ("sync", 1)
    cluster.fail_next("watch")
    cluster.forget()
    with pytest.raises(Unreachable):
        next(events)
    stop.set()


def test_copies_are_given_out(cluster: FakeCluster) -> None:
    cluster.put(config())
    cluster.get(THERE)["data"]["color"] = "blue"
    assert cluster.get(THERE)["data"]["color"] == "red"
