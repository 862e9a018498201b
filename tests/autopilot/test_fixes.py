"""What a responder's hands do in a cluster: each step of a runbook, repeated, raced and refused."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import TypeAdapter

from harness.autopilot.fixes import ATTEMPTS, Hands, NotSo, do
from harness.core.errors import Unreachable
from harness.core.experiment import Step
from harness.ports.cluster import Conflict, Json, OutcomeUnknown, Ref
from tests.fakes.cluster import FakeCluster
from tests.fakes.world import VirtualClock

SHOP = "shop"
STEP: TypeAdapter[Step] = TypeAdapter(Step)
DEPLOYMENT = Ref("Deployment", SHOP, "api")


def step(**body: Any) -> Step:
    return STEP.validate_python(body)


def deployment() -> Json:
    env = [{"name": "A", "value": "1"}, {"name": "REF", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    containers = [{"name": "side", "image": "side:1"}, {"name": "api", "image": "api:1", "env": env}]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "api", "namespace": SHOP},
        "spec": {"replicas": 3, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers}}},
    }


class Raced:
    """A cluster in which something happens around each patch."""

    def __init__(self, cluster: FakeCluster, around: Callable[[Callable[[], Json]], Json]) -> None:
        self._cluster, self._around = cluster, around

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster, name)

    def patch(self, ref: Ref, operations: list[Json], **given: Any) -> Json:
        return self._around(lambda: self._cluster.patch(ref, operations, **given))


class Stage:
    def __init__(self, around: Callable[[Callable[[], Json]], Json] | None = None) -> None:
        self.clock = VirtualClock()
        self.cluster = FakeCluster(self.clock.now)
        self.cluster.put(deployment())
        self.pauses = 0
        cluster: Any = self.cluster if around is None else Raced(self.cluster, around)
        self.hands = Hands(cluster, SHOP, self.clock, lambda call: call(), self._pause)

    def _pause(self) -> None:
        self.pauses += 1

    def spec(self) -> Any:
        return self.cluster.get(DEPLOYMENT)["spec"]

    def container(self) -> Any:
        return self.spec()["template"]["spec"]["containers"][1]


def test_replicas_are_set_and_left_alone_where_they_are_so() -> None:
    stage = Stage()
    scale = step(do="scale", target="deployment/api", replicas=5)
    assert do(scale, stage.hands) == "deployment/api: 3 -> 5 replicas"
    assert stage.spec()["replicas"] == 5
    before = stage.cluster.get(DEPLOYMENT)
    assert do(scale, stage.hands) == "deployment/api: 5 -> 5 replicas"
    assert stage.cluster.get(DEPLOYMENT) == before


def test_variables_are_set_in_their_container_and_keep_their_places() -> None:
    stage = Stage()
    done = do(step(do="set-env", target="deployment/api", container="api", set={"A": "2", "B": "3"}), stage.hands)
    assert done == "deployment/api: A=2, B=3 in api"
    reference = deployment()["spec"]["template"]["spec"]["containers"][1]["env"][1]
    assert stage.container()["env"] == [{"name": "A", "value": "2"}, reference, {"name": "B", "value": "3"}]
    again = do(step(do="set-env", target="deployment/api", container="api", set={"B": "3"}), stage.hands)
    assert again == "deployment/api: B=3 in api (was so already)"
    with pytest.raises(NotSo) as other:
        do(step(do="set-env", target="deployment/api", container="web", set={"B": "3"}), stage.hands)
    assert other.value.why == "deployment/api has no container web"


def test_an_image_is_set() -> None:
    stage = Stage()
    do(step(do="set-image", target="deployment/api", container="api", image="api:2"), stage.hands)
    assert (stage.container()["image"], stage.container()["name"]) == ("api:2", "api")


def test_keys_of_a_config_map_are_set_and_the_others_kept() -> None:
    stage = Stage()
    stage.cluster.put({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": SHOP}, "data": {"x": "1"},
    })  # fmt: skip
    wanted = step(do="set-config", configmap="c", set={"y": "2"})
    assert do(wanted, stage.hands) == "configmap/c: y=2"
    assert stage.cluster.get(Ref("ConfigMap", SHOP, "c"))["data"] == {"x": "1", "y": "2"}
    assert do(wanted, stage.hands) == "configmap/c: y=2 (was so already)"


def test_a_restart_annotates_the_template_once_a_time_and_keeps_its_labels() -> None:
    stage = Stage()
    restart = step(do="restart", target="deployment/api")
    do(restart, stage.hands)
    first = stage.spec()["template"]["metadata"]
    assert first["labels"] == {"a": "b"}
    (stamp,) = first["annotations"].values()
    stage.clock.advance(1.0)
    do(restart, stage.hands)
    assert stage.spec()["template"]["metadata"]["annotations"].values() != {stamp}


def test_jobs_are_deleted_by_label_and_a_runbook_without_any_is_left() -> None:
    stage = Stage()
    for name, label in (("a", "bulk"), ("b", "bulk"), ("c", "other")):
        stage.cluster.put({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": name, "namespace": SHOP, "labels": {"kind": label}},
        })  # fmt: skip
    delete = step(do="delete-jobs", labels={"kind": "bulk"})
    assert do(delete, stage.hands) == "deleted job/a, job/b"
    assert [body["metadata"]["name"] for body in stage.cluster.list("Job", SHOP)] == ["c"]
    with pytest.raises(NotSo, match="no Job carries kind=bulk"):
        do(delete, stage.hands)


def test_a_new_key_is_fresh_each_time_and_is_told_by_name_only() -> None:
    keys: list[str] = []

    def seen(act: Callable[[], Json]) -> Json:
        return act()

    stage = Stage(seen)
    stage.cluster.put({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": SHOP}, "data": {"old": "eA=="},
    })  # fmt: skip
    for _ in range(2):
        assert do(step(do="new-key", secret="s", key="key-current"), stage.hands) == "secret/s: a new key-current"
        (body,) = [one for one in stage.cluster.listing("Secret", SHOP) if one["metadata"]["name"] == "s"]
        keys.append(base64.b64decode(body["data"]["key-current"]).decode())
        assert body["data"]["old"] == "eA=="
    assert len(set(keys)) == 2
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{48}", key) for key in keys)


def test_a_lost_reply_is_looked_after_and_not_repeated_blindly() -> None:
    lost = [True]

    def lose(act: Callable[[], Json]) -> Json:
        answer = act()
        if lost.pop() if lost else False:
            raise OutcomeUnknown("lost", "the reply was lost", expected="a reply", remedy="look")
        return answer

    stage = Stage(lose)
    assert do(step(do="scale", target="deployment/api", replicas=5), stage.hands) == "deployment/api: 3 -> 5 replicas"
    assert (stage.spec()["replicas"], stage.pauses) == (5, 1)
    assert len([call for call in stage.cluster.writes() if call.verb == "patch"]) == 1


def test_a_server_that_refuses_the_connection_is_asked_again() -> None:
    down = [True, True]

    def refuse(act: Callable[[], Json]) -> Json:
        if down:
            down.pop()
            raise Unreachable("down", "no connection", expected="an API server", remedy="wait")
        return act()

    stage = Stage(refuse)
    assert do(step(do="scale", target="deployment/api", replicas=5), stage.hands) == "deployment/api: 3 -> 5 replicas"
    assert (stage.spec()["replicas"], stage.pauses) == (5, 2)


def test_an_object_that_keeps_moving_is_left_after_some_tries() -> None:
    def move(_: Callable[[], Json]) -> Json:
        raise Conflict("moved", "it moved", expected="that version", remedy="look")

    stage = Stage(move)
    with pytest.raises(NotSo, match="kept changing"):
        do(step(do="scale", target="deployment/api", replicas=5), stage.hands)
    assert stage.pauses == ATTEMPTS
