"""A fleet's file as values, and which targets would be in each other's way."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from pydantic import ValidationError

from harness.core.experiment import SelfCheckError
from harness.core.fleet import MOST_TARGETS, Fleet, Ground, Target, collisions
from harness.core.quantity import WRITTEN


def target(name: str = "one", **fields: Any) -> dict[str, Any]:
    return {"name": name, "experiment": "noop", "context": "staging", **fields}


def fleet(*targets: dict[str, Any], **fields: Any) -> Fleet:
    return Fleet.model_validate({"targets": list(targets), **fields}, context=WRITTEN)


def test_what_is_not_said_has_its_default() -> None:
    found = fleet(target())
    assert (found.profile, found.responder, found.start_within) == ("smoke", None, 120.0)
    (one,) = found.targets
    assert (one.profile, one.responder, one.prometheus, one.alertmanager, one.pager) == (None,) * 5


@pytest.mark.parametrize("names", [("context",), ("local",), ("kind",)])
def test_a_target_is_on_one_cluster(names: tuple[str, ...]) -> None:
    (name,) = names
    assert getattr(Target(name="one", experiment="noop", **{name: "x"}), name) == "x"


@pytest.mark.parametrize("names", [(), ("context", "local"), ("local", "kind"), ("context", "local", "kind")])
def test_and_neither_on_none_nor_on_several(names: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match="exactly one of `context`, `local` and `kind`"):
        Target(name="one", experiment="noop", **dict.fromkeys(names, "x"))


def test_a_kubeconfig_without_a_context_says_nothing() -> None:
    with pytest.raises(ValidationError, match="no meaning without one"):
        Target(name="one", experiment="noop", local="x", kubeconfig="k")


def test_every_name_that_another_has_is_told_where_it_stands() -> None:
    with pytest.raises(ValidationError) as caught:
        fleet(target(), target("two"), target(), target())
    (error,) = caught.value.errors()
    cause = error["ctx"]["error"]
    assert isinstance(cause, SelfCheckError)
    assert [loc for loc, _ in cause.problems] == [("targets", 2, "name"), ("targets", 3, "name")]


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "a b", "a\n", "-a", "a-", "a" * 41, "\u0661"])
def test_a_name_is_fit_for_paths_and_object_names(name: str) -> None:
    with pytest.raises(ValidationError):
        fleet(target(name))


def test_its_targets_are_counted() -> None:
    assert len(fleet(*(target(f"t{number}") for number in range(MOST_TARGETS))).targets) == MOST_TARGETS
    for wrong in (0, MOST_TARGETS + 1):
        with pytest.raises(ValidationError):
            fleet(*(target(f"t{number}") for number in range(wrong)))


# Collisions


def ground(name: str, cluster: str = "a", namespace: str = "x", prometheus: str = "p", *alerts: str) -> Ground:
    return Ground(name, cluster, namespace, prometheus, alerts)


def test_a_namespace_takes_one_drill() -> None:
    assert collisions([ground("one"), ground("two", prometheus="q")]) == [
        "one and two both drill namespace x of one cluster"
    ]


def test_an_alert_of_one_prometheus_is_waited_for_once() -> None:
    (found,) = collisions([ground("one", "a", "x", "p", "B", "A"), ground("two", "a", "y", "p", "C", "A", "B")])
    assert found.startswith("one and two both wait for the alert A of one Prometheus")


@pytest.mark.parametrize(
    "other",
    [
        ground("two", "b"), ground("two", "a", "y", "q", "A"), ground("two", "a", "y", "p", "B"),
        ground("two", "a", "y", "p"),
    ],
)  # fmt: skip
def test_what_is_apart_does_not_collide(other: Ground) -> None:
    assert collisions([ground("one", "a", "x", "p", "A"), other]) == []


def test_every_pair_is_told_once_whatever_the_order() -> None:
    three = [ground("one"), ground("two"), ground("three", "a", "y"), ground("four", "b")]
    for order in permutations(three):
        assert len(collisions(order)) == 1
    assert len(collisions([ground("one"), ground("two"), ground("three")])) == 3
    assert collisions([]) == []
