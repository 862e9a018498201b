"""A run's events in order, and the questions that others ask of them.

The history is the journal in memory. Sequence numbers are dense from zero: a gap means that something was lost, and
judging a journal with a hole would be guessing, so it is an error. Appending is amortised constant time and nothing
is ever removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from harness.core.clock import Instant
from harness.core.errors import BadInput
from harness.core.event import (
    CleanChecked,
    Event,
    InjectDone,
    InjectionPlanned,
    InjectStarted,
    Record,
    RunEnded,
    RunStarted,
    UndoDone,
)

E = TypeVar("E")


class History:
    """Append-only; indexed by event class so that questions do not scan the whole run."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._records: list[Record] = []
        self._by_class: dict[type, list[Record]] = {}
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
        for record in self._records:
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

    def taken_over(self) -> frozenset[str]:
        """Faults that somebody else undid, who had taken the lock from this run."""
        ends = {done.fault: done.outcome for done in self.all(UndoDone)}
        return frozenset(fault for fault, outcome in ends.items() if outcome == "taken over")

    @property
    def is_clean(self) -> bool | None:
        """The newest comparison with the snapshots; None where there was none."""
        checked = self.last(CleanChecked)
        return None if checked is None else checked.clean


def entry(history: History, event: Event, at: Instant) -> Record:
    """The record that would come next."""
    return Record(seq=len(history), at=at, event=event)
