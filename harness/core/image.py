"""References of container images: which repository they are of, and which of them nobody can pull.

A drill that may name any image may run any code. So it stays with the image's own repository, or puts a registry in
front of it under a name that is reserved never to resolve (`.invalid`, RFC 2606).
"""

from __future__ import annotations

import re

_NOWHERE = re.compile(r"^([a-z0-9-]+[.])+invalid/")
_REPOSITORY = re.compile(r"^[^@:]*(:[0-9]+/[^@:]*)?")


def repository(reference: str) -> str:
    """A reference without tag and digest, as it is written: no default registry is filled in."""
    match = _REPOSITORY.match(reference)
    return match[0] if match else ""


def origin(reference: str) -> str:
    """The repository, without a registry in front of it that never resolves."""
    return repository(_NOWHERE.sub("", reference))


def may_replace(before: str, after: str) -> bool:
    """Whether a drill may put one reference into the other's place, and back. The policy `drill-guard` says so too."""
    return origin(before) == origin(after) != ""
