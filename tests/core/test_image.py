"""Which image references a drill may put into each other's place."""

from __future__ import annotations

import pytest

from harness.core.image import may_replace, origin, repository

OWN = "registry.example.org:5000/shop/api"


@pytest.mark.parametrize(
    ("reference", "named"),
    [
        ("api", "api"),
        ("api:1.2", "api"),
        ("shop/api:1", "shop/api"),
        ("localhost:5000/api", "localhost:5000/api"),
        ("localhost:5000/api:1", "localhost:5000/api"),
        (f"{OWN}:1.2", OWN),
        (f"{OWN}@sha256:abcd", OWN),
        (f"{OWN}:1.2@sha256:abcd", OWN),
        ("api:5000", "api"),
        ("", ""),
    ],
)
def test_the_repository_is_what_stands_before_tag_and_digest(reference: str, named: str) -> None:
    assert repository(reference) == named


def test_a_registry_that_is_nowhere_is_not_part_of_where_an_image_comes_from() -> None:
    assert origin(f"registry.invalid/{OWN}:1") == OWN
    assert origin(f"a.b.invalid/{OWN}") == OWN
    assert repository(f"registry.invalid/{OWN}:1") == f"registry.invalid/{OWN}"


@pytest.mark.parametrize(
    "after",
    [f"{OWN}:2", OWN, f"{OWN}@sha256:abcd", f"registry.invalid/{OWN}:1", f"x.y.invalid/{OWN}:does-not-exist"],
)
def test_other_tags_and_a_registry_that_is_nowhere_may_come_and_go(after: str) -> None:
    assert may_replace(f"{OWN}:1", after)
    assert may_replace(after, f"{OWN}:1")


@pytest.mark.parametrize(
    "after",
    [
        "evil:1",
        f"evil.example.org/{OWN}:1",
        "registry.example.org:5000/shop/api/evil:1",
        "registry.example.org:5000/shop/apis:1",
        "registry.example.org/shop/api:1",
        "registry.invalid/api:1",
        f"invalid/{OWN}:1",
        f"registry.invalid.example.org/{OWN}:1",
        f"registry.invalid:5000/{OWN}:1",
        f"registry.invalid/registry.invalid/{OWN}:1",
        f"notinvalid/{OWN}:1",
        f"REGISTRY.invalid/{OWN}:1",
        "",
    ],
)
def test_nothing_else_may(after: str) -> None:
    assert not may_replace(f"{OWN}:1", after)
    assert not may_replace(after, f"{OWN}:1")


def test_two_steps_lead_no_further_than_one() -> None:
    steps = [f"{OWN}:1", f"a.invalid/{OWN}:2", f"b.invalid/{OWN}:3", f"{OWN}:4", "a.invalid/evil:1", "evil:1"]
    reached = {steps[0]}
    for _ in steps:
        reached |= {after for after in steps for before in reached if may_replace(before, after)}
    assert reached == {one for one in steps if "evil" not in one}
