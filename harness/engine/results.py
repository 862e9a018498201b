"""A run's journal kept in the cluster, so that it survives the pod that writes it.

A run that somebody starts keeps its journal in a folder. One that the cluster starts loses its folder with its pod, so
what is new of the journal is copied into ConfigMaps of the drilled namespace while it goes on: packed, in parts, each
immutable and numbered. Any machine with access to the namespace puts them together again and judges the run as the one
that made it would have. What could not be copied yet is copied with the next part.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.core.clock import Instant
from harness.core.errors import BadInput
from harness.core.event import RUN_ID
from harness.engine.undo_records import RUN_LABEL, created_at
from harness.ports.cluster import AlreadyExists, Cluster, Json, Ref

LABEL = "drill.internal/journal"
PREFIX = "drill-journal-"
KEPT = 30
"""How many runs of a namespace are kept; older ones make room."""
PART_BYTES = 4 * 1024 * 1024
"""How much of a journal goes into one part, before it is packed: it shrinks to a tenth, and a ConfigMap holds 1 MiB."""
_PACKED_BYTES = 700 * 1024
"""The longest packed part: a ConfigMap holds 1 MiB, and base64 makes four bytes of three."""
JOURNAL_BYTES = 256 * 1024 * 1024
"""The longest journal that is put together again."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A run whose journal is in the cluster. `result` is what its end says of it, None where it has not come."""

    run_id: str
    namespace: str
    created: Instant
    """When its first part was stored, by the API server's clock."""
    parts: int
    result: dict[str, Any] | None = None

    @property
    def experiment(self) -> str:
        """The name of its experiment: the run id holds it between the stamp and four digits."""
        return self.run_id[16:-5]


class Copier:
    """Copies what is new of one run's journal. Not for two threads at once."""

    def __init__(self, cluster: Cluster, namespace: str, run_id: str, read: Callable[[int, int], bytes]) -> None:
        """`read` answers so many bytes of the journal from an offset, or fewer where it ends."""
        self._cluster = cluster
        self._namespace = namespace
        self._run_id = run_id
        self._read = read
        self._offset = 0
        self._number = 0

    def copy(self, result: dict[str, Any] | None = None) -> None:
        """Copy the whole lines that are new, and behind the last of them the `result`. Raises DrillError; what was not
        copied by then is tried again by the next call."""
        while whole := self._whole_lines():
            self._store(whole, None)
        if result is not None:
            self._store(b"", result)

    def _whole_lines(self) -> bytes:
        """What is new, up to the end of its last whole line; the beginning of it where that is too long for a part. A
        line that is still being written is left."""
        taken = self._read(self._offset, PART_BYTES)
        whole = taken[: taken.rfind(b"\n") + 1]
        if not whole and len(taken) == PART_BYTES:
            whole = taken  # a line longer than a part goes into several: they are put together as bytes
        while len(zlib.compress(whole)) > _PACKED_BYTES:
            whole = whole[: len(whole) // 2]
        return whole

    def _store(self, whole: bytes, result: dict[str, Any] | None) -> None:
        data = {"journal": base64.b64encode(zlib.compress(whole, 9)).decode()}
        if result is not None:
            data["result"] = json.dumps(result, sort_keys=True)
        body: Json = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": f"{PREFIX}{self._run_id}-{self._number:04d}",
                "namespace": self._namespace,
                "labels": {LABEL: "true", RUN_LABEL: self._run_id},
            },
            "immutable": True,
            "data": data,
        }
        try:
            self._cluster.create(body)
        except AlreadyExists:
            # Ours, whose reply was lost: names are made of the run's id, and nobody else has it.
            kept = self._cluster.get(Ref("ConfigMap", self._namespace, body["metadata"]["name"]))
            if (kept.get("data") or {}).get("journal") != data["journal"]:
                whole = _unpacked(kept, self._run_id)
        self._offset += len(whole)
        self._number += 1


def stored(cluster: Cluster, namespaces: Iterable[str]) -> list[Stored]:
    """The runs whose journals are kept in these namespaces, newest first. Raises DrillError."""
    found: dict[tuple[str, str], list[Json]] = {}
    for namespace in namespaces:
        for body in cluster.list("ConfigMap", namespace, f"{LABEL}=true"):
            run_id = _run_of(body)
            if run_id:
                found.setdefault((namespace, run_id), []).append(body)
    runs = [
        Stored(run_id, namespace, min(map(created_at, parts)), len(parts), _result(parts))
        for (namespace, run_id), parts in found.items()
    ]
    return sorted(runs, key=lambda run: run.run_id, reverse=True)


def journal(cluster: Cluster, namespace: str, run_id: str) -> bytes:
    """The journal of a run as far as it was copied. Raises BadInput where there is none, or a part is missing or cannot
    be read, and what listing raises."""
    parts = {_number(body): body for body in _parts(cluster, namespace, run_id)}
    if not parts:
        raise BadInput(
            "no-such-run",
            f"namespace {namespace} keeps no journal of {run_id}",
            expected="a run whose journal is kept in the cluster",
            remedy="`drill runs` lists them",
        )
    missing = [number for number in range(max(parts) + 1) if number not in parts]
    if missing:
        raise BadInput(
            "journal-incomplete",
            f"part {missing[0]} of the journal of {run_id} is missing in namespace {namespace}",
            expected=f"the parts 0 to {max(parts)}",
            remedy="a run with lost events cannot be judged; restore the ConfigMap from a backup of the cluster",
        )
    whole = bytearray()
    for number in sorted(parts):
        whole += _unpacked(parts[number], run_id, JOURNAL_BYTES - len(whole))
    return bytes(whole)


def prune(cluster: Cluster, namespace: str, keep: int = KEPT) -> list[str]:
    """Remove all but the newest runs; the ids of those that are gone. Raises DrillError."""
    gone = [run.run_id for run in stored(cluster, [namespace])[keep:]]
    for run_id in gone:
        for body in _parts(cluster, namespace, run_id):
            ref = Ref("ConfigMap", namespace, body["metadata"]["name"])
            cluster.delete(ref, uid=body["metadata"]["uid"])
    return gone


def _parts(cluster: Cluster, namespace: str, run_id: str) -> Sequence[Json]:
    found = cluster.list("ConfigMap", namespace, f"{LABEL}=true,{RUN_LABEL}={run_id}")
    return [body for body in found if _run_of(body) == run_id]


def _run_of(body: Json) -> str:
    """The run that a part is of; "" where it is none of ours: anybody may label a ConfigMap."""
    meta = body["metadata"]
    run_id = str((meta.get("labels") or {}).get(RUN_LABEL) or "")
    named = re.fullmatch(rf"{PREFIX}(.+)-\d{{4}}", meta["name"])
    return run_id if RUN_ID.fullmatch(run_id) and named is not None and named[1] == run_id else ""


def _number(body: Json) -> int:
    return int(body["metadata"]["name"][-4:])


def _result(parts: Sequence[Json]) -> dict[str, Any] | None:
    for body in parts:
        try:
            result = json.loads((body.get("data") or {}).get("result") or "null")
        except (ValueError, RecursionError):
            continue
        if isinstance(result, dict):
            return result
    return None


def _unpacked(body: Json, run_id: str, most: int = JOURNAL_BYTES) -> bytes:
    """The bytes in one part. Raises BadInput."""
    opened = zlib.decompressobj()
    try:
        packed = base64.b64decode(str((body.get("data") or {}).get("journal") or ""), validate=True)
        whole = opened.decompress(packed, max(1, most))
    except (binascii.Error, zlib.error) as error:
        raise _corrupt(body, run_id, str(error)) from error
    if not opened.eof:
        raise _corrupt(body, run_id, "it is cut off, or longer than a journal may be")
    return whole


def _corrupt(body: Json, run_id: str, why: str) -> BadInput:
    return BadInput(
        "journal-corrupt",
        f"{body['metadata']['name']} does not hold a part of the journal of {run_id}: {why}",
        expected="what the run stored there",
        remedy="restore it from a backup of the cluster; a run with lost events cannot be judged",
    )
