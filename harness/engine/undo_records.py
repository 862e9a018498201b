"""Undo records in the cluster: what makes an undo possible when nothing of the run survives.

One ConfigMap per fault, in the drilled namespace, written before the first patch and deleted only after a comparison
with the snapshot came out clean. It is plain data: run id, fault id, kind, the record that `plan` captured.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from harness.core.clock import Instant, parse_utc
from harness.core.errors import RollbackIncomplete
from harness.ports.cluster import AlreadyExists, Cluster, Json, NotFound, OutcomeUnknown, Ref

LABEL = "drill.internal/undo"
RUN_LABEL = "drill.internal/run"
SCHEMA = 2
OVERDUE_GRACE = 120.0
"""Seconds past a run's timeout that its way back may take before others bring its faults back."""
DEFAULT_OVERDUE_AFTER = 7200.0
"""Seconds, for records of schema 1, which did not say."""
LONGEST_OVERDUE_AFTER = 7 * 86400.0
UNREADABLE = (AttributeError, LookupError, TypeError, ValueError, OverflowError, RecursionError)
"""What reading a stranger's text may raise: nobody's record must keep an honest one from being undone."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class UndoRecord:
    """One fault's way back. `ref` and `uid` address the ConfigMap that holds it."""

    run_id: str
    fault: str
    kind: str
    undo: dict[str, Any]
    order: int
    ref: Ref
    uid: str = ""
    created: Instant = 0.0
    """When the API server stored it, by its clock, in whole seconds."""
    overdue_after: float = DEFAULT_OVERDUE_AFTER
    """Seconds after `created` from which on it is undone even while its run lives."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A record that is durable: where, for people, and as the owner of what the fault makes."""

    where: str
    owner: Json


def store(
    cluster: Cluster,
    namespace: str,
    run_id: str,
    fault: str,
    kind: str,
    undo: dict[str, Any],
    order: int,
    overdue_after: float,
) -> Stored:
    """Make the record durable; where it is. Raises where it could not be written: then nothing may be injected.

    A reply that was lost is settled by reading back: the same record there is as good as an answer. The deadline is
    a number of seconds from the object's own creation stamp, so that one clock, the API server's, tells when it is.
    """
    ref = _ref(namespace, run_id, fault)
    name = ref.name
    payload = {
        "schema": SCHEMA, "run_id": run_id, "fault": fault, "kind": kind, "order": order,
        "overdue_after": overdue_after, "undo": undo,
    }  # fmt: skip
    text = json.dumps(payload, sort_keys=True)
    body: Json = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {LABEL: "true", RUN_LABEL: run_id}},
        "immutable": True,
        "data": {"record": text},
    }
    try:
        kept = cluster.create(body)
    except (AlreadyExists, OutcomeUnknown):
        kept = cluster.get(ref)
        if kept.get("data", {}).get("record") != text:
            raise
    return Stored(str(ref), {"apiVersion": "v1", "kind": ref.kind, "name": name, "uid": kept["metadata"]["uid"]})


def exists(cluster: Cluster, namespace: str, run_id: str, fault: str) -> bool:
    """Whether the record of one fault of one run is still there."""
    try:
        cluster.get(_ref(namespace, run_id, fault))
    except NotFound:
        return False
    return True


def load(cluster: Cluster, namespace: str) -> list[UndoRecord]:
    """All records in a namespace, newest first: the order in which to undo. Raises on one that cannot be read."""
    records, broken = readable(cluster, namespace)
    if broken:
        raise broken[0]
    return records


def readable(cluster: Cluster, namespace: str) -> tuple[list[UndoRecord], list[RollbackIncomplete]]:
    """The records that can be read, newest first, and an error for each that cannot: one that is damaged or forged
    must not keep the honest ones from being undone."""
    found: list[tuple[str, int, UndoRecord]] = []
    broken: list[RollbackIncomplete] = []
    for body in cluster.list("ConfigMap", namespace, f"{LABEL}=true"):
        ref = Ref("ConfigMap", namespace, body["metadata"]["name"])
        try:
            record = _read(body, ref)
        except UNREADABLE as error:
            broken.append(_unreadable(ref, error))
        else:
            found.append((body["metadata"].get("creationTimestamp", ""), record.order, record))
    return [record for _, _, record in sorted(found, key=lambda item: item[:2], reverse=True)], broken


def _read(body: Json, ref: Ref) -> UndoRecord:
    payload = json.loads(body["data"]["record"])
    record = UndoRecord(
        run_id=payload["run_id"],
        fault=payload["fault"],
        kind=payload["kind"],
        undo=payload["undo"],
        order=int(payload["order"]),
        ref=ref,
        uid=body["metadata"]["uid"],
        created=created_at(body),
        overdue_after=float(payload.get("overdue_after", DEFAULT_OVERDUE_AFTER)),
    )
    _check(record, ref.namespace)
    return record


def created_at(body: Json) -> Instant:
    """When the API server stored an object, by its own clock. Raises KeyError or ValueError where it does not say."""
    return parse_utc(body["metadata"]["creationTimestamp"])


def _unreadable(ref: Ref, error: Exception) -> RollbackIncomplete:
    return RollbackIncomplete(
        "undo-record-unreadable",
        f"{ref} is labelled as an undo record but cannot be read: {error!r}",
        expected="a record written by this harness",
        remedy=f"look at it (kubectl -n {ref.namespace} get configmap {ref.name} -o yaml), restore the target by hand "
        "if it is damaged, then delete it",
    )


def _check(record: UndoRecord, namespace: str) -> None:
    """Who may write a ConfigMap here can forge a record: it must not lead to another namespace, nor out of the folder
    of runs. Raises ValueError."""
    for name in (record.run_id, record.fault, record.kind):
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a name")
    if not 0 < record.overdue_after <= LONGEST_OVERDUE_AFTER:
        raise ValueError(f"{record.overdue_after!r} s is no deadline")
    if record.undo.get("namespace", namespace) != namespace:
        raise ValueError(f"it is about namespace {record.undo['namespace']!r}")


def discard(cluster: Cluster, record: UndoRecord) -> None:
    """Delete a record whose target is clean; a record that is gone already is fine. A lost reply is settled by asking
    once more: nothing else can be deleted by it."""
    try:
        cluster.delete(record.ref, uid=record.uid)
    except OutcomeUnknown:
        cluster.delete(record.ref, uid=record.uid)


def discard_run(cluster: Cluster, namespace: str, run_id: str, fault: str) -> None:
    """Delete the record of one fault of one run."""
    try:
        cluster.delete(_ref(namespace, run_id, fault))
    except NotFound:
        return


def _ref(namespace: str, run_id: str, fault: str) -> Ref:
    return Ref("ConfigMap", namespace, f"drill-undo-{run_id}-{fault}")
