"""One run per namespace: a Lease in the drilled namespace, renewed while the run lives.

The library's election keeps believing that it leads while the API server is frozen, so this is our own: a holder
that could not renew for its whole duration knows by its own clock that the lock may be somebody else's, and says so
before anybody else may take it. A foreign lock counts as lapsed only after it was watched unchanged for its whole
duration on our own clock: stamps of other machines are not compared with ours.

The lock also says what its holder does: the phase of a run, or that it is a recovery, which others wait for.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from threading import Event as Flag
from threading import Lock, Thread
from typing import Literal, Self

from harness.core.clock import Clock, Instant, parse_utc
from harness.core.decide import API_SERVER, LOCK
from harness.core.errors import DrillError, Refused, Unreachable
from harness.ports.cluster import AlreadyExists, Cluster, Conflict, Json, NotFound, OutcomeUnknown, Ref

NAME = "drill"
DURATION = 15
"""Seconds for which a renewal holds."""
RENEW_EVERY = 4.0
PHASE = "drill.internal/phase"
RECOVERING = "recovering"
"""The phase of a holder that only brings things back. It is worth waiting for: it ends by itself."""
RECOVERY_TAKES = 180.0
"""Seconds for which a recovery is waited for before its lock counts as any other."""

Standing = Literal["free", "unknown", "alive", "lapsed"]


class Watched:
    """What our own eyes say of a lock in other hands. Pure; `now` is the watcher's clock."""

    def __init__(self) -> None:
        self._stamp: str | None = None
        self._since: Instant = 0.0

    def look(self, held: Json | None, now: Instant) -> Standing:
        """The standing of the lock that was just read; None where there is no such object.

        "alive" after a renewal was seen, "lapsed" after its whole duration without one, "unknown" before either.
        """
        spec = (held or {}).get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if not holder:
            self._stamp = None
            return "free"
        stamp = f"{holder} {spec.get('renewTime', '')}"
        if self._stamp is None:
            self._stamp, self._since = stamp, now
            return "unknown"
        if stamp != self._stamp:
            self._stamp, self._since = stamp, now
            return "alive"
        return "lapsed" if now - self._since >= lapses_after(held) else "unknown"

    def miss(self) -> None:
        """The lock could not be read. A holder could not renew it either, so the watch begins anew: it must be given
        its whole duration from the moment when the API server answers again."""
        self._stamp = None


def lapses_after(held: Json | None) -> float:
    """Seconds for which the holder's renewal holds."""
    return float(((held or {}).get("spec") or {}).get("leaseDurationSeconds") or DURATION)


def holder_of(held: Json) -> str:
    """Who holds it; empty for nobody."""
    return str((held.get("spec") or {}).get("holderIdentity") or "")


def phase_of(held: Json) -> str:
    """What its holder says it is doing; empty where it does not say."""
    return str((held["metadata"].get("annotations") or {}).get(PHASE, ""))


def looked_at(cluster: Cluster, namespace: str, now: Instant) -> tuple[str, float, str]:
    """Who holds the lock of a namespace, "" for nobody; for how many seconds it was not renewed, 0 while it is in
    force; and what its holder says that it does. A look only: the holder's stamp is believed and compared with `now`;
    whoever takes the lock watches it instead."""
    try:
        held = cluster.get(Ref("Lease", namespace, NAME))
    except NotFound:
        return "", 0.0, ""
    try:
        silent = now - parse_utc(str((held.get("spec") or {}).get("renewTime")))
    except ValueError:
        silent = 0.0
    return holder_of(held), silent if silent > lapses_after(held) else 0.0, phase_of(held)


class Lease:
    """The lock of one run or one recovery. `wait(seconds)` is the caller's interruptible wait and answers False to
    give up. Thread-safe."""

    def __init__(
        self, cluster: Cluster, clock: Clock, namespace: str, holder: str, *, phase: str = "", name: str = NAME
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self._ref = Ref("Lease", namespace, name)
        self._holder = holder
        self._renewed: Instant | None = None
        self._phase = phase
        self._turn = Lock()

    def acquire(self, wait: Callable[[float], bool], say: Callable[[str], None]) -> None:
        """Take the lock, waiting out a dead holder's, and a recovery. Raises Refused where a living run holds it."""
        watched = Watched()
        began, told = self._clock.now(), False
        while True:
            if self._create():
                return
            try:
                held = self._cluster.get(self._ref)
            except NotFound:
                continue
            other = holder_of(held)
            standing = "lapsed" if other == self._holder else watched.look(held, self._clock.now())
            if standing in {"free", "lapsed"}:
                if self._take(held):
                    return
                watched.miss()
                continue
            recovering = phase_of(held) == RECOVERING and self._clock.now() - began < RECOVERY_TAKES
            if standing == "alive" and not recovering:
                raise _busy(self._ref, other)
            if not told:
                told = True
                say(
                    f"{other} is bringing back what an earlier run left; waiting for it"
                    if recovering
                    else f"{other} holds the lock; waiting up to {lapses_after(held):.0f} s to see whether it still "
                    "lives"
                )
            if not wait(1.0):
                raise _busy(self._ref, other)

    def try_acquire(self, held: Json | None) -> bool:
        """Take the lock as it was just read (None: there was none), whoever holds it; False where it moved meanwhile.

        For a caller that has watched it lapse, or that takes it from a run which overstays its deadline: the holder
        learns it at its next renewal.
        """
        return self._create() if held is None else self._take(held)

    def renew(self) -> None:
        """Extend the lock. Raises Refused where it was lost; an unreachable API server is left to `is_lost`."""
        with self._turn:
            self._renew()

    def hold(self, phase: str) -> None:
        """Renew, and say what the run does next. On return the lock is ours by the API server's word, as of now.

        Raises Refused where it was lost, Unreachable where nobody can tell.
        """
        with self._turn:
            self._phase = phase
            self._renew()

    def regain(self, phase: str) -> None:
        """As `hold`, but a lock that nobody holds any more is taken anew: for the way back, which must not be left
        undone, and must not meet somebody else's. Raises Refused where it is in other hands, Unreachable."""
        with self._turn:
            self._phase = phase
            try:
                self._renew()
            except Refused:
                if not self._create():
                    raise

    @property
    def is_lost(self) -> bool:
        """Whether, by our own clock, somebody else may hold the lock by now."""
        return self._renewed is None or self._clock.now() - self._renewed >= DURATION

    def release(self) -> None:
        """Give the lock back by removing it, where it is ours. Never raises for an unreachable server: it lapses."""
        try:
            held = self._cluster.get(self._ref)
            if holder_of(held) == self._holder:
                self._cluster.delete(self._ref, uid=held["metadata"]["uid"])
        except (NotFound, Conflict, Unreachable):
            pass
        self._renewed = None

    def _renew(self) -> None:
        started = self._clock.now()
        try:
            held = self._cluster.get(self._ref)
            if holder_of(held) != self._holder:
                raise _lost(self._ref, f"is now held by {holder_of(held) or 'nobody'}")
            self._cluster.replace(self._body(held))
        except NotFound as error:
            raise _lost(self._ref, "was removed by somebody else") from error
        except Conflict as error:
            raise _lost(self._ref, "was taken by somebody else") from error
        self._renewed = started

    def _create(self) -> bool:
        started = self._clock.now()
        try:
            self._cluster.create(self._body(None))
        except (AlreadyExists, OutcomeUnknown):
            return False
        self._renewed = started
        return True

    def _take(self, held: Json) -> bool:
        started = self._clock.now()
        try:
            self._cluster.replace(self._body(held))
        except (Conflict, NotFound, OutcomeUnknown):
            return False
        self._renewed = started
        return True

    def _body(self, held: Json | None) -> Json:
        stamp = datetime.fromtimestamp(self._clock.now(), tz=UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        metadata: Json = {"name": self._ref.name, "namespace": self._ref.namespace}
        if self._phase:
            metadata["annotations"] = {PHASE: self._phase}
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
        self.lost_by = LOCK
        """Whose doing the loss was: the lock is in other hands, or the API server did not answer."""

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

    def beat(self) -> bool:
        """Renew once; whether the lock is still ours."""
        try:
            self._lease.renew()
        except Unreachable:
            if self._lease.is_lost:
                self.lost, self.lost_by = "the lock could not be renewed in time; another run may hold it", API_SERVER
        except DrillError as error:
            self.lost = error.fact
        if self.lost:
            self.on_lost(self.lost)
        return not self.lost

    def _keep(self) -> None:
        while not self._leave.wait(self._every):
            if not self.beat():
                return


def _busy(ref: Ref, other: str) -> Refused:
    return Refused(
        "run-in-progress",
        f"another run holds the lock of namespace {ref.namespace}: {other}",
        expected="one run per namespace at a time",
        remedy="wait for it to end, or stop it with Ctrl-C where it runs; a dead run's lock lapses by itself",
    )


def _lost(ref: Ref, fate: str) -> Refused:
    return Refused(
        "lease-lost",
        f"the lock of namespace {ref.namespace} {fate}",
        expected="to hold it until the run ends",
        remedy="nothing more is injected; `drill status` shows whether everything was undone",
    )
