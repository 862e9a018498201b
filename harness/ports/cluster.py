"""The Kubernetes API as the harness needs it: raw JSON objects, preconditions that say what they mean, one watch.

Objects are plain JSON as the API server sends them: an undo must put back what was read, and a typed model that
drops or defaults a field would quietly change it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from threading import Event as Flag
from typing import TYPE_CHECKING, Any, Literal, Protocol

from harness.core.clock import Bounds
from harness.core.errors import DrillError, ExitCode, Refused, Unreachable

if TYPE_CHECKING:
    from harness.ports.kinds import Kind

Json = dict[str, Any]
FIELD_MANAGER = "drill"
"""Under which everything is written."""


@dataclass(frozen=True, slots=True)
class Ref:
    """An object's address. `kind` is the API kind, e.g. "Deployment"; cluster-scoped kinds have no namespace."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return (
            f"{self.kind.lower()}/{self.name} in {self.namespace}"
            if self.namespace
            else f"{self.kind.lower()}/{self.name}"
        )


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the API server says we are."""

    username: str
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """`sync` replaces everything known with `items`; the others carry one object. Duplicates are possible."""

    type: Literal["sync", "added", "modified", "deleted"]
    items: tuple[Json, ...] = field(default=())


class NotFound(DrillError):
    """The object does not exist (404)."""

    exit_code = ExitCode.BAD_INPUT


class AlreadyExists(DrillError):
    """A create met an object of that name (409 AlreadyExists)."""

    exit_code = ExitCode.REFUSED


class Conflict(DrillError):
    """A precondition did not hold: a JSON patch `test` (422), a stale version or uid (409, 422). Nothing changed."""

    exit_code = ExitCode.REFUSED


class Forbidden(Refused):
    """RBAC or an admission policy said no (401, 403, or 422 by policy). Nothing changed."""


class Invalid(DrillError):
    """The API server found the object itself unacceptable (400, 422 without a failed test). Nothing changed."""

    exit_code = ExitCode.BAD_INPUT


class OutcomeUnknown(Unreachable):
    """A write's reply was lost (timeout, cut connection, 5xx): it may or may not have happened."""


class Cluster(Protocol):
    """Secrets are read without their data, and writes to them answered so (`harness.ports.sealed`); they cannot be
    replaced. Calls are bounded in time. Reads raise NotFound, Forbidden, Unreachable; reads retry transient failures
    within a few seconds, writes never retry: whoever writes knows whether repeating is safe."""

    def whoami(self) -> Identity:
        """SelfSubjectReview."""

    def server_version(self) -> str:
        """e.g. "v1.34.4"."""

    def offset(self) -> Bounds:
        """Bounds on (API server's clock - ours) in seconds, from its HTTP Date header (whole seconds) and the
        round trip."""

    def kind(self, name: str) -> Kind:
        """The kind of that name; one of all its name (`Kind.version.group`) is asked for once. Invalid where there is
        none."""

    def get(self, ref: Ref) -> Json:
        """The object."""

    def list(self, kind: str, namespace: str, labels: str = "") -> list[Json]:
        """All objects matching a label selector, each with apiVersion and kind filled in."""

    def create(self, body: Json, *, dry_run: bool = False) -> Json:
        """Create; AlreadyExists, Conflict, Forbidden, Invalid, OutcomeUnknown."""

    def replace(self, body: Json) -> Json:
        """Replace at metadata.resourceVersion; Conflict when it is stale."""

    def patch(
        self, ref: Ref, operations: Sequence[Json], *, dry_run: bool = False, manager: str = FIELD_MANAGER
    ) -> Json:
        """JSON patch (RFC 6902) with strict field validation; Conflict when a `test` fails or the uid differs.
        `manager` is whom the API server notes as the writer of what changes."""

    def delete(
        self, ref: Ref, *, uid: str = "", version: str = "", grace: int | None = None, dry_run: bool = False
    ) -> bool:
        """Delete in the background; whether it was there: a missing object is not an error. Conflict when `uid` or
        `version` (its resourceVersion) differs. `grace` are the seconds that a pod has to end; its own where None."""

    def allowed(self, verb: str, kind: str, namespace: str, name: str = "") -> bool:
        """SelfSubjectAccessReview."""

    def watch(self, kind: str, namespace: str, labels: str, stop: Flag, *, name: str = "") -> Iterator[WatchEvent]:
        """List, then watch until `stop`, all objects or the one called `name`; survives cut connections, 410 and
        silence; begins with a sync and syncs again after every gap. Raises Forbidden and NotFound; raises Unreachable
        after 30 s without a connection."""

    def logs(self, namespace: str, pod: str, *, previous: bool = False, lines: int = 50) -> str:
        """The newest log lines of a pod's first container."""

    def token(self, namespace: str, service_account: str, seconds: int) -> str:
        """A short-lived token of a ServiceAccount (TokenRequest)."""
