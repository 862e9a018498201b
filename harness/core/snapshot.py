"""Objects as they were, and how they differ now. Pure functions over JSON.

Text in which people put secrets that belong elsewhere (literal values of environment variables, arguments, commands,
annotations) is replaced by a short fingerprint: enough to see that it changed, and nothing that a journal could leak.

A snapshot leaves out what the API server and its controllers manage (they change without anybody's doing) and keeps
everything that a person or a tool declares, to the letter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from harness.core.confidential import WRITTEN_IN

_SERVER_METADATA = frozenset({
    "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "generation", "managedFields",
    "resourceVersion", "selfLink", "uid",
})  # fmt: skip
APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""`kubectl apply` keeps the whole object in this annotation, data included."""
_CONTROLLER_ANNOTATIONS = frozenset({"deployment.kubernetes.io/revision"})
_RESTARTED = "kubectl.kubernetes.io/restartedAt"
"""By which `kubectl rollout restart` starts pods anew. It changes nothing that they run."""


def snapshot(body: dict[str, Any]) -> dict[str, Any]:
    """What of `body` is declared: no status, no server-managed metadata, no text that may hold a secret. A copy."""
    kept: dict[str, Any] = json.loads(json.dumps({k: v for k, v in body.items() if k != "status"}))
    meta = {k: v for k, v in kept.get("metadata", {}).items() if k not in _SERVER_METADATA}
    annotations = {k: v for k, v in meta.pop("annotations", {}).items() if k not in _CONTROLLER_ANNOTATIONS}
    if annotations:
        meta["annotations"] = annotations
    kept["metadata"] = meta
    _forget_restarts(kept)
    return _without_secrets(kept)


def _forget_restarts(kept: dict[str, Any]) -> None:
    """When a workload's pods were last started anew by hand is no part of what it declares: a responder who restarts
    it has left nothing behind."""
    template = kept.get("spec", {}).get("template") if isinstance(kept.get("spec"), dict) else None
    metadata = template.get("metadata") if isinstance(template, dict) else None
    if isinstance(metadata, dict) and _RESTARTED in (metadata.get("annotations") or {}):
        del metadata["annotations"][_RESTARTED]
        if not metadata["annotations"]:
            del metadata["annotations"]


def _without_secrets(node: dict[str, Any]) -> dict[str, Any]:
    return {key: _fingerprints(value) if key in WRITTEN_IN else _inside(value) for key, value in node.items()}


def _inside(value: Any) -> Any:
    if isinstance(value, dict):
        return _without_secrets(value)
    return [_inside(item) for item in value] if isinstance(value, list) else value


def _fingerprints(value: Any) -> Any:
    """Every text below as a fingerprint, names aside: they tell which variable it is."""
    if isinstance(value, dict):
        return {key: text if key in {"name", "key"} else _fingerprints(text) for key, text in value.items()}
    if isinstance(value, list):
        return [_fingerprints(item) for item in value]
    return fingerprint(value) if isinstance(value, str) else value


def guarded(path: Sequence[str], value: Any) -> Any:
    """A value of an object, found below the members of these names, as it may be told: without text that may hold a
    secret."""
    return _fingerprints(value) if WRITTEN_IN & {*path} else _inside(value)


def fingerprint(text: str) -> str:
    """A few characters that tell one text from another, and nothing of what it says."""
    return f"#{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def differences(before: Any, now: Any, path: str = "") -> list[str]:
    """Every leaf that differs, as "path: before -> now"; list items pair by their `name` where they have one."""
    if isinstance(before, dict) and isinstance(now, dict):
        found: list[str] = []
        for key in sorted(before.keys() | now.keys()):
            found += differences(before.get(key, _ABSENT), now.get(key, _ABSENT), f"{path}.{key}" if path else key)
        return found
    if isinstance(before, list) and isinstance(now, list):
        if _named(before) and _named(now):
            old, new = ({item["name"]: item for item in items} for items in (before, now))
            found = []
            for name in [*old, *(n for n in new if n not in old)]:
                found += differences(old.get(name, _ABSENT), new.get(name, _ABSENT), f"{path}[{name}]")
            return found
        if len(before) == len(now):
            return [
                d for i, (a, b) in enumerate(zip(before, now, strict=True)) for d in differences(a, b, f"{path}[{i}]")
            ]
    return [] if before == now else [f"{path}: {_show(before)} -> {_show(now)}"]


class _Absent:
    def __repr__(self) -> str:
        return "(absent)"


_ABSENT = _Absent()


def _named(items: list[Any]) -> bool:
    names = [item.get("name") for item in items if isinstance(item, dict)]
    return len(names) == len(items) and all(names) and len(set(names)) == len(names)


def _show(value: Any) -> str:
    if value is _ABSENT:
        return "(absent)"
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}..."
