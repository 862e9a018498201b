"""One run per namespace: a Lease in the drilled namespace, renewed while the run lives.

The library's election keeps believing that it leads while the API server is frozen, so this is our own: a holder
that could not renew for its whole duration knows by its own clock that the lock may be somebody else's, and says so
before anybody else may take it. A foreign lock counts as lapsed only after it was watched unchanged for its whole
duration on our own clock: stamps of other machines are not compared with ours.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from threading import Event as Flag
from threading import Thread
from typing import Self

from harness.core.clock import Clock, Instant
from harness.core.errors import DrillError, Refused, Unreachable
from harness.ports.cluster import AlreadyExists, Cluster, Conflict, Json, NotFound, OutcomeUnknown, Ref

NAME = "drill"
DURATION = 15
"""Seconds for which a renewal holds."""
RENEW_EVERY = 4.0


class Lease:
    """The lock of one run. `wait(seconds)` is the caller's interruptible wait and answers False to give up."""

    def __init__(self, cluster: Cluster, clock: Clock, namespace: str, holder: str) -> None:
        self._cluster = cluster
        self._clock = clock
        self._ref = Ref("Lease", namespace, NAME)
        self._holder = holder
        self._renewed: Instant | None = None

    def acquire(self, wait: Callable[[float], bool], say: Callable[[str], None]) -> None:
        """Take the lock, waiting out a dead holder's. Raises Refused where a living run holds it."""
        seen: str | None = None
        since = self._clock.now()
        while True:
            if self._create():
                return
            try:
                held = self._cluster.get(self._ref)
            except NotFound:
                continue
            spec = held.get("spec", {})
            other = spec.get("holderIdentity") or ""
            stamp = f"{other} {spec.get('renewTime', '')}"
            lapses = float(spec.get("leaseDurationSeconds") or DURATION)
            if seen is not None and stamp != seen and other not in {"", self._holder}:
                raise _busy(self._ref, other)
            if other in {"", self._holder} or (seen == stamp and self._clock.now() - since >= lapses):
                if self._take(held):
                    return
                seen, since = None, self._clock.now()
                continue
            if seen is None:
                seen, since = stamp, self._clock.now()
                say(f"{other} holds the lock; waiting up to {lapses:.0f} s to see whether it still lives")
            if not wait(1.0):
                raise _busy(self._ref, other)

    def renew(self) -> None:
        """Extend the lock. Raises Refused where it was lost; an unreachable API server is left to `is_lost`."""
        started = self._clock.now()
        try:
            held = self._cluster.get(self._ref)
            if held.get("spec", {}).get("holderIdentity") != self._holder:
                raise _lost(self._ref, held.get("spec", {}).get("holderIdentity") or "nobody")
            self._cluster.replace(self._body(held))
        except (Conflict, NotFound) as error:
            raise _lost(self._ref, "somebody else") from error
        self._renewed = started

    @property
    def is_lost(self) -> bool:
        """Whether, by our own clock, somebody else may hold the lock by now."""
        return self._renewed is None or self._clock.now() - self._renewed >= DURATION

    def release(self) -> None:
        """Give the lock back by removing it, where it is ours. Never raises for an unreachable server: it lapses."""
        try:
            held = self._cluster.get(self._ref)
            if held.get("spec", {}).get("holderIdentity") == self._holder:
                self._cluster.delete(self._ref, uid=held["metadata"]["uid"])
        except (NotFound, Conflict, Unreachable):
            pass
        self._renewed = None

    def _create(self) -> bool:
        try:
            self._cluster.create(self._body(None))
        except (AlreadyExists, OutcomeUnknown):
            return False
        self._renewed = self._clock.now()
        return True

    def _take(self, held: Json) -> bool:
        try:
            self._cluster.replace(self._body(held))
        except (Conflict, NotFound, OutcomeUnknown):
            return False
        self._renewed = self._clock.now()
        return True

    def _body(self, held: Json | None) -> Json:
        stamp = datetime.fromtimestamp(self._clock.now(), tz=UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        metadata: Json = {"name": self._ref.name, "namespace": self._ref.namespace}
        if held is not None:
            metadata["resourceVersion"] = held["metadata"]["resourceVersion"]
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {"holderIdentity": self._holder, "leaseDurationSeconds": DURATION, "renewTime": stamp},
        }


class Keeper:
    """Renews a lock on a thread of its own, from its acquisition until it is released on leaving.

    `on_lost` is called once, with a sentence, when somebody else holds the lock or may hold it by now. It may be
    replaced while the keeper runs: what a loss must stop changes from preflight to drill.
    """

    def __init__(self, lease: Lease, on_lost: Callable[[str], None], every: float = RENEW_EVERY) -> None:
        self._lease = lease
        self._every = every
        self._leave = Flag()
        self._thread = Thread(target=self._keep, name="drill-lock", daemon=True)
        self.on_lost = on_lost
        self.lost = ""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._leave.set()
        self._thread.join(timeout=DURATION)
        self._lease.release()

    def require(self) -> None:
        """Raise Refused where the lock was lost."""
        if self.lost or self._lease.is_lost:
            raise Refused(
                "lease-lost",
                self.lost or "the lock could not be renewed in time",
                expected="to hold the namespace's lock for the whole run",
                remedy="nothing was injected; see with `drill status` who holds it, and start again",
            )

    def _keep(self) -> None:
        while not self._leave.wait(self._every):
            try:
                self._lease.renew()
            except Unreachable:
                if self._lease.is_lost:
                    self.lost = "the lock could not be renewed in time; another run may hold it"
            except DrillError as error:
                self.lost = error.fact
            if self.lost:
                self.on_lost(self.lost)
                return


def _busy(ref: Ref, other: str) -> Refused:
    return Refused(
        "run-in-progress",
        f"another run holds the lock of namespace {ref.namespace}: {other}",
        expected="one run per namespace at a time",
        remedy="wait for it to end, or stop it with Ctrl-C where it runs; a dead run's lock lapses by itself",
    )


def _lost(ref: Ref, other: str) -> Refused:
    return Refused(
        "lease-lost",
        f"the lock of namespace {ref.namespace} is now held by {other}",
        expected="to hold it until the run ends",
        remedy="nothing more is injected; `drill status` shows whether everything was undone",
    )
