"""What every Cluster does, the fake and the real one alike."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable, Iterator
from threading import Event as Flag
from threading import Thread
from typing import Any, cast

import pytest

from harness.core.clock import parse_utc
from harness.core.ownership import members
from harness.ports.cluster import (
    FIELD_MANAGER,
    AlreadyExists,
    Cluster,
    Conflict,
    Invalid,
    Json,
    NotFound,
    Ref,
    WatchEvent,
)
from harness.ports.kinds import called
from tests.fakes.cluster import FakeCluster
from tests.hands import hand

pytestmark = pytest.mark.apart


@pytest.fixture(params=[pytest.param("fake"), pytest.param("real", marks=pytest.mark.cluster)])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    if request.param == "fake":
        return FakeCluster(now=time.time)
    return cast("Cluster", request.getfixturevalue("real_cluster"))


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    name = f"contract-{secrets.token_hex(4)}"
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    cluster.delete(Ref("Namespace", "", name))


def config(namespace: str, name: str = "settings", **data: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": "contract"}},
        "data": data or {"color": "red"},
    }


def deployment(namespace: str) -> Json:
    container = {"name": "main", "image": "none:1", "resources": {"limits": {"memory": "64Mi"}}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}},
        },
    }


def ref(namespace: str, name: str = "settings", kind: str = "ConfigMap") -> Ref:
    return Ref(kind, namespace, name)


def test_what_was_created_can_be_read(cluster: Cluster, namespace: str) -> None:
    created = cluster.create(config(namespace))
    found = cluster.get(ref(namespace))
    assert found["data"] == {"color": "red"}
    assert (found["kind"], found["apiVersion"]) == ("ConfigMap", "v1")
    for name in ("uid", "resourceVersion", "creationTimestamp"):
        assert found["metadata"][name] == created["metadata"][name] != ""
    stamp = parse_utc(found["metadata"]["creationTimestamp"])
    assert stamp == int(stamp)


def test_a_missing_object_is_not_found(cluster: Cluster, namespace: str) -> None:
    with pytest.raises(NotFound):
        cluster.get(ref(namespace, "nobody"))
    with pytest.raises(NotFound):
        cluster.patch(ref(namespace, "nobody"), [{"op": "add", "path": "/data", "value": {}}])


def test_a_missing_namespace_is_not_found(cluster: Cluster) -> None:
    with pytest.raises(NotFound):
        cluster.create(config("contract-nowhere"))


def test_an_unknown_kind_is_invalid(cluster: Cluster, namespace: str) -> None:
    with pytest.raises(Invalid):
        cluster.get(Ref("Gadget", namespace, "one"))
    with pytest.raises(Invalid):
        cluster.list("Gadget", namespace)
    with pytest.raises(Invalid):
        cluster.create({"apiVersion": "v1", "kind": "Gadget", "metadata": {"name": "one", "namespace": namespace}})


def test_lists_are_of_one_namespace_and_of_the_labels_asked_for(cluster: Cluster, namespace: str) -> None:
    cluster.create(config(namespace, "one"))
    cluster.create(config(namespace, "two"))
    other = config(namespace, "three")
    other["metadata"]["labels"] = {"app": "other"}
    cluster.create(other)
    found = cluster.list("ConfigMap", namespace, "app=contract")
    assert sorted(body["metadata"]["name"] for body in found) == ["one", "two"]
    assert {(body["kind"], body["apiVersion"]) for body in found} == {("ConfigMap", "v1")}
    assert cluster.list("ConfigMap", namespace, "app=nobody") == []
    assert {body["metadata"]["name"] for body in cluster.list("ConfigMap", namespace, "app in (other)")} == {"three"}
    assert namespace in {body["metadata"]["name"] for body in cluster.list("Namespace", "")}


def test_a_second_create_already_exists(cluster: Cluster, namespace: str) -> None:
    cluster.create(config(namespace))
    with pytest.raises(AlreadyExists):
        cluster.create(config(namespace, color="blue"))
    assert cluster.get(ref(namespace))["data"] == {"color": "red"}


def test_names_can_be_generated(cluster: Cluster, namespace: str) -> None:
    body = config(namespace)
    del body["metadata"]["name"]
    body["metadata"]["generateName"] = "note-"
    names = {cluster.create(body)["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("note-") and len(name) > 5 for name in names)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"metadata": {"name": "Not_Valid"}}, id="name"),
        pytest.param({"data": {"color": 7}}, id="type"),
        pytest.param({"dta": {"color": "red"}}, id="unknown field"),
    ],
)
def test_what_the_server_does_not_accept_is_invalid(cluster: Cluster, namespace: str, change: Json) -> None:
    body = config(namespace)
    body["metadata"] |= change.get("metadata", {})
    with pytest.raises(Invalid):
        cluster.create({**body, **{key: value for key, value in change.items() if key != "metadata"}})


def test_a_dry_run_of_a_create_changes_nothing(cluster: Cluster, namespace: str) -> None:
    assert cluster.create(config(namespace), dry_run=True)["data"] == {"color": "red"}
    with pytest.raises(NotFound):
        cluster.get(ref(namespace))


def test_a_replace_needs_the_newest_version(cluster: Cluster, namespace: str) -> None:
    first = cluster.create(config(namespace))
    second = cluster.replace({**first, "data": {"color": "blue"}})
    assert second["metadata"]["resourceVersion"] != first["metadata"]["resourceVersion"]
    with pytest.raises(Conflict):
        cluster.replace({**first, "data": {"color": "green"}})
    assert cluster.get(ref(namespace))["data"] == {"color": "blue"}


def test_a_replace_without_a_version_is_invalid(cluster: Cluster, namespace: str) -> None:
    cluster.create(config(namespace))
    with pytest.raises(Invalid):
        cluster.replace(config(namespace, color="blue"))
    assert cluster.get(ref(namespace))["data"] == {"color": "red"}


def test_a_replace_of_a_missing_object_is_not_found(cluster: Cluster, namespace: str) -> None:
    body = cluster.create(config(namespace))
    cluster.delete(ref(namespace))
    with pytest.raises((NotFound, Conflict)):
        cluster.replace(body)


def test_a_patch_applies_all_its_operations(cluster: Cluster, namespace: str) -> None:
    cluster.create(config(namespace, color="red", size="small"))
    operations: list[Json] = [
        {"op": "test", "path": "/data/color", "value": "red"},
        {"op": "replace", "path": "/data/color", "value": "blue"},
        {"op": "remove", "path": "/data/size"},
        {"op": "add", "path": "/metadata/annotations", "value": {}},
        {"op": "add", "path": "/metadata/annotations/drill.internal~1undo", "value": "a~b"},
    ]
    patched = cluster.patch(ref(namespace), operations)
    found = cluster.get(ref(namespace))
    assert found == patched
    assert found["data"] == {"color": "blue"}
    assert found["metadata"]["annotations"]["drill.internal/undo"] == "a~b"


def test_a_failed_test_is_a_conflict_and_changes_nothing(cluster: Cluster, namespace: str) -> None:
    before = cluster.create(deployment(namespace))
    limit = "/spec/template/spec/containers/0/resources/limits/memory"
    with pytest.raises(Conflict, match="64Mi"):
        cluster.patch(
            ref(namespace, "web", "Deployment"),
            [
                {"op": "replace", "path": "/spec/replicas", "value": 1},
                {"op": "test", "path": limit, "value": "128Mi"},
                {"op": "replace", "path": limit, "value": "32Mi"},
            ],
        )
    assert cluster.get(ref(namespace, "web", "Deployment"))["spec"] == before["spec"]


def test_a_test_compares_text(cluster: Cluster, namespace: str) -> None:
    cluster.create(deployment(namespace))
    limit = "/spec/template/spec/containers/0/resources/limits/memory"
    with pytest.raises(Conflict):
        cluster.patch(
            ref(namespace, "web", "Deployment"),
            [
                {"op": "test", "path": limit, "value": str(64 * 1024 * 1024)},
                {"op": "replace", "path": limit, "value": "32Mi"},
            ],
        )


@pytest.mark.parametrize(
    ("op", "path"),
    [
        ("remove", "/data/shape"),
        ("test", "/data/shape"),
        ("remove", "/binaryData/shape"),
        ("replace", "/binaryData/shape"),
        ("add", "/binaryData/shape"),
        ("replace", "/metadata/finalizers/0"),
    ],
)
def test_a_path_that_is_not_there_is_a_conflict(cluster: Cluster, namespace: str, op: str, path: str) -> None:
    cluster.create(config(namespace))
    with pytest.raises(Conflict):
        cluster.patch(ref(namespace), [{"op": op, "path": path, "value": "round"}])


def test_a_replace_of_a_missing_member_adds_it(cluster: Cluster, namespace: str) -> None:
    """Against RFC 6902, and the reason why a precondition needs a `test` of its own."""
    cluster.create(config(namespace))
    patched = cluster.patch(ref(namespace), [{"op": "replace", "path": "/data/shape", "value": "round"}])
    assert patched["data"] == {"color": "red", "shape": "round"}


def test_a_test_for_null_holds_where_nothing_is(cluster: Cluster, namespace: str) -> None:
    cluster.create(config(namespace))
    absent = {"op": "test", "path": "/data/shape", "value": None}
    added = {"op": "add", "path": "/data/shape", "value": "round"}
    assert cluster.patch(ref(namespace), [absent, added])["data"]["shape"] == "round"
    with pytest.raises(Conflict):
        cluster.patch(ref(namespace), [absent, {"op": "replace", "path": "/data/shape", "value": "flat"}])


def test_a_test_of_another_uid_or_version_is_a_conflict(cluster: Cluster, namespace: str) -> None:
    body = cluster.create(config(namespace))
    change = {"op": "replace", "path": "/data/color", "value": "blue"}
    for name in ("uid", "resourceVersion"):
        with pytest.raises(Conflict):
            cluster.patch(ref(namespace), [{"op": "test", "path": f"/metadata/{name}", "value": "1"}, change])
        good = {"op": "test", "path": f"/metadata/{name}", "value": body["metadata"][name]}
        assert cluster.patch(ref(namespace), [good, change], dry_run=True)["data"] == {"color": "blue"}


def test_a_patch_to_another_uid_is_a_conflict(cluster: Cluster, namespace: str) -> None:
    cluster.create(config(namespace))
    other = "00000000-0000-4000-8000-000000000000"
    with pytest.raises(Conflict):
        cluster.patch(ref(namespace), [{"op": "replace", "path": "/metadata/uid", "value": other}])


def test_a_patch_to_something_unacceptable_is_invalid(cluster: Cluster, namespace: str) -> None:
    cluster.create(config(namespace))
    with pytest.raises(Invalid):
        cluster.patch(ref(namespace), [{"op": "add", "path": "/data/color", "value": 7}])
    with pytest.raises(Invalid):
        cluster.patch(ref(namespace), [{"op": "add", "path": "/dta", "value": {}}])
    assert cluster.get(ref(namespace))["data"] == {"color": "red"}


def test_a_dry_run_of_a_patch_changes_nothing(cluster: Cluster, namespace: str) -> None:
    before = cluster.create(config(namespace))
    shown = cluster.patch(ref(namespace), [{"op": "replace", "path": "/data/color", "value": "blue"}], dry_run=True)
    assert shown["data"] == {"color": "blue"}
    assert cluster.get(ref(namespace)) == before


def test_a_patch_of_nothing_keeps_the_version(cluster: Cluster, namespace: str) -> None:
    before = cluster.create(config(namespace))
    same = cluster.patch(ref(namespace), [{"op": "replace", "path": "/data/color", "value": "red"}])
    assert same["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


def test_the_generation_counts_changes_of_the_spec(cluster: Cluster, namespace: str) -> None:
    assert cluster.create(deployment(namespace))["metadata"]["generation"] == 1
    labelled = [{"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}]
    where = ref(namespace, "web", "Deployment")
    assert cluster.patch(where, labelled)["metadata"]["generation"] == 1
    paused = [{"op": "add", "path": "/spec/paused", "value": True}]
    assert cluster.patch(where, paused)["metadata"]["generation"] == 2


def test_what_is_immutable_stays(cluster: Cluster, namespace: str) -> None:
    cluster.create({**config(namespace), "immutable": True})
    with pytest.raises(Invalid):
        cluster.patch(ref(namespace), [{"op": "replace", "path": "/data/color", "value": "blue"}])


def test_a_delete_is_idempotent(cluster: Cluster, namespace: str) -> None:
    cluster.create(config(namespace))
    cluster.delete(ref(namespace))
    with pytest.raises(NotFound):
        cluster.get(ref(namespace))
    cluster.delete(ref(namespace))


def test_a_delete_of_another_uid_is_a_conflict(cluster: Cluster, namespace: str) -> None:
    uid = cluster.create(config(namespace))["metadata"]["uid"]
    with pytest.raises(Conflict):
        cluster.delete(ref(namespace), uid="00000000-0000-4000-8000-000000000000")
    assert cluster.get(ref(namespace))["metadata"]["uid"] == uid
    cluster.delete(ref(namespace), uid=uid)


def test_a_delete_of_another_version_is_a_conflict(cluster: Cluster, namespace: str) -> None:
    first = cluster.create(config(namespace))["metadata"]
    second = cluster.patch(ref(namespace), [{"op": "replace", "path": "/data/color", "value": "blue"}])["metadata"]
    with pytest.raises(Conflict):
        cluster.delete(ref(namespace), uid=first["uid"], version=first["resourceVersion"])
    assert cluster.get(ref(namespace))["data"] == {"color": "blue"}
    cluster.delete(ref(namespace), uid=second["uid"], version=second["resourceVersion"])
    with pytest.raises(NotFound):
        cluster.get(ref(namespace))


def test_a_dry_run_of_a_delete_removes_nothing(cluster: Cluster, namespace: str) -> None:
    before = cluster.create(config(namespace))
    cluster.delete(ref(namespace), dry_run=True)
    assert cluster.get(ref(namespace)) == before
    with pytest.raises(Conflict):
        cluster.delete(ref(namespace), uid="00000000-0000-4000-8000-000000000000", dry_run=True)


def test_what_a_finalizer_holds_is_leaving_until_it_lets_go(cluster: Cluster, namespace: str) -> None:
    body = config(namespace)
    body["metadata"]["finalizers"] = ["example.org/hold"]
    cluster.create(body)
    cluster.delete(ref(namespace))
    assert "deletionTimestamp" in cluster.get(ref(namespace))["metadata"]
    cluster.patch(ref(namespace), [{"op": "remove", "path": "/metadata/finalizers"}])
    with pytest.raises(NotFound):
        cluster.get(ref(namespace))


def test_what_belongs_to_an_owner_goes_with_it_and_does_not_outlive_one_that_is_gone(
    cluster: Cluster, namespace: str
) -> None:
    owner = cluster.create(config(namespace, "owner"))["metadata"]

    def owned(name: str) -> Json:
        body = config(namespace, name)
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["uid"]}
        return {**body, "metadata": {**body["metadata"], "ownerReferences": [reference]}}

    def gone(name: str) -> bool:
        return name not in {one["metadata"]["name"] for one in cluster.list("ConfigMap", namespace)}

    cluster.create(owned("early"))
    assert not gone("early")
    cluster.delete(ref(namespace, "owner"))
    until(lambda: gone("early"))
    cluster.create(owned("late"))
    until(lambda: gone("late"))


def until(what: Callable[[], bool], seconds: float = 20.0) -> None:
    pause, deadline = Flag(), time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        pause.wait(0.05)


def test_a_kind_that_is_not_in_the_table_is_asked_for(cluster: Cluster, namespace: str) -> None:
    if isinstance(cluster, FakeCluster):
        told = [{"name": "limitranges/x", "kind": "LimitRange"}, {"name": "limitranges", "kind": "LimitRange"}]
        cluster.defined["v1"] = [{**one, "namespaced": True} for one in told]
    kind = called("v1", "LimitRange")
    assert kind == "LimitRange.v1"
    assert (cluster.kind(kind).plural, cluster.kind(kind).namespaced) == ("limitranges", True)
    where = Ref(kind, namespace, "limits")
    limits = [{"type": "Container", "default": {"cpu": "1"}}]
    body = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "limits", "namespace": namespace}}
    made = cluster.create({**body, "spec": {"limits": limits}})
    assert cluster.get(where)["metadata"]["uid"] == made["metadata"]["uid"]
    assert [one["kind"] for one in cluster.list(kind, namespace)] == ["LimitRange"]
    assert cluster.allowed("get", kind, namespace) is True
    cluster.delete(where, uid=made["metadata"]["uid"])
    with pytest.raises(NotFound):
        cluster.get(where)
    for unknown in ("Gadget.v1", "Gadget.v1.nobody.example.org"):
        with pytest.raises(Invalid) as caught:
            cluster.kind(unknown)
        assert caught.value.slug == "unknown-kind"


def secret(namespace: str, **strings: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "keys", "namespace": namespace, "labels": {"app": "contract"}},
        "stringData": strings,
    }


def test_a_secrets_strings_are_encoded(cluster: Cluster, namespace: str) -> None:
    cluster.create(secret(namespace, token="abc"))
    cluster.patch(ref(namespace, "keys", "Secret"), [{"op": "test", "path": "/data/token", "value": "YWJj"}])


def test_no_answer_holds_what_is_in_a_secret(cluster: Cluster, namespace: str) -> None:
    where, value = ref(namespace, "keys", "Secret"), secrets.token_hex(16)
    body = secret(namespace, token=value)
    copy = f'{{"data": {{"token": "{value}"}}}}'
    body["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": copy}
    answers = [cluster.create(body, dry_run=True), cluster.create(body), cluster.get(where)]
    answers += cluster.list("Secret", namespace)
    answers += cluster.list("Secret", namespace, "app=contract")
    change = [{"op": "add", "path": "/data/more", "value": base64.b64encode(value.encode()).decode()}]
    answers += [cluster.patch(where, change, dry_run=True), cluster.patch(where, change)]
    stop = Flag()
    events = cluster.watch("Secret", namespace, "", stop)
    answers += next(events).items
    cluster.patch(where, [{"op": "remove", "path": "/data/more"}])
    answers += next(events).items
    stop.set()
    assert len(answers) == 9
    for answer in answers:
        assert set(answer) == {"apiVersion", "kind", "metadata"}
        assert (answer["apiVersion"], answer["kind"]) == ("v1", "Secret")
        assert answer["metadata"]["name"] == "keys"
        assert value not in str(answer)
        assert base64.b64encode(value.encode()).decode() not in str(answer)


def test_no_refusal_tells_what_is_in_a_secret(cluster: Cluster, namespace: str) -> None:
    where, value = ref(namespace, "keys", "Secret"), secrets.token_hex(16)
    encoded = base64.b64encode(value.encode()).decode()
    cluster.create(secret(namespace, token=value))
    for operations in (
        [{"op": "add", "path": "/data/other", "value": 7}],
        [{"op": "test", "path": "/data/token", "value": "b3RoZXI="}],
        [{"op": "test", "path": "/data/token", "value": None}],
        [{"op": "remove", "path": "/data/none"}],
        [{"op": "add", "path": "/dta", "value": {}}],
        [{"op": "add", "path": "/metadata/labels", "value": {"not a name": "x"}}],
    ):
        try:
            cluster.patch(where, operations)
        except (Conflict, Invalid) as error:
            told = f"{error}{error.as_dict()}"
            assert value not in told
            assert encoded not in told
        else:
            assert operations[0]["path"] == "/metadata/labels", "the fake lets any label pass"
    assert list(members(cluster.get(where), "data")) == ["token"]


def test_a_secret_is_never_replaced(cluster: Cluster, namespace: str) -> None:
    """What was read lacks the data, and would be written without it."""
    body = cluster.create(secret(namespace, token="abc"))
    with pytest.raises(Invalid):
        cluster.replace(body)
    assert list(members(cluster.get(ref(namespace, "keys", "Secret")), "data")) == ["token"]


def test_a_move_takes_a_value_elsewhere_and_over_what_is_there(cluster: Cluster, namespace: str) -> None:
    where = ref(namespace, "keys", "Secret")
    cluster.create(secret(namespace, token="abc", other="def"))
    cluster.patch(where, [{"op": "move", "from": "/data/token", "path": "/data/kept"}])
    assert list(members(cluster.get(where), "data")) == ["kept", "other"]
    with pytest.raises(Conflict):
        cluster.patch(where, [{"op": "move", "from": "/data/token", "path": "/data/kept"}])
    cluster.patch(where, [{"op": "move", "from": "/data/kept", "path": "/data/other"}])
    cluster.patch(where, [{"op": "test", "path": "/data/other", "value": "YWJj"}])
    assert list(members(cluster.get(where), "data")) == ["other"]


def test_the_names_of_a_secrets_data_and_their_writers_are_known(cluster: Cluster, namespace: str) -> None:
    where, others = ref(namespace, "keys", "Secret"), hand(cluster)
    others.create(secret(namespace, token="abc", other="def"))
    first = members(cluster.get(where), "data")
    assert list(first) == ["other", "token"]
    assert {writer.manager for writers in first.values() for writer in writers} == {"somebody"}
    cluster.patch(where, [{"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}])
    assert members(cluster.get(where), "data") == first, "a label is none of the data"
    cluster.patch(where, [{"op": "replace", "path": "/data/token", "value": "eHl6"}])
    second = members(cluster.get(where), "data")
    assert (second["other"], [writer.manager for writer in second["token"]]) == (first["other"], [FIELD_MANAGER])
    others.write(where, "token", b"theirs")
    assert [writer.manager for writer in members(cluster.get(where), "data")["token"]] == ["somebody"]
    others.write(where, "token", None)
    assert list(members(cluster.get(where), "data")) == ["other"]
    assert others.read(where)["data"] == {"other": "ZGVm"}


class Watching:
    """A watch on a thread, with what it told."""

    def __init__(self, cluster: Cluster, namespace: str, labels: str = "app=contract") -> None:
        self.stop = Flag()
        self.seen: list[WatchEvent] = []
        self.error: Exception | None = None
        self._arrived = Flag()
        self._events = cluster.watch("ConfigMap", namespace, labels, self.stop)
        self.thread = Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            for event in self._events:
                self.seen.append(event)
                self._arrived.set()
        except Exception as error:  # noqa: BLE001 - handed to the test
            self.error = error

    def until(self, wanted: Any, seconds: float = 10.0) -> None:
        """Wait until `wanted(seen)`."""
        deadline = time.monotonic() + seconds
        while not wanted(self.seen):
            assert time.monotonic() < deadline, self.seen
            self._arrived.wait(0.05)
            self._arrived.clear()

    def end(self) -> float:
        """Stop it; how long that took."""
        begun = time.monotonic()
        self.stop.set()
        self.thread.join(5.0)
        assert not self.thread.is_alive()
        assert self.error is None
        return time.monotonic() - begun


@pytest.fixture
def watching(cluster: Cluster, namespace: str) -> Iterator[Watching]:
    cluster.create(config(namespace, "early"))
    watch = Watching(cluster, namespace)
    watch.until(lambda seen: len(seen) >= 1)
    yield watch
    watch.end()


def test_a_watch_begins_with_a_sync(watching: Watching) -> None:
    first = watching.seen[0]
    assert first.type == "sync"
    assert [body["metadata"]["name"] for body in first.items] == ["early"]
    assert first.items[0]["kind"] == "ConfigMap"


def test_a_watch_tells_of_changes_in_order(cluster: Cluster, namespace: str, watching: Watching) -> None:
    cluster.create(config(namespace, "late"))
    cluster.patch(ref(namespace, "late"), [{"op": "replace", "path": "/data/color", "value": "blue"}])
    cluster.delete(ref(namespace, "late"))
    other = config(namespace, "other")
    other["metadata"]["labels"] = {"app": "other"}
    cluster.create(other)
    cluster.delete(ref(namespace, "early"))
    watching.until(lambda seen: len(seen) >= 5)
    told = [(event.type, event.items[0]["metadata"]["name"]) for event in watching.seen[1:]]
    assert told == [("added", "late"), ("modified", "late"), ("deleted", "late"), ("deleted", "early")]
    assert watching.seen[2].items[0]["data"] == {"color": "blue"}


def test_an_object_that_leaves_the_selection_is_deleted_for_the_watch(
    cluster: Cluster, namespace: str, watching: Watching
) -> None:
    cluster.patch(ref(namespace, "early"), [{"op": "replace", "path": "/metadata/labels/app", "value": "other"}])
    watching.until(lambda seen: len(seen) >= 2)
    assert watching.seen[1].type == "deleted"


def test_a_quiet_watch_stops_at_once(watching: Watching) -> None:
    assert watching.end() < 1.0


def test_a_stopped_watch_of_nothing_ends(cluster: Cluster, namespace: str) -> None:
    stop = Flag()
    stop.set()
    begun = time.monotonic()
    assert all(event.type == "sync" for event in cluster.watch("ConfigMap", namespace, "", stop))
    assert time.monotonic() - begun < 2.0


def test_somebody_is_asking(cluster: Cluster) -> None:
    assert cluster.whoami().username
    assert cluster.server_version().startswith("v")
    assert cluster.allowed("get", "Pod", "default") is True


def test_the_clock_is_compared_within_bounds(cluster: Cluster) -> None:
    offset = cluster.offset()
    assert offset.width <= 1.5
    assert abs((offset.earliest + offset.latest) / 2) < 5.0
