"""Which `test` of a JSON patch did not hold: the API server does not say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from harness.ports.cluster import Json
from harness.ports.sealed import KINDS as SEALED


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
    """What of `operations` does not fit `body`, in words; empty where that cannot be said: it changed in between, an
    operation before it changes what a later one finds, or it is about the data of an object that is read without."""
    touched = {f"/{name}/" for name in ("data", "stringData")} if body.get("kind") in SEALED else set[str]()
    for operation in operations:
        path, op = str(operation["path"]), operation["op"]
        if any(f"{path}/".startswith(parent) or parent.startswith(f"{path}/") for parent in touched):
            continue
        try:
            found = find(body, path)
        except KeyError:
            found = None
        if op == "test" and found != operation["value"]:
            return f"{path} is {_shown(found)} and not {_shown(operation['value'])}"
        if op == "remove" and found is None:
            return f"{path} is not there"
        if op != "test":
            in_list = path.rpartition("/")[2].isdigit() or path.endswith("/-")
            touched.add(f"{path.rpartition('/')[0] if in_list else path}/")
    return ""


def _shown(value: Any) -> str:
    return "absent" if value is None else json.dumps(value)
