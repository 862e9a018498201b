"""Put an object of somebody else's into the namespace, and take it away again: another engine's chaos as a fault.

What it does is its engine's business, and so is how many pods it hits. The drill makes it as its undo record's own,
waits until a field of it or a query says that it works, deletes it, and waits until it is gone. What a finalizer holds
is told and never torn out.
"""

from __future__ import annotations

import re
import secrets
from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator

from harness.core.clock import Bounds
from harness.core.errors import BadInput, Refused
from harness.core.event import Change, ObjectSeen
from harness.core.experiment import FaultSpec, Frozen, Loc, MeasuredEffect
from harness.core.fields import FieldPath
from harness.core.quantity import Duration
from harness.ports.cluster import AlreadyExists, Cluster, Conflict, Json, NotFound, Ref
from harness.ports.fault import Evidence, ObjectSelector, Plan, Proof, UndoOutcome, UndoRecord
from harness.ports.kinds import called

OURS = "drill.internal/"
MARK = f"{OURS}manifest"
"""On the object: the token by which it is known as this fault's own."""
_ATTEMPTS = 3
_GROUPS = frozenset({
    "admissionregistration.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io", "authentication.k8s.io",
    "authorization.k8s.io", "certificates.k8s.io", "coordination.k8s.io", "rbac.authorization.k8s.io",
})  # fmt: skip
"""API groups of which a drill makes nothing: who may what, what is let in, who leads."""
_CORE = frozenset({"Secret", "ServiceAccount"})
_METADATA = frozenset({"name", "namespace", "labels", "annotations"})
_API_VERSION = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?v[0-9]+((alpha|beta)[0-9]+)?")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,200}[a-z0-9])?")


class ObjectState(Frozen):
    """A field of the object and the value that it must have."""

    field: FieldPath
    equals: str | bool | int | float


class ObjectEffect(ObjectState):
    """What the object must show for the fault to count."""

    within: Duration


class ManifestSpec(FaultSpec):
    """Parameters of the fault."""

    kind: Literal["manifest"]
    manifest: dict[str, Any]
    effect: ObjectEffect | MeasuredEffect
    over_when: ObjectState | None = None
    """What the object shows once it has ended by itself."""

    @model_validator(mode="after")
    def _an_object(self) -> Self:
        body, meta = self.manifest, self.manifest.get("metadata")
        if not isinstance(meta, dict) or not _NAME.fullmatch(str(meta.get("name", ""))):
            raise ValueError("a manifest names its object: write `metadata.name`; a generated name could not be undone")
        if not _API_VERSION.fullmatch(str(body.get("apiVersion", ""))) or not str(body.get("kind", "")).isalpha():
            raise ValueError("a manifest says what it is: write `apiVersion` and `kind`")
        odd = sorted({"status"} & set(body)) + [f"metadata.{key}" for key in sorted(set(meta) - _METADATA)]
        if odd:
            raise ValueError(f"{odd[0]} is not for a drill to say; leave it out")
        marked = [key for part in ("labels", "annotations") for key in meta.get(part) or {} if key.startswith(OURS)]
        if marked:
            raise ValueError(f"{marked[0]} is the harness' own; leave it out")
        group = body["apiVersion"].rpartition("/")[0]
        if group in _GROUPS or (not group and body["kind"] in _CORE):
            raise ValueError(f"a drill makes no {body['kind']}: it says who may what, or holds secrets")
        return self

    def nonsense(self, timeout: float) -> list[tuple[Loc, str]]:
        """See FaultSpec."""
        del timeout
        over, effect = self.over_when, self.effect
        if over is None or not isinstance(effect, ObjectEffect) or over.field != effect.field:
            return []
        if (type(over.equals), over.equals) != (type(effect.equals), effect.equals):
            return []
        return [(("over_when",), "it is the same as `effect`: the run would be aborted as soon as the fault works")]


class Manifest:
    """The fault `manifest`."""

    kind: ClassVar[str] = "manifest"

    def verbs(self, spec: ManifestSpec) -> tuple[tuple[str, str], ...]:
        """See ports.fault."""
        kind = _kind(spec.manifest)
        return tuple((verb, kind) for verb in ("get", "list", "watch", "create", "delete"))

    def plan(self, spec: ManifestSpec, namespace: str, cluster: Cluster) -> Plan:
        """See ports.fault. Refuses what lies outside of the namespace, and a name that is taken."""
        meta = spec.manifest["metadata"]
        ref = Ref(_kind(spec.manifest), namespace, meta["name"])
        if meta.get("namespace", namespace) != namespace:
            raise BadInput(
                "other-namespace",
                f"fault {spec.id} makes an object in {meta['namespace']}, and the experiment drills {namespace}",
                expected=f"an object in {namespace}",
                remedy="leave `metadata.namespace` out of the manifest",
            )
        if not cluster.kind(ref.kind).namespaced:
            raise BadInput(
                "cluster-scoped",
                f"fault {spec.id} makes a {spec.manifest['kind']}, which lies in no namespace",
                expected="an object of the drilled namespace: only that has opted in",
                remedy=f"edit `manifest` of fault {spec.id}",
            )
        try:
            cluster.get(ref)
        except NotFound:
            pass
        else:
            raise Refused(
                "name-taken",
                f"{ref} exists already",
                expected="no object of that name: the drill must know its own",
                remedy=f"give the object of fault {spec.id} another name, or remove the one that is there",
            )
        token = secrets.token_hex(4)
        labels = {**(meta.get("labels") or {}), MARK: token}
        body = {**spec.manifest, "metadata": {**meta, "namespace": namespace, "labels": labels}}
        over = spec.over_when.model_dump() if spec.over_when is not None else None
        fields = [one.field for one in (spec.effect, spec.over_when) if isinstance(one, ObjectState)]
        return Plan(
            summary=f"make {ref}; what it does, and to how many pods, is not known here",
            targets=(ref,),
            changes=(Change(object=str(ref), path="", before=None, after=spec.manifest["kind"]),),
            pods=spec.blast_radius.pods,
            objects=1,
            undo={
                "kind": ref.kind, "namespace": namespace, "name": ref.name, "token": token, "body": body,
                "fields": fields, "over": over,
            },
        )  # fmt: skip

    def apply(self, undo: UndoRecord, cluster: Cluster, *, dry_run: bool = False) -> None:
        """See ports.fault."""
        try:
            cluster.create(undo["body"], dry_run=dry_run)
        except AlreadyExists as error:
            if dry_run or not _is_ours(undo, cluster.get(_ref(undo))):
                raise Conflict(
                    "name-taken",
                    f"{_ref(undo)} exists, and the drill did not make it",
                    expected="no object of that name",
                    remedy="give it another name, or remove the one that is there",
                ) from error

    def undo(self, undo: UndoRecord, cluster: Cluster, *, force: bool = False) -> UndoOutcome:
        """See ports.fault. What somebody changed in the object does not matter: it is the drill's own, and goes. One
        that the drill did not make is left even by force, and so is a finalizer."""
        ref = _ref(undo)
        for _ in range(_ATTEMPTS):
            try:
                body = cluster.get(ref)
            except NotFound:
                return UndoOutcome("already", f"{ref} is not there: somebody removed it, or it was never made")
            if not _is_ours(undo, body):
                detail = f"{ref} is there, and the drill did not make it"
                return UndoOutcome("already" if force else "refused", f"{detail}: it is left alone")
            if "deletionTimestamp" in body["metadata"]:
                return UndoOutcome("already", f"{ref} is being deleted{_held(body)}")
            try:
                cluster.delete(ref, uid=body["metadata"]["uid"])
            except Conflict:
                continue  # made anew between the look and the deletion: look again
            return UndoOutcome("restored", f"{ref} is deleted{_held(body)}")
        return UndoOutcome("refused", f"{ref} was made anew under {_ATTEMPTS} attempts to delete it")

    def differences(self, undo: UndoRecord, cluster: Cluster) -> tuple[str, ...]:
        """See ports.fault: the object, as long as it is there, and what holds it."""
        ref = _ref(undo)
        try:
            body = cluster.get(ref)
        except NotFound:
            return ()
        if not _is_ours(undo, body):
            return (f"{ref} is there, and the drill did not make it",)
        return (f"{ref} is still there{_held(body)}",)

    def pods(self, undo: UndoRecord) -> None:
        """See ports.fault: whose pods it hits is not known."""
        del undo

    def object(self, undo: UndoRecord) -> ObjectSelector:
        """See ports.fault."""
        return ObjectSelector(_ref(undo), tuple(undo["fields"]))

    def ended(self, undo: UndoRecord, seen: ObjectSeen) -> str:
        """See ports.fault. An object that somebody deleted did not end by itself: that is a cure."""
        over = undo["over"]
        if over is None or not _shows(seen, over["field"], over["equals"]):
            return ""
        return f"{_ref(undo)} says so: {over['field']} is {over['equals']}"

    def proof(self, spec: ManifestSpec, evidence: Evidence) -> Proof | None:
        """See ports.fault. When the field came to say so nobody stamps: between the write and the first sight."""
        effect = spec.effect
        if isinstance(effect, MeasuredEffect):
            return evidence.measured
        for record, seen in evidence.objects:
            if _shows(seen, effect.field, effect.equals):
                at = Bounds(earliest=evidence.injected.earliest, latest=record.at)
                return Proof(at, f"{seen.object} says {effect.field} is {effect.equals}", (record.seq,))
        return None


def _kind(manifest: Json) -> str:
    return called(str(manifest["apiVersion"]), str(manifest["kind"]))


def _ref(undo: UndoRecord) -> Ref:
    return Ref(undo["kind"], undo["namespace"], undo["name"])


def _is_ours(undo: UndoRecord, body: Json) -> bool:
    return bool((body["metadata"].get("labels") or {}).get(MARK) == undo["token"])


def _held(body: Json) -> str:
    finalizers = body["metadata"].get("finalizers") or ()
    return f", held by {', '.join(finalizers)} until that lets it go" if finalizers else ""


def _shows(seen: ObjectSeen, field: str, wanted: Any) -> bool:
    """Whether the object is there, is to stay, and its field has the value: true is not 1."""
    now = seen.fields.get(field)
    return bool(seen.uid) and not seen.leaving and isinstance(now, bool) == isinstance(wanted, bool) and now == wanted
