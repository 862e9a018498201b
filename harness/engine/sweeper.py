"""The dead man's switch: brings back what runs left that died, or that outstayed their deadline.

It runs in the cluster and needs nothing of a run but what the run stored there: its undo records and its lock. A run
counts as dead when its lock is gone, or was watched unchanged for its whole duration; as overdue when a record is
older, by the API server's clock, than it says itself. It asks again every few seconds instead of watching: a switch
that must work when other things fail does not trust a connection that says nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.core.clock import Clock, Instant
from harness.core.errors import DrillError, RollbackIncomplete
from harness.engine import messages, notes, undo_records
from harness.engine.lease import DURATION, NAME, RECOVERING, Keeper, Lease, Watched, holder_of
from harness.engine.recovery import Recovered, recover
from harness.engine.stopping import OPT_IN_LABEL
from harness.engine.undo_records import UndoRecord
from harness.ports.cluster import Cluster, Forbidden, Json, NotFound, Ref
from harness.ports.fault import Fault

HOME = "drill-system"
HEARTBEAT = "drill-sweeper"
"""The sweeper's own Lease: by its renewals others see that there is one."""
EVERY = 3.0
"""Seconds between two looks."""
REVERTS_WITHIN = 30.0
"""Seconds from a harness' last sign of life to the undo of its faults: the lock's duration, two looks, the writes."""
ELSEWHERE_EVERY = 60.0
"""Seconds between two looks into a namespace that has not opted in (any more)."""
NOT_ALLOWED_EVERY = 600.0
BEAT_EVERY = 10.0
COMPARE_CLOCKS_EVERY = 600.0
MESSAGES_KEPT_FOR = 600.0
"""Seconds after which a message to no run is removed."""
_FIRST_PAUSE = 30.0
_LONGEST_PAUSE = 600.0


@dataclass(slots=True)
class _Seen:
    """What is remembered of a namespace between two looks."""

    lock: Watched = field(default_factory=Watched)
    fails: int = 0
    not_before: Instant = 0.0
    told: str = ""
    busy: bool = False
    """Whether something was there to be undone when it was last looked at."""
    next_look: Instant = 0.0


class Sweeper:
    """One sweeper. It looks at every namespace in which it may, often at those that have opted in.

    `wait(seconds)` is interruptible and answers False once it should end; `say` gets one sentence for everything that
    happens.
    """

    def __init__(
        self,
        cluster: Cluster,
        faults: Mapping[str, Fault[Any]],
        clock: Clock,
        name: str,
        wait: Callable[[float], bool],
        say: Callable[[str], None],
        only: str = "",
    ) -> None:
        """`only` narrows it to one namespace."""
        self._cluster = cluster
        self._faults = faults
        self._clock = clock
        self._name = name
        self._wait = wait
        self._say = say
        self._only = only
        self._seen: dict[str, _Seen] = {}
        self._offset = 0.0
        self._compared: Instant | None = None
        self._heart = Lease(cluster, clock, HOME, name, name=HEARTBEAT)
        self._beaten: Instant | None = None
        self._silent = False

    def run(self) -> None:
        """Look until told to end. An API server that does not answer is asked again; it raises nothing of its own."""
        self._say("watching over drills")
        while True:
            try:
                self.sweep()
                self._beat()
                self._silent = False
            except DrillError as error:
                if not self._silent:
                    self._say(f"cannot look: {error.fact}")
                self._silent = True
            if not self._wait(EVERY):
                self._say("ended")
                return

    def sweep(self) -> list[Recovered]:
        """Look at every namespace once, and bring back what is due. Raises Unreachable or Forbidden where the
        namespaces cannot be listed; what goes wrong in one of them does not keep the others from being looked at."""
        try:
            self._compare_clocks()
            found = [] if self._only else self._cluster.list("Namespace", "")
        except DrillError:
            for seen in self._seen.values():
                seen.lock.miss()
            raise
        opted_in = {
            body["metadata"]["name"]: (body["metadata"].get("labels") or {}).get(OPT_IN_LABEL) == "true"
            for body in found
        }
        if self._only:
            opted_in = {self._only: True}
        self._seen = {name: self._seen.get(name, _Seen()) for name in sorted(opted_in)}
        done: list[Recovered] = []
        for name, seen in self._seen.items():
            # Who withdraws the opt-in while a run is on must not be left with what that run did.
            if not opted_in[name] and not seen.busy and self._clock.now() < seen.next_look:
                continue
            seen.next_look = self._clock.now() + ELSEWHERE_EVERY
            try:
                done += self._look(name, seen)
            except Forbidden as error:
                seen.next_look = self._clock.now() + NOT_ALLOWED_EVERY
                if opted_in[name]:
                    self._tell(name, seen, error.fact)
            except DrillError as error:
                seen.lock.miss()
                self._tell(name, seen, error.fact)
        return done

    def _look(self, namespace: str, seen: _Seen) -> list[Recovered]:
        try:
            records, broken = undo_records.readable(self._cluster, namespace)
        except RollbackIncomplete as error:
            records, broken = [], [error]
        held = self._lock(namespace)
        standing = seen.lock.look(held, self._clock.now())
        seen.busy = bool(records or broken)
        if not seen.busy:
            seen.told, seen.fails = "", 0
            if held is None:
                self._tidy(namespace)
            elif standing == "lapsed":
                self._free(namespace, seen, held)
            return []
        why = self._due(records, standing)
        if not why or self._clock.now() < seen.not_before:
            return []
        return self._bring_back(namespace, seen, held, why, len(broken))

    def _due(self, records: list[UndoRecord], standing: str) -> str:
        """Why the records of a namespace are to be undone now; empty while they are not."""
        if standing == "free":
            return "nobody holds the lock"
        if standing == "lapsed":
            return f"the lock was not renewed for {DURATION} s"
        server = self._clock.now() + self._offset
        for record in records:
            if server - record.created > record.overdue_after:
                return f"run {record.run_id} is past its deadline of {record.overdue_after:.0f} s"
        return ""

    def _bring_back(self, namespace: str, seen: _Seen, held: Json | None, why: str, broken: int) -> list[Recovered]:
        lease = Lease(self._cluster, self._clock, namespace, self._name, phase=RECOVERING)
        if not lease.try_acquire(held):
            seen.lock.miss()
            return []
        holder = holder_of(held) if held is not None else ""
        self._say(f"{namespace}: {why}" + (f" (it was held by {holder})" if holder else "") + "; bringing it back")
        lost: list[str] = []
        done: list[Recovered] = []

        def tell(one: Recovered) -> None:
            done.append(one)
            left = notes.note(one, self._name, self._clock.now())
            self._say(f"{namespace}: {left}" + "".join(f"; {text}" for text in one.differences))
            with contextlib.suppress(DrillError):  # the undo counts, not the word about it
                notes.leave(self._cluster, namespace, left)

        problem = f"{broken} undo record(s) cannot be read" if broken else ""
        with Keeper(lease, lost.append):
            try:
                recover(
                    self._cluster,
                    namespace,
                    self._faults,
                    self._clock,
                    lambda seconds: not lost and self._wait(seconds),
                    lambda text: self._say(f"{namespace}: {text}"),
                    on_done=tell,
                )
            except DrillError as error:
                problem = error.fact
        seen.lock.miss()
        if problem or any(not one.clean for one in done):
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**seen.fails)
            seen.fails += 1
            seen.not_before = self._clock.now() + pause
            self._say(f"{namespace}: not clean{': ' + problem if problem else ''}; trying again in {pause:.0f} s")
        else:
            seen.fails, seen.not_before = 0, 0.0
        return done

    def _lock(self, namespace: str) -> Json | None:
        try:
            return self._cluster.get(Ref("Lease", namespace, NAME))
        except NotFound:
            return None

    def _free(self, namespace: str, seen: _Seen, held: Json) -> None:
        """Remove the lock of somebody who died with nothing to undo."""
        seen.lock.miss()
        lease = Lease(self._cluster, self._clock, namespace, self._name, phase=RECOVERING)
        if lease.try_acquire(held):
            lease.release()
            self._say(f"{namespace}: removed the lock of {holder_of(held)}, which had nothing to undo and died")

    def _tidy(self, namespace: str) -> None:
        """Where no run is on: remove messages that nobody will read, and notes that nobody fetched."""
        server = self._clock.now() + self._offset
        notes.forget_old(self._cluster, namespace, server)
        messages.sweep(self._cluster, namespace, before=server - MESSAGES_KEPT_FOR)

    def _beat(self) -> None:
        now = self._clock.now()
        if self._beaten is not None and now - self._beaten < BEAT_EVERY:
            return
        self._beaten = now
        try:
            held = self._cluster.get(Ref("Lease", HOME, HEARTBEAT))
        except NotFound:
            held = None
        self._heart.try_acquire(held)

    def _compare_clocks(self) -> None:
        now = self._clock.now()
        if self._compared is None or now - self._compared >= COMPARE_CLOCKS_EVERY:
            self._offset = self._cluster.offset().middle
            self._compared = now

    def _tell(self, namespace: str, seen: _Seen, text: str) -> None:
        if text != seen.told:
            self._say(f"{namespace}: {text}")
        seen.told = text
