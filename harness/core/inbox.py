"""Messages from responders, as objects in the cluster.

A responder acts from any shell with access to the cluster by creating a ConfigMap in the drilled namespace. Where
the admission policy `drill-inbox-identity` is in force, the API server itself refuses a message whose `actor` is not
the authenticated user who sends it, and refuses any later edit: the identity is then the server's word, not the
sender's. Without the policy the message still cannot be edited (it is immutable), but its sender is only claimed.
Building and reading a message are pure; the same two functions serve the CLI, the autopilot and the engine.
"""

from __future__ import annotations

import re
from typing import Any, get_args

from harness.core.clock import Bounds, parse_utc
from harness.core.event import Action, ResponderActed

INBOX_LABEL = "drill.internal/inbox"
POLICY = "drill-inbox-identity"
ROLE_ACTIONS: frozenset[str] = frozenset({"escalated", "joined"})
"""Actions that are about one role."""
MAX_TEXT = 4000
MAX_ACTOR = 400
_ACTIONS: frozenset[str] = frozenset(get_args(Action))
_ROLE = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
_ALERT = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,80}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
"""What could move a terminal's cursor or turn its text around: dropped from what others wrote."""


def message(
    namespace: str,
    *,
    actor: str,
    action: Action,
    role: str = "",
    text: str = "",
    alert: str = "",
    automation: bool = False,
) -> dict[str, Any]:
    """The ConfigMap to create. Raises ValueError where there is no actor, where an action of a role names none, and
    where the role is not a short name, the alert no alert's name, or the text too long."""
    if not actor:
        raise ValueError("a message without an actor is nobody's; say who acts")
    if action in ROLE_ACTIONS and not role:
        raise ValueError(f"{action} needs the role that it is about, like l2")
    if role and not _ROLE.fullmatch(role):
        raise ValueError(f"{role!r} is not a role; write lower-case letters, digits and -, at most 40")
    if alert and not _ALERT.fullmatch(alert):
        raise ValueError(f"{alert[:80]!r} is not an alert's name; write it as its rule does, like HighQueueDepth")
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
        "immutable": True,
        "data": {
            "actor": actor,
            "action": action,
            "role": role,
            "text": text,
            "actorKind": "automation" if automation else "human",
            **({"alert": alert} if alert else {}),
        },
    }


def read(message: dict[str, Any], *, verified: bool, offset: Bounds, seen_at: float) -> ResponderActed | None:
    """The act in a message, or None where it is not one.

    Its time is the server's creation stamp (whole seconds, so it lies within the second that follows) moved onto
    our clock, and no later than when the watch showed it. A ServiceAccount is automation whatever it claims. What
    others wrote is cut to size and freed of control characters: it is shown on terminals. It never raises: one message
    that is none must not keep the others from being read.
    """
    data, meta = _texts(message.get("data")), _texts(message.get("metadata"))
    action, actor = data.get("action", ""), _CONTROL.sub("", data.get("actor", "")).strip()[:MAX_ACTOR]
    role = data.get("role", "")
    if action not in _ACTIONS or not actor or (action in ROLE_ACTIONS and not _ROLE.fullmatch(role)):
        return None
    try:
        stamp = parse_utc(meta["creationTimestamp"])
        key, name = meta["uid"], meta["name"]
    except (LookupError, ValueError):
        return None
    at = Bounds(earliest=stamp, latest=stamp + 1.0).shifted(offset).clipped(not_after=seen_at)
    automation = actor.startswith("system:serviceaccount:") or data.get("actorKind") == "automation"
    return ResponderActed(
        key=key,
        action=action,
        actor=actor,
        actor_kind="automation" if automation else "human",
        verified="admission policy" if verified else "claimed",
        at=at,
        source=f"message {name}",
        role=role if _ROLE.fullmatch(role) else "",
        text=_CONTROL.sub("", data.get("text", ""))[:MAX_TEXT],
        alert=data["alert"] if _ALERT.fullmatch(data.get("alert", "")) else "",
    )


def _texts(found: object) -> dict[str, str]:
    """What is text in an object; nothing of what is none."""
    return {key: value for key, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}
