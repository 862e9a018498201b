"""A run's events in order, and the questions that others ask of them.

The history is the journal in memory. Sequence numbers are dense from zero: a gap means that something was lost, and
judging a journal with a hole would be guessing, so it is an error. Appending is amortised constant time and nothing
is ever removed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from heapq import merge
from operator import attrgetter
from typing import Any, Generic, TypeVar

from harness.core.clock import Instant
from harness.core.errors import BadInput
from harness.core.event import (
    CheckDone,
    CleanChecked,
    Event,
    InjectDone,
    InjectionPlanned,
    InjectStarted,
    Record,
    RunEnded,
    RunStarted,
    UndoDone,
    UndoStarted,
)

E = TypeVar("E")
S = TypeVar("S")
T = TypeVar("T")
_SEQ = attrgetter("seq")


class _Fold(Generic[S]):
    """What a fold has come to, and how much it has seen."""

    def __init__(self, state: S) -> None:
        self.state = state
        self.seen = 0


class History:
    """Append-only; indexed by event class so that questions do not scan the whole run."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._records: list[Record] = []
        self._by_class: dict[type, list[Record]] = {}
        self._folds: dict[Hashable, _Fold[Any]] = {}
        for record in records:
            self.append(record)

    def append(self, record: Record) -> None:
        """Add the next record. Raises BadInput on a gap or a repeat."""
        if record.seq != len(self._records):
            raise BadInput(
                "journal-gap",
                f"the journal jumps to event {record.seq} where {len(self._records)} is due",
                expected="sequence numbers without a gap",
                remedy="restore the journal from a copy; a run with lost events cannot be judged",
            )
        self._records.append(record)
        self._by_class.setdefault(type(record.event), []).append(record)

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    def __getitem__(self, seq: int) -> Record:
        return self._records[seq]

    def records(self, kind: type[E]) -> list[tuple[Record, E]]:
        """All events of one class with their records, oldest first."""
        return [(r, r.event) for r in self._by_class.get(kind, ())]  # type: ignore[misc]

    def all(self, kind: type[E]) -> list[E]:
        """All events of one class, oldest first."""
        return [r.event for r in self._by_class.get(kind, ())]  # type: ignore[misc]

    def last(self, kind: type[E]) -> E | None:
        """The newest event of one class."""
        found = self._by_class.get(kind)
        return found[-1].event if found else None  # type: ignore[return-value]

    def told(self, kind: type[Any]) -> Sequence[Record]:
        """The records of one class as they are kept, oldest first: it grows, and nobody changes it."""
        return self._by_class.setdefault(kind, [])

    def folded(self, key: Hashable, over: Sequence[T], start: Callable[[], S], step: Callable[[S, T], None]) -> S:
        """A sequence that only grows, folded in order into what `start` gives by a `step` that changes it.

        Nothing but a saving of work: the answer is the same as if all were folded anew. A fold is known by its `key`,
        which says everything that `over` and `step` depend on; only what came since the last call is stepped over.
        The answer is shared, so whoever asks changes nothing in it. Not for two threads at once.
        """
        fold = self._folds.get(key)
        if fold is None:
            fold = self._folds[key] = _Fold(start())
        while fold.seen < len(over):
            fold.seen += 1
            step(fold.state, over[fold.seen - 1])
        return fold.state  # type: ignore[no-any-return]

    @property
    def start(self) -> RunStarted:
        """The first event. Raises BadInput where the journal does not begin with one."""
        first = self._records[0].event if self._records else None
        if not isinstance(first, RunStarted):
            raise BadInput(
                "journal-headless",
                "the journal does not begin with run.started",
                expected="run.started as the first event",
                remedy="point at the folder of a run that this harness wrote",
            )
        return first

    @property
    def started_at(self) -> Instant:
        """When the first event was written."""
        return self._records[0].at

    @property
    def ready_at(self) -> Instant:
        """When the checks were over: the newest of them, where there were any."""
        checked = self._by_class.get(CheckDone)
        return checked[-1].at if checked else self.started_at

    @property
    def last_at(self) -> Instant:
        """When the newest event was written."""
        return self._records[-1].at

    @property
    def ended(self) -> RunEnded | None:
        """The end of the run, where there is one."""
        return self.last(RunEnded)

    def plans(self) -> dict[str, InjectionPlanned]:
        """The plan of each fault by its id, in order of planning."""
        return {plan.fault: plan for plan in self.all(InjectionPlanned)}

    def open_faults(self) -> tuple[str, ...]:
        """Faults that may be in force: the write was begun and neither failed outright nor was undone. Oldest first."""
        state: dict[str, bool] = {}
        told = (self._by_class.get(kind, ()) for kind in (InjectStarted, InjectDone, UndoDone))
        for record in merge(*told, key=_SEQ):
            match record.event:
                case InjectStarted(fault=fault):
                    state[fault] = True
                case InjectDone(fault=fault, outcome="failed"):
                    state[fault] = False
                case UndoDone(fault=fault, outcome="restored" | "already" | "vanished" | "taken over"):
                    state[fault] = False
                case _:
                    pass
        return tuple(fault for fault, is_open in state.items() if is_open)

    def untouched(self) -> frozenset[str]:
        """Faults that were planned and surely never in force: not begun, or failed outright. Their targets are none of
        this run's doing."""
        begun = {event.fault for event in self.all(InjectStarted)}
        failed = {event.fault for event in self.all(InjectDone) if event.outcome == "failed"}
        return frozenset(fault for fault in self.plans() if fault in failed or fault not in begun)

    def taken_over(self) -> frozenset[str]:
        """Faults that somebody else undid, who had taken the lock from this run."""
        ends = {done.fault: done.outcome for done in self.all(UndoDone)}
        return frozenset(fault for fault, outcome in ends.items() if outcome == "taken over")

    @property
    def undo_began(self) -> Record | None:
        """The record of the first undo: what the system does from here on is no answer to the drill any more."""
        begun = self._by_class.get(UndoStarted)
        return begun[0] if begun else None

    @property
    def is_clean(self) -> bool | None:
        """The newest comparison with the snapshots; None where there was none."""
        checked = self.last(CleanChecked)
        return None if checked is None else checked.clean


def entry(history: History, event: Event, at: Instant) -> Record:
    """The record that would come next."""
    return Record(seq=len(history), at=at, event=event)
