"""What a game day waits for before its drill begins: the calendar, the end of real incidents, and people who were told.

Nothing is broken here, and nothing is asked but Prometheus' rules and the stop switch. The order: the calendar; then no
incident may be open; then people are told, and have time to call it off. An incident that began meanwhile goes first as
well, and behind it people are told anew. While Prometheus does not answer, nobody knows that there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.core.clock import Clock, Instant, utc
from harness.core.errors import DrillError, Refused
from harness.core.gameday import GameDay, incidents, next_opening, why_not
from harness.core.quantity import format_duration

Firing = Sequence[tuple[str, str]]
"""The alerts that fire, each with its label `severity`."""
_LOOK_EVERY = 5.0
"""Seconds between two looks at the stop switch while the announced time passes."""


class NotToday(Exception):
    """The calendar keeps this day, or this hour, free. That is no failure of anything."""


def wait_for_start(
    day: GameDay,
    clock: Clock,
    wait: Callable[[float], bool],
    *,
    firing: Callable[[], Firing],
    halted: Callable[[], str],
    tell: Callable[[Instant], None],
    say: Callable[[str], None],
) -> None:
    """Return when the drill may begin.

    `wait` lets seconds pass and says whether to go on; `firing` and `halted` ask the cluster, the latter why drills
    are stopped or ""; `tell` tells people that it begins at that instant. Raises NotToday where the calendar does not
    let it begin, Refused where an incident stays open for too long, where drills are halted, or where it was stopped.
    """
    _in_time(day, clock)
    _no_incident(day, clock, wait, firing, halted, say)
    while True:
        starts = clock.now() + day.announcement.before
        tell(starts)
        if day.announcement.before:
            say(f"announced: it begins at {utc(starts)}, in {format_duration(round(day.announcement.before))}")
        while clock.now() < starts:
            _on(wait, min(_LOOK_EVERY, starts - clock.now()))
            _not_halted(halted)
        _in_time(day, clock)
        if not _no_incident(day, clock, wait, firing, halted, say):
            return
        # It went first, and people were told of an hour that is over: they are told of another.


def _in_time(day: GameDay, clock: Clock) -> None:
    why = why_not(day, clock.now())
    if why:
        opening = next_opening(day, clock.now())
        raise NotToday(why + (f"; the next time is {utc(opening)}" if opening is not None else ""))


def _no_incident(
    day: GameDay,
    clock: Clock,
    wait: Callable[[float], bool],
    firing: Callable[[], Firing],
    halted: Callable[[], str],
    say: Callable[[str], None],
) -> bool:
    """Wait for the end of incidents, and of the time in which nobody knows of any; whether there was anything to wait
    for."""
    told: list[str] = []
    began = clock.now()
    while True:
        _not_halted(halted)
        try:
            found = incidents(firing(), day.gate)
        except DrillError as error:
            if clock.now() - began >= day.gate.patience:
                raise
            found = [error.fact]
        if not found:
            return bool(told)
        if found != told:
            told = found
            say(
                f"a real incident goes first: {', '.join(found)}; looking again every {format_duration(day.gate.every)}"
            )
        if clock.now() - began >= day.gate.patience:
            raise Refused(
                "incident-open",
                f"{', '.join(found)} fires, and did so for all of {format_duration(day.gate.patience)}",
                expected="no firing alert of severity " + " or ".join(day.gate.severities),
                remedy="resolve the incident; the next game day, or `drill gameday` by hand, drills then",
            )
        _on(wait, day.gate.every)
        _in_time(day, clock)


def _not_halted(halted: Callable[[], str]) -> None:
    why = halted()
    if why:
        raise Refused(
            "called-off",
            f"the drill was called off before it began: {why}",
            expected="a cluster on which drills are allowed",
            remedy="`drill resume` allows them again",
        )


def _on(wait: Callable[[float], bool], seconds: float) -> None:
    if not wait(seconds):
        raise Refused(
            "interrupted",
            "stopped before the drill began",
            expected="nothing",
            remedy="nothing was injected; start the game day again when you like",
        )
