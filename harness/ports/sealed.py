"""Secrets as the harness sees them: what is known about them, and nothing of what is in them.

Every Cluster reads objects of these kinds without their data, whatever the identity in use may read, and answers
writes to them so. No value can then end up in a journal, a record or an error: there is none on this side of the API
server. The names of the data are told by `metadata.managedFields` (`harness.core.ownership.members`).
"""

from __future__ import annotations

from harness.core.snapshot import APPLIED, fingerprint
from harness.ports.cluster import Json
from harness.ports.kinds import kind_of

KINDS = frozenset({"Secret"})
"""The kinds that are read without their data, patched, and never replaced."""


def sealed(kind: str, body: Json) -> Json:
    """An object as it may be handed on: untouched, or for a sealed kind its metadata only, with the copy of its data
    that an annotation may hold as a fingerprint."""
    if kind not in KINDS:
        return body
    meta = dict(body.get("metadata") or {})
    annotations = meta.get("annotations")
    if isinstance(annotations, dict) and APPLIED in annotations:
        meta["annotations"] = {**annotations, APPLIED: fingerprint(str(annotations[APPLIED]))}
    return {"apiVersion": kind_of(kind).api_version, "kind": kind, "metadata": meta}
