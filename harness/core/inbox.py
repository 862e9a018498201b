"""Messages from responders, as objects in the cluster.

A responder acts from any shell with access to the cluster by creating a ConfigMap in the drilled namespace. Where
the admission policy `drill-inbox-identity` is in force, the API server itself refuses a message whose `actor` is not
the authenticated user who sends it, and refuses any later edit: the identity is then the server's word, not the
sender's. Building and reading a message are pure; the same two functions serve the CLI, the autopilot and the engine.
"""

from __future__ import annotations

from typing import Any

from harness.core.clock import Bounds, parse_utc
from harness.core.event import Action, ResponderActed

INBOX_LABEL = "drill.internal/inbox"
POLICY = "drill-inbox-identity"
_ACTIONS: frozenset[str] = frozenset(Action.__args__)  # type: ignore[attr-defined]
MAX_TEXT = 4000


def message(
    namespace: str, *, actor: str, action: Action, role: str = "", text: str = "", automation: bool = False
) -> dict[str, Any]:
    """The ConfigMap to create. Raises ValueError where the text is too long."""
    if len(text) > MAX_TEXT:
        raise ValueError(f"the text has {len(text)} characters; at most {MAX_TEXT} fit in a message")
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "generateName": f"drill-{action.replace('_', '-')}-",
            "namespace": namespace,
            "labels": {INBOX_LABEL: "true"},
        },
        "data": {
            "actor": actor,
            "action": action,
            "role": role,
            "text": text,
            "actorKind": "automation" if automation else "human",
        },
    }


def read(message: dict[str, Any], *, verified: bool, offset: Bounds, seen_at: float) -> ResponderActed | None:
    """The act in a message, or None where it is not one.

    Its time is the server's creation stamp (whole seconds, so it lies within the second that follows) moved onto
    our clock, and no later than when the watch showed it. A ServiceAccount is automation whatever it claims.
    """
    data, meta = message.get("data") or {}, message["metadata"]
    action, actor = data.get("action", ""), data.get("actor", "")
    if action not in _ACTIONS or not actor:
        return None
    stamp = parse_utc(meta["creationTimestamp"])
    at = Bounds(earliest=stamp, latest=stamp + 1.0).shifted(offset).clipped(not_after=seen_at)
    automation = actor.startswith("system:serviceaccount:") or data.get("actorKind") == "automation"
    return ResponderActed(
        key=meta["uid"],
        action=action,
        actor=actor,
        actor_kind="automation" if automation else "human",
        verified="admission policy" if verified else "claimed",
        at=at,
        source=f"message {meta['name']}",
        role=str(data.get("role", ""))[:40],
        text=str(data.get("text", ""))[:MAX_TEXT],
    )
