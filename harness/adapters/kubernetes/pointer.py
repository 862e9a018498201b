"""Which `test` of a JSON patch did not hold: the API server does not say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.ports.cluster import Json

_MISSING = object()


def find(body: Any, pointer: str) -> Any:
    """The value at a JSON pointer (RFC 6901). Raises KeyError where nothing is there."""
    at = body
    for token in pointer.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        if isinstance(at, dict) and key in at:
            at = at[key]
        elif isinstance(at, list) and key.isdigit() and int(key) < len(at):
            at = at[int(key)]
        else:
            raise KeyError(pointer)
    return at


def difference(body: Json, operations: Sequence[Json]) -> str:
    """What of `operations` does not fit `body`, in words; empty where all fits (it changed in between). Values of a
    Secret are not shown."""
    quiet = body.get("kind") == "Secret"
    for operation in operations:
        path = str(operation["path"])
        try:
            found = find(body, path)
        except KeyError:
            found = _MISSING
        if operation["op"] == "test" and found != operation["value"]:
            if found is _MISSING:
                return f"{path} is not there"
            return f"{path} is another" if quiet else f"{path} is {found!r} and not {operation['value']!r}"
        if operation["op"] in ("replace", "remove") and found is _MISSING:
            return f"{path} is not there"
        if operation["op"] not in ("test", "replace", "remove"):
            break
    return ""
