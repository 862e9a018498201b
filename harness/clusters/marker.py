"""The sign without which the harness refuses to touch a cluster; clusters that are made for drills are born with it."""

from __future__ import annotations

import json

NAMESPACE = "drill-system"
CONFIG_MAP = "drills-allowed"


def objects() -> list[dict[str, object]]:
    """The namespace and the ConfigMap in it."""
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": CONFIG_MAP, "namespace": NAMESPACE},
            "data": {"environment": "staging"},
        },
    ]


def as_text(items: list[dict[str, object]]) -> str:
    """Objects as one document for `kubectl apply -f -`."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
