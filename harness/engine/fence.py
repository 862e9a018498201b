"""The fence around a fault's write: one that was held up on its way must not arrive when its undo is over.

The lock says who may write; it cannot stop what was about to be sent when its holder fell asleep. The target can: an
object's version moves with every change of it. A fault's write is therefore bound to the versions that its targets had
before the lock was last renewed, and whoever brings a fault back moves them, also where there was nothing to bring
back. Of a write and its undo, the later one then knows of the earlier one, however long anything stood still.

A fault may need several writes, and any of them may fail when others have landed. What has landed is kept, so that the
fault is known to be in force in part, and a further attempt goes on from there.

What a fault makes had no version before. It belongs to the undo record instead (an owner reference): once the record
is gone, the cluster's garbage collector removes whatever arrives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

from harness.ports.cluster import FIELD_MANAGER, Cluster, Conflict, Forbidden, Invalid, Json, NotFound, Ref
from harness.ports.fault import Fault, Prepares, UndoOutcome, UndoRecord
from harness.ports.kinds import called

LABEL = "drill.internal/fence"
"""Set on a target and taken away again, so that its version moves and nothing else does."""
ATTEMPTS = 10
"""How often a write is tried whose target changed between the look at its version and the write."""
Versions = dict[Ref, str]
Landed = dict[tuple[str, Ref], list[Any]]
"""The writes of a fault that took effect, by verb and object, each with its answer; of a deletion the uid of what it
hit, or "" where nothing was there."""
_VERSION = "/metadata/resourceVersion"
_LABELS = "/metadata/labels"
_LABEL = f"{_LABELS}/{LABEL.replace('/', '~1')}"


def look(fault: Fault[Any], undo: UndoRecord, cluster: Cluster, landed: Landed | None = None) -> Versions:
    """The present versions of what the fault would still write to, from a dry run of its write. Raises what that
    raises."""
    noted = _Noted(cluster, {} if landed is None else landed)
    fault.apply(undo, cast("Cluster", noted), dry_run=True)
    return noted.seen


def prepare(fault: Fault[Any], undo: UndoRecord, cluster: Cluster, owner: Json) -> None:
    """Make what the fault's write needs, where it needs anything, as the undo record's own. Raises what that raises."""
    if isinstance(fault, Prepares):
        fault.prepare(undo, cast("Cluster", _Bound(cluster, {}, {}, owner)))


def deleted(landed: Landed) -> tuple[str, ...]:
    """The uids of what was deleted."""
    return tuple(uid for (verb, _), answers in landed.items() if verb == "delete" for uid in answers if uid)


def apply(
    fault: Fault[Any],
    undo: UndoRecord,
    cluster: Cluster,
    versions: Versions,
    landed: Landed | None = None,
    owner: Json | None = None,
) -> None:
    """The fault's write, bound to versions that were looked at before the lock was renewed, without what has `landed`;
    what lands is added to it, also where a later write fails; what it makes belongs to `owner`. Raises what the fault
    raises; Conflict where a target has changed since: nothing was written to it, and looking anew is safe."""
    fault.apply(undo, cast("Cluster", _Bound(cluster, versions, {} if landed is None else landed, owner)))


def bring_back(fault: Fault[Any], undo: UndoRecord, cluster: Cluster, *, force: bool = False) -> UndoOutcome:
    """Undo a fault whose write may still be on its way, so that it fails if it arrives later. Raises what the undo
    raises, and what moving the versions does, a refusal aside: that is told in the outcome."""
    done = fault.undo(undo, cluster, force=force)
    if done.outcome == "refused":
        return done  # its record stays, and with it whoever comes next
    try:
        if _moved(fault, undo, cluster):
            return done
    except (Forbidden, Invalid) as error:
        told = f"{done.detail}; should its run still be about to write, that is not kept out: {error.fact}"
        return replace(done, detail=told)
    # What the write was bound to has changed by somebody's hand: it has failed, or that somebody was the write.
    again = fault.undo(undo, cluster, force=force)
    return done if again.outcome in {"already", done.outcome} else again


def _moved(fault: Fault[Any], undo: UndoRecord, cluster: Cluster) -> bool:
    """Move the version of each target; False where one had changed since the look at it, is gone, or would not take
    the fault's write any more. None of that keeps the others from being moved."""
    noted = _Tried(cluster, {})
    unchanged = True
    try:
        fault.apply(undo, cast("Cluster", noted), dry_run=True)
    except (Conflict, NotFound):
        unchanged = False
    unchanged = unchanged and not noted.missed
    for ref, version in noted.seen.items():
        unchanged = _move(ref, version, cluster) and unchanged
    return unchanged


def _move(ref: Ref, version: str, cluster: Cluster) -> bool:
    try:
        body = cluster.get(ref)
        if body["metadata"]["resourceVersion"] != version:
            return False
        labels = body["metadata"].get("labels")
        # The version as the value: it differs from what somebody who died in between may have left here.
        added = {"path": _LABEL, "value": version} if labels else {"path": _LABELS, "value": {LABEL: version}}
        cluster.patch(ref, [{"op": "test", "path": _VERSION, "value": version}, {"op": "add", **added}])
        cluster.patch(ref, [{"op": "test", "path": _LABEL, "value": version}, {"op": "remove", "path": _LABEL}])
    except (Conflict, NotFound):
        return False
    return True


class _Through:
    """A cluster of which one call is another."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster, name)


class _Writes(_Through):
    """Counts what lands. A write that has landed before is not made again: it is answered as it was then."""

    def __init__(self, cluster: Cluster, landed: Landed) -> None:
        super().__init__(cluster)
        self._landed = landed
        self._answered: Counter[tuple[str, Ref]] = Counter()

    def create(self, body: Json, *, dry_run: bool = False) -> Json:
        act = lambda: self._create(body, dry_run=dry_run)  # noqa: E731
        made: Json = self._once("create", _ref(body), act, dry_run=dry_run)
        return made

    def replace(self, body: Json) -> Json:
        made: Json = self._once("replace", _ref(body), lambda: self._cluster.replace(body))
        return made

    def patch(
        self, ref: Ref, operations: Sequence[Json], *, dry_run: bool = False, manager: str = FIELD_MANAGER
    ) -> Json:
        act = lambda: self._patch(ref, operations, dry_run=dry_run, manager=manager)  # noqa: E731
        made: Json = self._once("patch", ref, act, dry_run=dry_run)
        return made

    def delete(self, ref: Ref, *, uid: str = "", grace: int | None = None, dry_run: bool = False) -> bool:
        act = lambda: uid if self._delete(ref, uid=uid, grace=grace, dry_run=dry_run) else ""  # noqa: E731
        return bool(self._once("delete", ref, act, dry_run=dry_run))

    def _create(self, body: Json, *, dry_run: bool) -> Json:
        return self._cluster.create(body, dry_run=dry_run)

    def _delete(self, ref: Ref, *, uid: str, grace: int | None, dry_run: bool) -> bool:
        return self._cluster.delete(ref, uid=uid, grace=grace, dry_run=dry_run)

    def _patch(self, ref: Ref, operations: Sequence[Json], *, dry_run: bool, manager: str) -> Json:
        return self._cluster.patch(ref, operations, dry_run=dry_run, manager=manager)

    def _once(self, verb: str, ref: Ref, act: Callable[[], Any], *, dry_run: bool = False) -> Any:
        answers, number = self._landed.get((verb, ref), []), self._answered[verb, ref]
        self._answered[verb, ref] += 1
        if number < len(answers):
            return answers[number]
        answer = act()
        if not dry_run:
            self._landed.setdefault((verb, ref), []).append(answer)
        return answer


class _Noted(_Writes):
    """Notes the version of whatever a dry run would patch or delete. What it would make has none."""

    def __init__(self, cluster: Cluster, landed: Landed) -> None:
        super().__init__(cluster, landed)
        self.seen: Versions = {}

    def _patch(self, ref: Ref, operations: Sequence[Json], *, dry_run: bool, manager: str) -> Json:
        answer = super()._patch(ref, operations, dry_run=dry_run, manager=manager)
        self.seen[ref] = answer["metadata"]["resourceVersion"]
        return answer

    def _create(self, body: Json, *, dry_run: bool) -> Json:
        del dry_run  # whoever brings something back need not be allowed to make it
        return body

    def _delete(self, ref: Ref, *, uid: str, grace: int | None, dry_run: bool) -> bool:
        del grace, dry_run
        try:
            meta = self._cluster.get(ref)["metadata"]
        except NotFound:
            return False
        if uid in {"", meta["uid"]}:
            self.seen[ref] = meta["resourceVersion"]
        return True


class _Tried(_Noted):
    """Goes on behind what a dry run could not patch, and remembers that there was such a thing."""

    missed = False

    def _patch(self, ref: Ref, operations: Sequence[Json], *, dry_run: bool, manager: str) -> Json:
        try:
            return super()._patch(ref, operations, dry_run=dry_run, manager=manager)
        except (Conflict, NotFound):
            self.missed = True
            return {"metadata": {"name": ref.name, "namespace": ref.namespace}}


class _Bound(_Writes):
    """Patches and deletes objects at the versions given and at no other; makes objects that belong to `owner`."""

    def __init__(self, cluster: Cluster, versions: Versions, landed: Landed, owner: Json | None) -> None:
        super().__init__(cluster, landed)
        self._versions = dict(versions)
        self._owner = owner

    def delete(self, ref: Ref, *, uid: str = "", grace: int | None = None, dry_run: bool = False) -> bool:
        if ref not in self._versions:
            return False  # what was gone when it was looked at is gone
        return super().delete(ref, uid=uid, grace=grace, dry_run=dry_run)

    def _create(self, body: Json, *, dry_run: bool) -> Json:
        if self._owner is None:
            raise Conflict(
                "write-not-announced",
                f"the fault would make {body['kind']} {body['metadata'].get('name', '')} that belongs to nothing",
                expected="an undo record that what is made belongs to",
                remedy="give its owner",
            )
        owners = [*(body["metadata"].get("ownerReferences") or ()), self._owner]
        owned = {**body, "metadata": {**body["metadata"], "ownerReferences": owners}}
        return super()._create(owned, dry_run=dry_run)

    def _delete(self, ref: Ref, *, uid: str, grace: int | None, dry_run: bool) -> bool:
        return self._cluster.delete(ref, uid=uid, version=self._versions[ref], grace=grace, dry_run=dry_run)

    def _patch(self, ref: Ref, operations: Sequence[Json], *, dry_run: bool, manager: str) -> Json:
        if ref not in self._versions:
            raise Conflict(
                "write-not-announced",
                f"the fault would write to {ref}, which its dry run did not",
                expected="a fault whose dry run makes the same patches as its write",
                remedy="correct `apply` of that fault",
            )
        bound = {"op": "test", "path": _VERSION, "value": self._versions[ref]}
        answer = super()._patch(ref, [bound, *operations], dry_run=dry_run, manager=manager)
        self._versions[ref] = answer["metadata"]["resourceVersion"]
        return answer


def _ref(body: Json) -> Ref:
    meta = body["metadata"]
    kind = called(str(body.get("apiVersion") or ""), body["kind"])
    return Ref(kind, meta.get("namespace", ""), meta.get("name", ""))
