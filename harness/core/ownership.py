"""Who else writes a field: what would fight a fault, or be fought by its undo.

The API server notes in metadata.managedFields which manager set which field
(https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management). A person's kubectl there is
nobody to fear; a controller that reconciles the object sets the field back while the drill is on, or takes the undo
for drift.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

RECONCILERS = (
    "argocd*", "argo-cd*", "kustomize-controller", "helm-controller", "flux*", "kapp-controller", "fleet-agent*",
    "config-sync*", "configsync*", "horizontal-pod-autoscaler", "vpa-*", "vertical-pod-autoscaler*", "keda*",
    "externalsecrets.external-secrets.io*", "vault-secrets-operator*",
)  # fmt: skip
"""Managers that put back what others change: Argo CD, Flux, kapp, Fleet, Config Sync, the autoscalers, and those that
copy secrets from a store."""


def rivals(body: dict[str, Any], pointer: str) -> list[str]:
    """Who would set the field at a JSON pointer back, each as one word to be accepted by: the managers of the field
    that are known to reconcile, and the object's controlling owner as kind/name."""
    found = [name for name in managers(body, pointer) if any(fnmatch.fnmatch(name, known) for known in RECONCILERS)]
    owners = [owner for owner in body["metadata"].get("ownerReferences") or () if owner.get("controller")]
    found += [f"{str(owner.get('kind', '')).lower()}/{owner.get('name', '')}" for owner in owners]
    return list(dict.fromkeys(found))


def managers(body: dict[str, Any], pointer: str) -> list[str]:
    """The managers whose field set holds the field at a JSON pointer (RFC 6901), or one that contains it."""
    steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
    return [
        str(entry.get("manager", ""))
        for entry in body["metadata"].get("managedFields") or ()
        if _holds(entry.get("fieldsV1") or {}, body, steps)
    ]


@dataclass(frozen=True, slots=True, order=True)
class Writer:
    """Who wrote a field as it is now: the manager's name, how, and when that manager last changed any of its fields
    (whole seconds of the API server's clock). Somebody else's change of the value puts another one in its place."""

    manager: str
    operation: str
    time: str


def members(body: dict[str, Any], name: str) -> dict[str, tuple[Writer, ...]]:
    """The members of a map at the top of an object, such as a Secret's `data`, and who wrote each: known without any
    value. Members that nobody is noted for are missing."""
    found: dict[str, list[Writer]] = {}
    for entry in body["metadata"].get("managedFields") or ():
        writer = Writer(*(str(entry.get(key, "")) for key in ("manager", "operation", "time")))
        for field in (entry.get("fieldsV1") or {}).get(f"f:{name}") or {}:
            if field.startswith("f:"):
                found.setdefault(field.removeprefix("f:"), []).append(writer)
    return {member: tuple(sorted(writers)) for member, writers in sorted(found.items())}


def _holds(fields: dict[str, Any], body: Any, steps: list[str]) -> bool:
    if not steps:
        return True
    step, rest = steps[0], steps[1:]
    for key, inside in _inside(body, step):
        if key in fields:
            deeper = fields[key] or {}
            # A set without anything below stands for the whole value, as of an atomic list.
            return not deeper or _holds(deeper, inside, rest)
    return False


def _inside(body: Any, step: str) -> Iterator[tuple[str, Any]]:
    """The keys under which fieldsV1 may file a step into `body`, and what lies there."""
    if isinstance(body, list):
        index = int(step) if step.isdigit() else -1
        item = body[index] if 0 <= index < len(body) else None
        if isinstance(item, dict) and "name" in item:
            yield "k:" + json.dumps({"name": item["name"]}, separators=(",", ":")), item
        yield f"i:{index}", item
        return
    yield f"f:{step}", body.get(step) if isinstance(body, dict) else None
