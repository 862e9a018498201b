"""An API server in memory that keeps the Cluster port's promises; the contract suite compares it with the real one.

It knows versions, uids, generations, preconditions, JSON patches, watches, admission, and the garbage collector: what
belongs only to owners that are gone goes at once. It knows no other controllers: a Deployment makes no pods, and what
is deleted is gone at once. Tests put objects in with `put`, break calls with
`fail_next`, and read what was asked in `calls`. Objects given out and taken in are copies.
"""

from __future__ import annotations

import base64
import copy
import json
import re
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Condition
from threading import Event as Flag
from typing import Any, Literal, Self, TypeVar, cast

from harness.core.clock import Bounds, Instant
from harness.core.errors import DrillError, Unreachable
from harness.ports.cluster import (
    FIELD_MANAGER,
    AlreadyExists,
    Conflict,
    Forbidden,
    Identity,
    Invalid,
    Json,
    NotFound,
    OutcomeUnknown,
    Ref,
    WatchEvent,
)
from harness.ports.kinds import Kind, called, kind_of, served, spelled_out
from harness.ports.sealed import KINDS as SEALED
from harness.ports.sealed import sealed

T = TypeVar("T")
Verb = Literal[
    "whoami", "version", "offset", "get", "list", "create", "replace", "patch", "delete", "allowed", "watch", "logs",
    "token",
]  # fmt: skip
Objects = list[Json]
Pending = list[WatchEvent]
Key = tuple[str, str, str]
Admission = Callable[["Call", Json | None, Json | None], str | None]
"""(call, object before, object after) -> the reason for a denial, or None."""

_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")
_WITH_STATUS = frozenset(
    {"CronJob", "DaemonSet", "Deployment", "HorizontalPodAutoscaler", "Job", "Pod", "ReplicaSet", "StatefulSet"}
)
_FIELDS = {
    "ConfigMap": {"apiVersion", "kind", "metadata", "data", "binaryData", "immutable"},
    "Secret": {"apiVersion", "kind", "metadata", "data", "stringData", "immutable", "type"},
}
_MISSING = object()


@dataclass(frozen=True)
class Call:
    """One call, as the server saw it. `body` is what was sent: an object, or the operations of a patch."""

    verb: Verb
    ref: Ref
    user: str
    dry_run: bool = False
    body: Any = None


@dataclass(frozen=True)
class _Fault:
    error: DrillError
    after: bool


@dataclass(frozen=True)
class _Change:
    """One entry of the server's history; `before` and `after` are None where the object was not there."""

    number: int
    key: Key
    before: Json | None
    after: Json | None


@dataclass
class _State:
    """What all identities of one server share."""

    objects: dict[Key, Json] = field(default_factory=dict)
    history: list[_Change] = field(default_factory=list)
    changed: Condition = field(default_factory=Condition)
    version: int = 100
    faults: dict[Verb, deque[_Fault]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    forgets: int = 0
    """Counts how often all watches were made to begin again."""


class FakeCluster:
    """See the module's head. Thread-safe. `now` stamps creations, in whole seconds like the real server."""

    def __init__(self, now: Callable[[], Instant], *, user: str = "drill-tester") -> None:
        self._now = now
        self._user = user
        self._state = _State()
        self.admission: list[Admission] = []
        self.denied: set[tuple[str, ...]] = set()
        """(verb, kind) or (verb, kind, namespace) that `allowed` answers with no, and that the calls refuse."""
        self.denied_reviews: set[tuple[str, ...]] = set()
        """As `denied`, but only `allowed` says so: the calls themselves pass."""
        self.defined: dict[str, list[Json]] = {}
        """Kinds that are not in the table, by apiVersion, as discovery tells them."""
        self.clock_offset = Bounds.at(0.0)
        self.pod_logs: dict[tuple[str, str], str] = {}
        """Log text by (namespace, pod)."""
        self.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
        self._state.calls.clear()

    # -------------------------------------------------------------------------------- for tests only

    @property
    def calls(self) -> list[Call]:
        """Every call so far, oldest first; `put` and `drop` are not calls."""
        return list(self._state.calls)

    def writes(self) -> list[Call]:
        """Every create, replace, patch and delete that was not a dry run."""
        verbs = {"create", "replace", "patch", "delete"}
        return [call for call in self._state.calls if call.verb in verbs and not call.dry_run]

    def as_user(self, user: str) -> FakeCluster:
        """The same server with another identity, and with its own rights from here on."""
        other = copy.copy(self)
        other._user = user
        other.denied = set(self.denied)
        return other

    def fail_next(self, verb: Verb, error: DrillError | None = None, *, after: bool = False, times: int = 1) -> None:
        """Let the next `times` calls of `verb` raise `error`, before or after they take effect. Without an error:
        Unreachable before, OutcomeUnknown after (the reply to a write was lost)."""
        error = error or (lost_reply() if after else no_answer())
        self._state.faults.setdefault(verb, deque()).extend([_Fault(error, after)] * times)

    def put(self, body: Json) -> Json:
        """Set an object, status included, without any check: the hand of a controller or of the test."""
        body = copied(body)
        meta = body["metadata"]
        name = _called(body)
        kind = self.kind(name)
        namespace = meta.get("namespace", "") if kind.namespaced else ""
        with self._state.changed:
            if namespace and ("Namespace", "", namespace) not in self._state.objects:
                self.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
            key = (name, namespace, meta["name"])
            return copied(self._store(key, body, self._state.objects.get(key)))

    def peek(self, ref: Ref) -> Json:
        """The stored object itself, to be read only; no call. Raises NotFound."""
        return self._found(ref)

    def has_any(self, *kinds: str) -> bool:
        """Whether there is an object of one of these kinds; no call, and quick."""
        return any(key[0] in kinds for key in self._state.objects)

    def holds(self, ref: Ref) -> bool:
        """Whether the object is there; no call."""
        return (ref.kind, ref.namespace, ref.name) in self._state.objects

    def listing(self, kind: str, namespace: str, labels: str = "") -> Objects:
        """The stored objects themselves, to be read only; no call."""
        return self._listed(kind, namespace, labels)

    @property
    def version(self) -> int:
        """Moves with every change of any object."""
        return self._state.version

    def fork(self, now: Callable[[], Instant]) -> Self:
        """A server of its own with the same objects: stored objects are never changed in place, so they are shared.
        What was called and what was ordered to fail stays behind, and nobody watches it."""
        twin = copy.copy(self)
        twin._now = now
        twin._state = _State(objects=dict(self._state.objects), version=self._state.version)
        twin.admission, twin.denied = list(self.admission), set(self.denied)
        return twin

    def drop(self, ref: Ref) -> None:
        """Remove an object without any check."""
        with self._state.changed:
            self._remove((ref.kind, ref.namespace, ref.name))

    def forget(self) -> None:
        """Let every watch lose its place: it syncs again, and what happened in between shows only in the sync."""
        with self._state.changed:
            self._state.forgets += 1
            self._state.changed.notify_all()

    # ------------------------------------------------------------------------------------------ reads

    def whoami(self) -> Identity:
        """The user given to the constructor or to `as_user`."""
        with self._call(Call("whoami", Ref("", "", ""), self._user)):
            return Identity(self._user, ("system:authenticated",))

    def server_version(self) -> str:
        """A version that no real server has."""
        with self._call(Call("version", Ref("", "", ""), self._user)):
            return "v0.0.0-fake"

    def offset(self) -> Bounds:
        """`clock_offset`."""
        with self._call(Call("offset", Ref("", "", ""), self._user)):
            return self.clock_offset

    def kind(self, name: str) -> Kind:
        """Of the table, or of `defined`."""
        spelled = spelled_out(name)
        return kind_of(name) if spelled is None else served(name, self.defined.get(spelled[0]))

    def get(self, ref: Ref) -> Json:
        """The object."""
        self.kind(ref.kind)
        with self._call(Call("get", ref, self._user)):
            return shown(ref.kind, self._found(ref))

    def list(self, kind: str, namespace: str, labels: str = "") -> list[Json]:
        """Objects in order of namespace and name."""
        self.kind(kind)
        with self._call(Call("list", Ref(kind, namespace, ""), self._user)):
            return [shown(kind, body) for body in self._listed(kind, namespace, labels)]

    def allowed(self, verb: str, kind: str, namespace: str, name: str = "") -> bool:
        """Yes, unless `denied` or `denied_reviews` holds it."""
        with self._call(Call("allowed", Ref(kind, namespace, name), self._user, body=verb)):
            reviewed = {(verb, kind), (verb, kind, namespace)} & self.denied_reviews
            return not reviewed and not self._denies(verb, kind, namespace)

    def logs(self, namespace: str, pod: str, *, previous: bool = False, lines: int = 50) -> str:
        """The newest lines of `pod_logs`."""
        ref = Ref("Pod", namespace, pod)
        with self._call(Call("logs", ref, self._user)):
            self._found(ref)
            text = self.pod_logs.get((namespace, pod), "").splitlines(keepends=True)
            return "".join(text[-lines:])

    def token(self, namespace: str, service_account: str, seconds: int) -> str:
        """A string that names the account."""
        with self._call(Call("token", Ref("ServiceAccount", namespace, service_account), self._user, body=seconds)):
            return f"token-of-{namespace}-{service_account}"

    def watch(self, kind: str, namespace: str, labels: str, stop: Flag, *, name: str = "") -> Iterator[WatchEvent]:
        """A sync, then every change until `stop`. What is there already is told even when `stop` is set."""
        self.kind(kind)
        return self._named(self._watched(kind, namespace, labels, stop), name)

    @staticmethod
    def _named(events: Iterator[WatchEvent], name: str) -> Iterator[WatchEvent]:
        for event in events:
            items = tuple(item for item in event.items if not name or item["metadata"]["name"] == name)
            if items or event.type == "sync":
                yield WatchEvent(event.type, items)

    def _watched(self, kind: str, namespace: str, labels: str, stop: Flag) -> Iterator[WatchEvent]:
        state, ref = self._state, Ref(kind, namespace, "")
        forgets = at = -1
        while True:
            pending: Pending = []
            with state.changed:
                if forgets != state.forgets:
                    with self._call(Call("watch", ref, self._user)):
                        forgets, at = state.forgets, len(state.history)
                        pending.append(WatchEvent("sync", tuple(self._listed(kind, namespace, labels))))
                for change in state.history[at:]:
                    pending += _seen(change, kind, namespace, labels)
                at = len(state.history)
                if not pending:
                    if stop.is_set():
                        return
                    state.changed.wait(timeout=0.02)
            for event in pending:
                yield WatchEvent(event.type, tuple(shown(kind, item) for item in event.items))

    # ----------------------------------------------------------------------------------------- writes

    def create(self, body: Json, *, dry_run: bool = False) -> Json:
        """Create, with generateName; AlreadyExists, NotFound for a missing namespace, Invalid, Forbidden."""
        body = copied(body)
        name = _called(body)
        kind, meta = self.kind(name), body.setdefault("metadata", {})
        namespace = meta.get("namespace", "") if kind.namespaced else ""
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"] + uuid.uuid4().hex[:5]
        ref = Ref(name, namespace, str(meta.get("name", "")))
        call = Call("create", ref, self._user, dry_run, copied(body))
        with self._call(call):
            key = (name, namespace, ref.name)
            if kind.namespaced:
                self._found(Ref("Namespace", "", namespace))
            self._admit(call, None, body)
            if key in self._state.objects:
                raise AlreadyExists("already-exists", f"{ref} exists", expected="no such object", remedy="read it")
            if meta.get("resourceVersion"):
                raise _invalid("resourceVersion should not be set on objects to be created")
            _validate(body)
            if kind.name in _WITH_STATUS:
                body.pop("status", None)
            body.setdefault("apiVersion", kind.api_version)
            for given in ("uid", "creationTimestamp", "generation"):
                meta.pop(given, None)
            made = shown(kind.name, self._store(key, body, None, dry_run=dry_run, manager=FIELD_MANAGER))
            if not dry_run:
                self._collect()
            return made

    def replace(self, body: Json) -> Json:
        """Replace at the version that the body carries."""
        body = copied(body)
        name = _called(body)
        kind, meta = self.kind(name), body["metadata"]
        namespace = meta.get("namespace", "") if kind.namespaced else ""
        ref = Ref(name, namespace, meta["name"])
        if not meta.get("resourceVersion") or name in SEALED:
            raise _invalid(f"{ref} without metadata.resourceVersion, or read without its data")
        call = Call("replace", ref, self._user, body=copied(body))
        with self._call(call):
            return copied(self._update(call, self._found(ref), body, dry_run=False))

    def patch(
        self, ref: Ref, operations: Sequence[Json], *, dry_run: bool = False, manager: str = FIELD_MANAGER
    ) -> Json:
        """JSON patch with test, add, replace and remove; all or nothing."""
        self.kind(ref.kind)
        call = Call("patch", ref, self._user, dry_run, copied(list(operations)))
        with self._call(call):
            before = self._found(ref)
            after = copied(before)
            for operation in operations:
                after = _move(after, operation) if operation["op"] == "move" else _apply(after, operation)
            return shown(ref.kind, self._update(call, before, after, dry_run=dry_run, manager=manager))

    def delete(
        self, ref: Ref, *, uid: str = "", version: str = "", grace: int | None = None, dry_run: bool = False
    ) -> bool:
        """Remove it at once, whatever time it has; with a namespace goes everything in it."""
        self.kind(ref.kind)
        call = Call("delete", ref, self._user, dry_run, body=uid)
        with self._call(call):
            before = self._state.objects.get((ref.kind, ref.namespace, ref.name))
            if before is None:
                return False
            self._admit(call, before, None)
            if uid and before["metadata"]["uid"] != uid:
                raise _conflict(f"{ref} has uid {before['metadata']['uid']} and not {uid}")
            if version and before["metadata"]["resourceVersion"] != version:
                raise _conflict(f"{ref} has resourceVersion {before['metadata']['resourceVersion']} and not {version}")
            if before["metadata"].get("finalizers"):
                stamp = {"deletionTimestamp": before["metadata"].get("deletionTimestamp", "2026-01-01T00:00:00Z")}
                leaving = {**copied(before), "metadata": {**copied(before["metadata"]), **stamp}}
                self._store((ref.kind, ref.namespace, ref.name), leaving, before, dry_run=dry_run)
            elif not dry_run:
                self._remove((ref.kind, ref.namespace, ref.name))
        return True

    # ------------------------------------------------------------------------------------------- help

    def _call(self, call: Call) -> _Calling:
        return _Calling(self._state, call, denied=self._denies(call.verb, call.ref.kind, call.ref.namespace))

    def _denies(self, verb: str, kind: str, namespace: str) -> bool:
        return (verb, kind) in self.denied or (verb, kind, namespace) in self.denied

    def _found(self, ref: Ref) -> Json:
        try:
            return self._state.objects[ref.kind, ref.namespace, ref.name]
        except KeyError:
            raise NotFound("not-found", f"{ref} is not there", expected="the object", remedy="look again") from None

    def _listed(self, kind: str, namespace: str, labels: str) -> Objects:
        chosen = selector(labels)
        found = [item for item in self._state.objects.items() if item[0][0] == kind and namespace in ("", item[0][1])]
        return [body for _, body in sorted(found, key=lambda item: item[0]) if chosen(body)]

    def _admit(self, call: Call, before: Json | None, after: Json | None) -> None:
        for admission in self.admission:
            reason = admission(call, copied(before), copied(after))
            if reason:
                raise Forbidden(
                    "denied-by-policy", f"{call.ref} is forbidden: {reason}", expected="to be allowed", remedy="ask"
                )

    def _update(self, call: Call, before: Json, after: Json, *, dry_run: bool, manager: str = FIELD_MANAGER) -> Json:
        old, new = before["metadata"], after["metadata"]
        self._admit(call, before, after)
        for name in ("uid", "resourceVersion"):
            if new.get(name, old[name]) != old[name]:
                raise _conflict(f"{call.ref} has {name} {old[name]} and not {new[name]}")
        if (new.get("name"), new.get("namespace", "")) != (old["name"], old.get("namespace", "")):
            raise _invalid(f"{call.ref} cannot change its name")
        _validate(after)
        if before.get("immutable") and before.get("data") != after.get("data"):
            raise _invalid(f"{call.ref} is immutable")
        for name in ("uid", "creationTimestamp", "generation", "resourceVersion"):
            if name in old:
                new[name] = old[name]
        if call.ref.kind in _WITH_STATUS:
            after.pop("status", None)
            if "status" in before:
                after["status"] = copied(before["status"])
        key = (call.ref.kind, call.ref.namespace, call.ref.name)
        return self._store(key, after, before, dry_run=dry_run, manager=manager)

    def _store(
        self, key: Key, body: Json, before: Json | None, *, dry_run: bool = False, manager: str = "somebody"
    ) -> Json:
        """Give the object what a server gives, and keep it. An unchanged object keeps its version."""
        kind, meta = self.kind(key[0]), body["metadata"]
        body.setdefault("apiVersion", kind.api_version)
        _encode_strings(body)
        _drop_empty(body)
        old = before["metadata"] if before else {}
        meta["uid"] = old.get("uid") or meta.get("uid") or str(uuid.uuid4())
        stamp = datetime.fromtimestamp(int(self._now()), tz=UTC).isoformat().replace("+00:00", "Z")
        meta["creationTimestamp"] = old.get("creationTimestamp") or meta.get("creationTimestamp") or stamp
        if "spec" in body and key[0] != "Namespace":
            same = before is not None and before.get("spec") == body["spec"]
            meta["generation"] = int(old.get("generation", 0)) + (0 if same else 1)
        meta["resourceVersion"] = old.get("resourceVersion", "")
        if key[0] in SEALED:
            _manage(body, before, manager, stamp)
        if body == before:
            return body
        if not dry_run and "deletionTimestamp" in meta and not meta.get("finalizers") and key[0] not in _WITH_STATUS:
            self._state.objects[key] = body
            self._remove(key)
            return body
        if not dry_run:
            self._state.version += 1
            meta["resourceVersion"] = str(self._state.version)
            self._state.objects[key] = body
            self._tell(key, before, body)
        return body

    def _remove(self, key: Key) -> None:
        before = self._state.objects.pop(key, None)
        if before is None:
            return
        if key[0] == "Namespace":
            for inner in [one for one in self._state.objects if one[1] == key[2]]:
                self._remove(inner)
        self._state.version += 1
        gone = copied(before)
        gone["metadata"]["resourceVersion"] = str(self._state.version)
        self._tell(key, gone, None)
        self._collect()

    def _collect(self) -> None:
        """The garbage collector's work."""
        uids: set[str] | None = None
        for key, body in list(self._state.objects.items()):
            owners = body["metadata"].get("ownerReferences")
            if owners and key in self._state.objects:
                uids = uids or {one["metadata"]["uid"] for one in self._state.objects.values()}
                if not uids & {owner["uid"] for owner in owners}:
                    self._remove(key)
                    uids = None

    def _tell(self, key: Key, before: Json | None, after: Json | None) -> None:
        self._state.history.append(_Change(self._state.version, key, before, after))
        self._state.changed.notify_all()


class _Calling:
    """Holds the server's lock during one call, records it, and lets an ordered fault happen."""

    def __init__(self, state: _State, call: Call, *, denied: bool) -> None:
        self._state, self._one, self._denied = state, call, denied
        self._fault: _Fault | None = None

    def __enter__(self) -> None:
        self._state.changed.acquire()
        try:
            self._state.calls.append(self._one)
            faults = self._state.faults.get(self._one.verb)
            self._fault = faults.popleft() if faults else None
            if self._fault and not self._fault.after:
                raise self._fault.error
            if self._denied:
                raise Forbidden(
                    "forbidden",
                    f"{self._one.user} may not {self._one.verb} {self._one.ref}",
                    expected="a role that allows it",
                    remedy="bind one",
                )
        except DrillError:
            self._state.changed.release()
            raise

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._state.changed.release()
        if kind is None and self._fault is not None:
            raise self._fault.error


def _called(body: Json) -> str:
    return called(str(body.get("apiVersion") or ""), str(body.get("kind", "")))


def copied(node: T) -> T:
    """A copy of plain JSON, several times faster than copy.deepcopy."""
    if isinstance(node, dict):
        return cast("T", {key: copied(value) for key, value in node.items()})
    return cast("T", [copied(item) for item in node]) if isinstance(node, list) else node


def shown(kind: str, body: Json) -> Json:
    """A copy of a stored object as the port gives it out."""
    return copied(sealed(kind, body))


def _manage(body: Json, before: Json | None, manager: str, stamp: str) -> None:
    """Note who wrote each member of the data, as the server does: whoever changes a value takes it from all others."""
    data, old = body.get("data") or {}, (before or {}).get("data") or {}
    entries = copied(((before or {}).get("metadata") or {}).get("managedFields") or [])
    changed = {name for name, value in data.items() if name not in old or old[name] != value}
    for entry in entries:
        fields = entry["fieldsV1"]["f:data"]
        kept = {key: value for key, value in fields.items() if key[2:] in data and key[2:] not in changed}
        entry["fieldsV1"]["f:data"] = kept
    own = next((entry for entry in entries if entry["manager"] == manager), None)
    if own is None:
        own = {"manager": manager, "operation": "Update", "time": stamp, "fieldsV1": {"f:data": {}}}
        entries.append(own)
    if changed:
        own["time"] = stamp
        own["fieldsV1"]["f:data"] |= {f"f:{name}": {} for name in changed}
    kept_entries = [entry for entry in entries if entry["fieldsV1"]["f:data"]]
    body["metadata"].pop("managedFields", None)
    if kept_entries:
        body["metadata"]["managedFields"] = kept_entries


def no_answer() -> Unreachable:
    """A peer that surely did not get the request."""
    return Unreachable("api-unreachable", "connection refused", expected="an answer", remedy="look")


def lost_reply() -> OutcomeUnknown:
    """A write that may have happened."""
    return OutcomeUnknown("outcome-unknown", "the reply was lost", expected="a reply", remedy="read")


def selector(text: str) -> Callable[[Json], bool]:
    """What a label selector chooses: =, ==, !=, in, notin, exists and !exists."""
    tests = [_requirement(part.strip()) for part in re.split(r",(?![^(]*\))", text) if part.strip()]

    def chosen(body: Json) -> bool:
        labels = body["metadata"].get("labels") or {}
        return all(test(labels) for test in tests)

    return chosen


def _requirement(text: str) -> Callable[[Mapping[str, str]], bool]:
    if match := re.fullmatch(r"(\S+)\s+(in|notin)\s+\(([^)]*)\)", text):
        name, values = match[1], {value.strip() for value in match[3].split(",")}
        wanted = match[2] == "in"
        return lambda labels: (labels.get(name) in values) is wanted
    if match := re.fullmatch(r"([^=!\s]+)\s*(==|=|!=)\s*(\S*)", text):
        name, value, equal = match[1], match[3], match[2] != "!="
        return lambda labels: (labels.get(name) == value) is equal
    if re.fullmatch(r"!?[^=!\s()]+", text):
        return lambda labels: (text.removeprefix("!") in labels) is not text.startswith("!")
    raise _invalid(f"{text!r} is not a label selector")


def _seen(change: _Change, kind: str, namespace: str, labels: str) -> list[WatchEvent]:
    """What a watch with a selector shows of one change: leaving the selection is a deletion."""
    if change.key[0] != kind or namespace not in ("", change.key[1]):
        return []
    chosen = selector(labels)
    was = change.before is not None and chosen(change.before)
    if change.after is not None and chosen(change.after):
        return [WatchEvent("modified" if was else "added", (change.after,))]
    gone = change.after or change.before
    return [WatchEvent("deleted", (gone,))] if was and gone else []


def _validate(body: Json) -> None:
    meta = body["metadata"]
    if not isinstance(meta.get("name"), str) or not _NAME.fullmatch(meta["name"]):
        raise _invalid(f"metadata.name {meta.get('name')!r}")
    fields = _FIELDS.get(body["kind"])
    if fields is None:
        return
    unknown = set(body) - fields
    if unknown:
        raise _invalid(f"unknown field {min(unknown)!r}")
    data = body.get("data") or {}
    if not all(isinstance(value, str) for value in data.values()):
        raise _invalid("data must be strings")


def _drop_empty(body: Json) -> None:
    """A server does not keep maps without members."""
    for holder, names in ((body["metadata"], ("labels", "annotations")), (body, ("data",))):
        for name in names:
            if holder.get(name) == {}:
                del holder[name]


def _encode_strings(body: Json) -> None:
    if body["kind"] == "Secret" and "stringData" in body:
        data = body.setdefault("data", {})
        for name, value in body.pop("stringData").items():
            data[name] = base64.b64encode(value.encode()).decode()


def _apply(body: Json, operation: Json) -> Json:
    """One operation of a JSON patch. As on the real server, and against RFC 6902, `replace` adds a missing member."""
    op, path = operation["op"], str(operation["path"])
    if op not in ("test", "add", "replace", "remove"):
        raise _invalid(f"this fake does not know the operation {op!r}")
    *parents, last = [token.replace("~1", "/").replace("~0", "~") for token in path.split("/")[1:]]
    at: Any = body
    for token in parents:
        at = _step(at, token)
        if at is _MISSING:
            raise _conflict(f"{path} is not there")
    found = _step(at, last)
    if op == "test":
        if (None if found is _MISSING else found) != operation["value"]:
            if body["kind"] in SEALED:
                raise _conflict(f"{path} is not what it was")
            raise _conflict(f"{path} is {json.dumps(None if found is _MISSING else found)}")
        return body
    if found is _MISSING and (op == "remove" or (op == "replace" and isinstance(at, list))):
        raise _conflict(f"{path} is not there")
    if isinstance(at, list):
        _apply_to_list(at, last, op, operation)
    elif isinstance(at, dict):
        if op == "remove":
            del at[last]
        else:
            at[last] = copied(operation["value"])
    else:
        raise _conflict(f"{path} is not there")
    return body


def _move(body: Json, operation: Json) -> Json:
    """The operation `move` of a JSON patch, as RFC 6902 explains it."""
    source, value = str(operation["from"]), cast("Any", body)
    for token in source.split("/")[1:]:
        value = _step(value, token.replace("~1", "/").replace("~0", "~"))
    if value is _MISSING:
        raise _conflict(f"{source} is not there")
    body = _apply(body, {"op": "remove", "path": source})
    return _apply(body, {"op": "add", "path": operation["path"], "value": value})


def _apply_to_list(at: list[Any], last: str, op: str, operation: Json) -> None:
    if op == "remove":
        del at[int(last)]
    elif op == "replace":
        at[int(last)] = copied(operation["value"])
    elif last == "-" or int(last) <= len(at):
        at.insert(len(at) if last == "-" else int(last), copied(operation["value"]))
    else:
        raise _conflict(f"{operation['path']} is beyond the list's end")


def _step(at: Any, token: str) -> Any:
    if isinstance(at, dict):
        return at.get(token, _MISSING)
    if isinstance(at, list) and token.isdigit() and int(token) < len(at):
        return at[int(token)]
    return _MISSING


def _conflict(fact: str) -> Conflict:
    return Conflict("precondition-failed", fact, expected="what was last read", remedy="read it again")


def _invalid(fact: str) -> Invalid:
    return Invalid("invalid", fact, expected="an object that the server accepts", remedy="correct it")


class Shared(FakeCluster):
    """A cluster that outlives each command which connects to it."""

    def close(self) -> None:
        """Others follow."""
