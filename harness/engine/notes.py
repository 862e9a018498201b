"""Notes in the cluster on what was brought back by somebody who does not have the dead run's journal.

The journal of a run lies where the run was started. Whoever undoes the run from elsewhere, like the sweeper, leaves a
note beside the place of the undo record; the next command on the run's own machine takes it into the journal.
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import asdict, dataclass
from typing import get_args

from harness.core.clock import Instant, dated, utc
from harness.core.errors import DrillError
from harness.core.event import UndoDone
from harness.engine.recovery import Recovered
from harness.engine.undo_records import RUN_LABEL, created_at
from harness.ports.cluster import AlreadyExists, Cluster, Json, NotFound, OutcomeUnknown, Ref

LABEL = "drill.internal/recovered"
KEPT_FOR = 7 * 86400.0
"""Seconds after which the sweeper removes a note that nobody has fetched."""
_LONGEST = 366 * 86400.0
"""Seconds that no recovery takes."""
_OUTCOMES = frozenset(get_args(UndoDone.model_fields["outcome"].annotation))
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Note:
    """One fault's recovery. `at` is the moment on the clock of whoever did it, `seconds` how long it took."""

    run_id: str
    fault: str
    by: str
    outcome: str
    detail: str
    clean: bool
    differences: tuple[str, ...]
    at: Instant
    seconds: float
    name: str = ""
    """The ConfigMap that holds it; empty while it is not stored."""
    created: Instant = 0.0
    """When the API server stored it, by its clock."""

    def __str__(self) -> str:
        state = "clean" if self.clean else "NOT CLEAN"
        what = f"fault {self.fault} of run {self.run_id}"
        return f"{what} was undone by {self.by} at {utc(self.at)}: {self.outcome}, {state}"


def note(one: Recovered, by: str, at: Instant) -> Note:
    """The note on a recovery."""
    return Note(
        run_id=one.record.run_id,
        fault=one.record.fault,
        by=by,
        outcome=one.outcome,
        detail=one.detail,
        clean=one.clean,
        differences=one.differences,
        at=at,
        seconds=round(one.seconds, 3),
    )


def leave(cluster: Cluster, namespace: str, left: Note) -> None:
    """Store a note; one of the same fault and run is replaced. Raises DrillError."""
    name = f"drill-recovered-{left.run_id}-{left.fault}"
    payload = {key: value for key, value in asdict(left).items() if key not in {"name", "created"}}
    body: Json = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {LABEL: "true", RUN_LABEL: left.run_id}},
        "immutable": True,
        "data": {"note": json.dumps(payload, sort_keys=True)},
    }
    with contextlib.suppress(OutcomeUnknown):  # a second note would say the same
        try:
            cluster.create(body)
        except AlreadyExists:
            cluster.delete(Ref("ConfigMap", namespace, name))
            cluster.create(body)


def read(cluster: Cluster, namespace: str) -> list[Note]:
    """The notes in a namespace, oldest first; one that cannot be read is nobody's word and is left out."""
    found = []
    for body in cluster.list("ConfigMap", namespace, f"{LABEL}=true"):
        with contextlib.suppress(AttributeError, LookupError, TypeError, ValueError, OverflowError, RecursionError):
            found.append(_read(body))
    return sorted(found, key=lambda one: one.at)


def discard(cluster: Cluster, namespace: str, one: Note) -> None:
    """Remove a note that has been taken over into the journal; one that is gone is fine. Raises DrillError."""
    with contextlib.suppress(NotFound):
        cluster.delete(Ref("ConfigMap", namespace, one.name))


def forget_old(cluster: Cluster, namespace: str, server_now: Instant) -> int:
    """Remove notes that nobody fetched in time; how many were. What cannot be removed now is removed later."""
    gone = 0
    for one in read(cluster, namespace):
        if server_now - one.created > KEPT_FOR:
            with contextlib.suppress(DrillError):
                discard(cluster, namespace, one)
                gone += 1
    return gone


def _read(body: Json) -> Note:
    payload = json.loads(body["data"]["note"])
    texts = {key: payload[key] for key in ("run_id", "fault", "by", "outcome", "detail")}
    differences = payload["differences"]
    if not all(isinstance(text, str) for text in (*texts.values(), *differences)):
        raise TypeError("a note is made of texts")
    for key in ("run_id", "fault"):  # they lead to a folder of runs
        if not _NAME.fullmatch(texts[key]):
            raise ValueError(f"{texts[key]!r} is not a name")
    if texts["outcome"] not in _OUTCOMES or not 0 <= float(payload["seconds"]) <= _LONGEST:
        raise ValueError("it does not say how an undo ended")
    return Note(
        **texts,
        clean=payload["clean"] is True,
        differences=tuple(differences),
        at=dated(float(payload["at"])),
        seconds=float(payload["seconds"]),
        name=body["metadata"]["name"],
        created=created_at(body),
    )
