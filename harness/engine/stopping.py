"""The switches in the cluster with which its owners stop drills: the marker and a namespace's opt-in.

The preflight reads both; a run watches both, and ends with everything undone as soon as either is taken back.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.core.event import Event, StopAsked
from harness.ports.cluster import Json, Ref, WatchEvent

OPT_IN_LABEL = "drill.internal/opt-in"
MARKER = Ref("ConfigMap", "drill-system", "drills-allowed")
HALTED = "halted"


class Switch:
    """One object that must keep allowing drills. `refusal` says in a sentence why it does not, or nothing; it is
    asked with None where the object is gone. The first refusal asks the run to stop, later ones say nothing new."""

    def __init__(self, by: str, refusal: Callable[[Json | None], str]) -> None:
        self._by = by
        self._refusal = refusal
        self._told = False

    def update(self, event: WatchEvent) -> list[Event]:
        """The stop request in a watch event, if it holds one."""
        gone = event.type == "deleted" or (event.type == "sync" and not event.items)
        why = self._refusal(None if gone else event.items[-1])
        if not why or self._told:
            return []
        self._told = True
        return [StopAsked(by=self._by, detail=why)]


def marker_switch() -> Switch:
    """The stop switch of the whole cluster."""
    return Switch("the stop switch", marker_refuses)


def opt_in_switch(namespace: str) -> Switch:
    """The opt-in of one namespace."""
    return Switch("the namespace's owners", lambda body: _opt_in_refuses(body, namespace))


def marker_refuses(body: Json | None) -> str:
    """Why the marker does not allow drills; "" where it does. None: there is no marker."""
    if body is None:
        return f"{MARKER} was removed: the cluster is no longer marked for drills"
    data = body.get("data") or {}
    if data.get(HALTED) == "true":
        return f"drills were halted on this cluster: {data.get('reason') or 'no reason given'}"
    if data.get("environment") != "staging":
        return f"{MARKER} no longer says environment=staging"
    return ""


def _opt_in_refuses(body: Json | None, namespace: str) -> str:
    labels = (body or {}).get("metadata", {}).get("labels") or {}
    return "" if labels.get(OPT_IN_LABEL) == "true" else f"namespace {namespace} no longer opts in to drills"
