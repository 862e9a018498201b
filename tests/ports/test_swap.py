"""Exchanging values of a live object and putting them back, over the fake API server."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

import pytest

from harness.core.errors import BadInput, Refused
from harness.core.snapshot import fingerprint
from harness.ports.cluster import Conflict, Json, Ref
from harness.ports.swap import ABSENT, Step, capture, changes, exchange, place, restore, written
from tests.fakes.cluster import FakeCluster

NAMESPACE = "shop"
WORKLOAD, SETTINGS = Ref("Deployment", NAMESPACE, "worker"), Ref("ConfigMap", NAMESPACE, "settings")
ENV: tuple[Step, ...] = ("spec", "template", "spec", "containers", {"name": "main"}, "env")
IMAGE: tuple[Step, ...] = (*ENV[:-1], "image")
SIDE: tuple[Step, ...] = (*ENV[:4], {"name": "side"})


def world() -> FakeCluster:
    cluster = FakeCluster(now=lambda: 1000.0)
    env = [{"name": name, "value": name.lower()} for name in ("A", "B", "C", "D")]
    containers = [{"name": "side", "image": "side:1"}, {"name": "main", "image": "main:1", "env": env}]
    cluster.put({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "worker", "namespace": NAMESPACE},
        "spec": {"replicas": 2, "template": {"spec": {"containers": containers}}},
    })  # fmt: skip
    cluster.put({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "settings", "namespace": NAMESPACE},
        "data": {"pool": "8", "a/b~c": "odd"},
    })  # fmt: skip
    return cluster


def captured(cluster: FakeCluster, ref: Ref, exchanges: Sequence[tuple[Sequence[Step], Any]]) -> dict[str, Any]:
    """The record, as it looks after a journey through JSON."""
    record: dict[str, Any] = json.loads(json.dumps(capture(cluster.get(ref), exchanges)))
    return record


def spec(cluster: FakeCluster) -> Json:
    found: Json = cluster.get(WORKLOAD)["spec"]
    return found


def variable(name: str, value: str) -> tuple[tuple[Step, ...], Json]:
    return (*ENV, {"name": name}), {"name": name, "value": value}


def gone(name: str) -> tuple[tuple[Step, ...], Any]:
    return (*ENV, {"name": name}), ABSENT


EXCHANGES: dict[str, list[tuple[Sequence[Step], Any]]] = {
    "a value": [(IMAGE, "main:2")],
    "a variable": [variable("B", "x")],
    "a new variable": [variable("E", "x")],
    "a variable that goes": [gone("B")],
    "two that go": [gone("A"), gone("C")],
    "the last and the first that go": [gone("D"), gone("A")],
    "all that there are": [gone("A"), gone("B"), gone("C"), gone("D")],
    "where no variable was": [((*SIDE, "env", {"name": name}), {"name": name, "value": "x"}) for name in ("E", "F")],
    "where nothing was, two deep": [((*SIDE, "resources", "limits", "cpu"), "1")],
    "one that goes, one that comes, one that stays": [
        gone("A"),
        variable("E", "x"),
        variable("D", "y"),
        (IMAGE, "m:2"),
    ],
}


@pytest.mark.parametrize("exchanges", EXCHANGES.values(), ids=EXCHANGES)
def test_what_is_exchanged_goes_back_to_the_letter(exchanges: list[tuple[Sequence[Step], Any]]) -> None:
    cluster = world()
    before = spec(cluster)
    undo = captured(cluster, WORKLOAD, exchanges)
    exchange(undo, cluster, dry_run=True)
    assert spec(cluster) == before
    exchange(undo, cluster)
    under = spec(cluster)
    assert under != before
    for path, after in exchanges:
        found = place(cluster.get(WORKLOAD), path)
        assert found is not None
        assert found.value == after
    exchange(undo, cluster)
    assert spec(cluster) == under
    assert restore(undo, cluster).outcome == "restored"
    assert spec(cluster) == before
    assert restore(undo, cluster).outcome == "already"
    assert spec(cluster) == before


def test_what_somebody_else_put_beside_ours_keeps_its_holder() -> None:
    cluster = world()
    undo = captured(cluster, WORKLOAD, [((*SIDE, "resources", "limits", "cpu"), "1")])
    late = captured(cluster, WORKLOAD, [((*SIDE, "resources", "limits", "memory"), "1Mi")])
    before = spec(cluster)
    exchange(undo, cluster)
    exchange(late, cluster)
    assert restore(undo, cluster).outcome == "restored"
    assert spec(cluster)["template"]["spec"]["containers"][0]["resources"] == {"limits": {"memory": "1Mi"}}
    assert restore(late, cluster).outcome == "restored"
    assert spec(cluster) == before


def test_two_that_put_items_into_one_list_are_both_made_and_both_go_back_in_any_order() -> None:
    for order in ((0, 1), (1, 0)):
        for holder in (ENV, (*SIDE, "env")):
            cluster = world()
            before = spec(cluster)
            both = [
                captured(cluster, WORKLOAD, [((*holder, {"name": name}), {"name": name, "value": "x"})])
                for name in "EF"
            ]
            for undo in both:
                exchange(undo, cluster, dry_run=True)
                exchange(undo, cluster)
                exchange(undo, cluster)
            for one in order:
                assert restore(both[one], cluster).outcome == "restored"
            assert spec(cluster) == before


def test_an_item_that_somebody_put_there_since_is_not_doubled() -> None:
    class Racing(FakeCluster):
        """Somebody puts one of that name there just after the look."""

        def patch(self, ref: Ref, operations: Any, **given: Any) -> Any:
            late(self)
            return super().patch(ref, operations, **given)

    def late(cluster: FakeCluster) -> None:
        body = cluster.get(WORKLOAD)
        body["spec"]["template"]["spec"]["containers"][1]["env"].append({"name": "E", "value": "theirs"})
        cluster.put(body)

    for kind, act in ((FakeCluster, late), (Racing, lambda _: None)):
        cluster = world()
        undo = captured(cluster, WORKLOAD, [variable("E", "x")])
        cluster.__class__ = kind
        act(cluster)
        with pytest.raises(Conflict):
            exchange(undo, cluster)
        names = [one["name"] for one in spec(cluster)["template"]["spec"]["containers"][1]["env"]]
        assert names == ["A", "B", "C", "D", "E"]


def test_what_the_server_left_out_because_it_was_empty_is_made_again() -> None:
    cluster = world()
    before, undo = spec(cluster), captured(cluster, WORKLOAD, [gone(name) for name in "ABCD"])
    exchange(undo, cluster)
    body = cluster.get(WORKLOAD)
    assert body["spec"]["template"]["spec"]["containers"][1].pop("env") == []
    cluster.put(body)
    exchange(undo, cluster)
    assert restore(undo, cluster).outcome == "restored"
    assert spec(cluster) == before


def test_containers_that_moved_since_lose_what_was_made_for_them() -> None:
    cluster = world()
    before, undo = spec(cluster), captured(cluster, WORKLOAD, [((*SIDE, "resources", "limits", "cpu"), "1")])
    exchange(undo, cluster)
    body = cluster.get(WORKLOAD)
    body["spec"]["template"]["spec"]["containers"].reverse()
    cluster.put(body)
    assert restore(undo, cluster).outcome == "restored"
    before["template"]["spec"]["containers"].reverse()
    assert spec(cluster) == before


def test_keys_of_a_settings_object_come_go_and_change() -> None:
    cluster = world()
    before = cluster.get(SETTINGS)["data"]
    undo = captured(cluster, SETTINGS, [(("data", "pool"), "1"), (("data", "a/b~c"), ABSENT), (("data", "new"), "n")])
    assert [(one.path, one.before, one.after) for one in changes(undo)] == [
        ("/data/pool", "8", "1"),
        ("/data/a~1b~0c", "odd", None),
        ("/data/new", None, "n"),
    ]
    exchange(undo, cluster)
    assert cluster.get(SETTINGS)["data"] == {"pool": "1", "new": "n"}
    done = restore(undo, cluster)
    assert cluster.get(SETTINGS)["data"] == before
    assert done.outcome == "restored"
    assert "data.pool 1 -> 8" in done.detail


def test_undone_without_having_been_exchanged_it_changes_nothing() -> None:
    cluster = world()
    version = cluster.get(WORKLOAD)["metadata"]["resourceVersion"]
    undo = captured(cluster, WORKLOAD, [variable("B", "x"), variable("E", "x")])
    assert restore(undo, cluster).outcome == "already"
    assert cluster.get(WORKLOAD)["metadata"]["resourceVersion"] == version


def test_what_changed_since_it_was_captured_is_not_touched() -> None:
    for spoil in (
        lambda body: body["spec"]["template"]["spec"]["containers"].reverse(),
        other_image,
    ):
        cluster = world()
        undo = captured(cluster, WORKLOAD, [(IMAGE, "main:2")])
        body = cluster.get(WORKLOAD)
        spoil(body)
        cluster.put(body)
        before = spec(cluster)
        with pytest.raises(Conflict):
            exchange(undo, cluster)
        assert spec(cluster) == before


def other_image(body: Json) -> None:
    body["spec"]["template"]["spec"]["containers"][1]["image"] = "main:9"


def test_a_list_that_changed_since_takes_no_item_away_by_its_old_place() -> None:
    cluster = world()
    undo = captured(cluster, WORKLOAD, [gone("B")])
    body = cluster.get(WORKLOAD)
    body["spec"]["template"]["spec"]["containers"][1]["env"].pop(0)
    cluster.put(body)
    before = spec(cluster)
    with pytest.raises(Conflict):
        exchange(undo, cluster)
    assert spec(cluster) == before


def test_containers_that_moved_since_are_still_put_back() -> None:
    cluster = world()
    undo = captured(cluster, WORKLOAD, [(IMAGE, "main:2"), gone("A")])
    exchange(undo, cluster)
    body = cluster.get(WORKLOAD)
    body["spec"]["template"]["spec"]["containers"].reverse()
    cluster.put(body)
    assert restore(undo, cluster).outcome == "restored"
    main = spec(cluster)["template"]["spec"]["containers"][0]
    assert (main["image"], [one["name"] for one in main["env"]]) == ("main:1", ["A", "B", "C", "D"])


def test_somebody_elses_value_is_left_and_ours_go_back_until_it_is_forced() -> None:
    cluster = world()
    undo = captured(cluster, SETTINGS, [(("data", "pool"), "1"), (("data", "new"), "n")])
    exchange(undo, cluster)
    body = cluster.get(SETTINGS)
    body["data"]["pool"] = "what-they-wrote"
    cluster.put(body)
    done = restore(undo, cluster)
    assert done.outcome == "refused"
    assert f"data.pool is {fingerprint('what-they-wrote')}" in done.detail
    assert "what-they-wrote" not in done.detail
    assert "neither what the drill wrote (1) nor what was there before (8)" in done.detail
    assert cluster.get(SETTINGS)["data"] == {"pool": "what-they-wrote", "a/b~c": "odd"}
    forced = restore(undo, cluster, force=True)
    assert (forced.outcome, "what-they-wrote" in forced.detail) == ("restored", False)
    assert cluster.get(SETTINGS)["data"] == {"pool": "8", "a/b~c": "odd"}


ARGS: tuple[Step, ...] = (*SIDE, "args")
BEFORE = ["--verbose", "--password=hunter2", "--last"]


def with_args(*args: str) -> FakeCluster:
    cluster = world()
    put_args(cluster, *args)
    return cluster


def put_args(cluster: FakeCluster, *args: str) -> None:
    body = cluster.get(WORKLOAD)
    body["spec"]["template"]["spec"]["containers"][0]["args"] = list(args)
    cluster.put(body)


def args(cluster: FakeCluster) -> list[str]:
    found: list[str] = spec(cluster)["template"]["spec"]["containers"][0]["args"]
    return found


LISTS = {
    "one that changes": ["--quiet", *BEFORE[1:]],
    "the last that changes": [*BEFORE[:-1], "--quiet"],
    "one that comes": ["--first", *BEFORE],
    "one that comes at the end": [*BEFORE, "--last"],
    "one that goes": BEFORE[1:],
    "two of which one comes and one goes": ["--first", *BEFORE[1:-1]],
}


@pytest.mark.parametrize("after", LISTS.values(), ids=LISTS)
def test_a_list_that_may_hold_secrets_goes_back_to_the_letter(after: list[str]) -> None:
    cluster = with_args(*BEFORE)
    undo = captured(cluster, WORKLOAD, [(ARGS, after)])
    exchange(undo, cluster, dry_run=True)
    assert args(cluster) == BEFORE
    assert restore(undo, cluster).outcome == "already"
    for _ in range(2):
        exchange(undo, cluster)
        assert args(cluster) == after
    assert [restore(undo, cluster).outcome for _ in range(2)] == ["restored", "already"]
    assert args(cluster) == BEFORE


@pytest.mark.parametrize("which", [name for name in LISTS if name.startswith(("one", "the last"))])
def test_of_a_list_that_may_hold_secrets_no_more_is_kept_or_told_than_what_changes(which: str) -> None:
    cluster = with_args(*BEFORE)
    undo = captured(cluster, WORKLOAD, [(ARGS, LISTS[which])])
    told: list[Any] = [undo, changes(undo), restore(undo, cluster)]
    exchange(undo, cluster)
    told += [restore(undo, cluster), restore(undo, cluster)]
    assert "hunter2" not in str(told)


def test_a_list_of_which_no_more_is_known_is_neither_written_to_nor_made_up() -> None:
    cluster = with_args(*BEFORE)
    undo = captured(cluster, WORKLOAD, [(ARGS, LISTS["one that changes"])])
    put_args(cluster, *BEFORE, "--theirs")
    with pytest.raises(Conflict):
        exchange(undo, cluster)
    put_args(cluster, *BEFORE)
    exchange(undo, cluster)
    put_args(cluster, "--quiet", "--password=stolen")
    refused = restore(undo, cluster)
    assert (refused.outcome, "stolen" in refused.detail) == ("refused", False)
    assert args(cluster) == ["--quiet", "--password=stolen"]
    assert restore(undo, cluster, force=True).outcome == "restored"
    assert args(cluster) == ["--verbose", "--password=stolen"], "what the drill changed, and nothing else"
    put_args(cluster, "--theirs")
    with pytest.raises(Refused, match="no longer the list") as caught:
        restore(undo, cluster, force=True)
    assert caught.value.slug == "place-gone"
    assert args(cluster) == ["--theirs"]


def test_a_vanished_object_and_a_new_one_of_its_name_are_not_touched() -> None:
    cluster = world()
    undo = captured(cluster, SETTINGS, [(("data", "pool"), "1")])
    exchange(undo, cluster)
    broken = copy.deepcopy(cluster.get(SETTINGS))
    cluster.delete(SETTINGS)
    assert restore(undo, cluster).outcome == "vanished"
    for data, outcome in (({"pool": "8"}, "vanished"), ({"pool": "1"}, "refused")):
        anew = {key: value for key, value in broken.items() if key != "metadata"}
        cluster.put(
            {**anew, "metadata": {"name": "settings", "namespace": NAMESPACE, "uid": f"u{outcome}"}, "data": data}
        )
        assert restore(undo, cluster, force=True).outcome == outcome
        assert cluster.get(SETTINGS)["data"] == data
        with pytest.raises(Conflict):
            exchange(undo, cluster)


def test_values_that_the_server_spells_otherwise_are_ours() -> None:
    cluster = world()
    undo = captured(cluster, SETTINGS, [(("data", "pool"), "01")])
    exchange(undo, cluster)
    body = cluster.get(SETTINGS)
    body["data"]["pool"] = "1"
    cluster.put(body)
    assert restore(undo, cluster, lambda a, b: int(a) == int(b)).outcome == "restored"
    assert cluster.get(SETTINGS)["data"]["pool"] == "8"


@pytest.mark.parametrize(("key", "value"), [("pool", "8"), ("new", ABSENT)])
def test_what_is_so_already_is_no_exchange(key: str, value: Any) -> None:
    with pytest.raises(BadInput) as caught:
        capture(world().get(SETTINGS), [(("data", key), value)])
    assert caught.value.slug == "nothing-to-change"


def test_a_path_that_leads_nowhere_is_refused() -> None:
    cluster = world()
    nowhere: tuple[Step, ...] = ("spec", "template", "spec", "containers", {"name": "other"}, "image")
    with pytest.raises(Refused) as caught:
        capture(cluster.get(WORKLOAD), [(nowhere, "x")])
    assert caught.value.slug == "place-gone"
    assert written(nowhere) == "spec.template.spec.containers[other].image"
    undo = captured(cluster, WORKLOAD, [(IMAGE, "main:2")])
    exchange(undo, cluster)
    body = cluster.get(WORKLOAD)
    body["spec"]["template"]["spec"]["containers"].pop(1)
    cluster.put(body)
    with pytest.raises(Refused) as caught:
        restore(undo, cluster, force=True)
    assert caught.value.slug == "place-gone"
