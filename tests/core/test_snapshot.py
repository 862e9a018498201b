"""What a snapshot leaves out, and what it never does."""

from __future__ import annotations

import copy
from typing import Any

from harness.core.snapshot import differences, snapshot

RESTARTED = "kubectl.kubernetes.io/restartedAt"


def deployment(**annotations: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"labels": {"app": "w"}}
    if annotations:
        metadata["annotations"] = annotations
    return {
        "kind": "Deployment",
        "metadata": {"name": "w"},
        "spec": {"replicas": 2, "template": {"metadata": metadata}},
    }


def test_a_restart_by_hand_is_nothing_that_was_left_behind() -> None:
    restarted = deployment(**{RESTARTED: "2026-11-25T10:00:00Z"})
    before = copy.deepcopy(restarted)
    assert differences(snapshot(deployment()), snapshot(restarted)) == []
    assert restarted == before, "the object itself is not touched"


def test_other_annotations_of_the_template_are_declared() -> None:
    kept = deployment(**{RESTARTED: "2026-11-25T10:00:00Z", "team": "queue"})
    assert snapshot(kept)["spec"]["template"]["metadata"]["annotations"].keys() == {"team"}
    assert differences(snapshot(deployment()), snapshot(kept))


def test_objects_without_a_template_are_as_they_are() -> None:
    specs: list[dict[str, Any]] = [
        {},
        {"template": None},
        {"template": {"spec": {}}},
        {"template": {"metadata": {"annotations": {}}}},
    ]
    for spec in specs:
        body = {"kind": "Thing", "metadata": {"name": "t"}, "spec": spec}
        assert snapshot(body)["spec"] == spec
    assert snapshot({"kind": "Secret", "metadata": {"name": "s"}})["metadata"] == {"name": "s"}
