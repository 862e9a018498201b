"""When a game day may be held, and what is drilled in it: pure, from its file, the time and what was drilled before.

A scheduler starts a game day by its clock alone. Whether people can be asked for it on that day at that hour, and
which experiment is due, is decided here.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from harness.core.clock import Instant
from harness.core.experiment import Frozen, Name, ProfileName, ResponderMode
from harness.core.quantity import Duration

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FAR = 370
"""Days: no calendar leaves a whole year out."""


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(
            f"{name[:60]!r} is no time zone; write one of the IANA database, like Europe/Berlin"
        ) from error
    return name


def _date(text: str) -> str:
    try:
        date.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text[:40]!r} is no day; write it as 2026-12-24") from error
    return text


TimeZone = Annotated[str, AfterValidator(_zone)]
Day = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}$"), AfterValidator(_date)]
ClockTime = Annotated[str, StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
"""An hour and a minute of the local clock."""
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Pick = Literal["least-recently-drilled", "random"]


class Window(Frozen):
    """The hours of the week at which a drill may begin. The end is not part of it."""

    days: tuple[Weekday, ...] = Field(default=("mon", "tue", "wed", "thu", "fri"), min_length=1)
    from_: ClockTime = Field(alias="from")
    until: ClockTime

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if self.until <= self.from_:
            raise ValueError(f"a window ends after it begins, on the same day; it is {self.from_} to {self.until}")
        return self


class Holiday(Frozen):
    """A day on which nobody is drilled."""

    date: Day
    name: str = Field(min_length=1)


class Announcement(Frozen):
    """What is said before a drill begins, and where besides the cluster."""

    before: Duration = 600.0
    """How long before the first check. In that time `drill halt` calls it off."""
    webhook_file: str = ""
    """A file that holds the URL which is told, as chats take it: a POST of {"text": ...}. The URL is a secret."""


class Gate(Frozen):
    """A drill waits for the end of a real incident."""

    severities: tuple[str, ...] = ("page", "critical")
    """Firing alerts whose label `severity` is one of these are incidents; those of the drill itself do not fire yet."""
    every: Duration = Field(default=60.0, gt=0)
    """How often it is looked again."""
    patience: Duration = 3600.0
    """How long it waits before the drill is called off for today."""


class GameDay(Frozen):
    """One file: which experiments, when, how they are chosen, and what happens before one begins."""

    experiments: tuple[Name, ...] = Field(min_length=1)
    folder: str = ""
    """Where experiments are looked for first, by their names; else those that ship are meant."""
    time_zone: TimeZone = "UTC"
    window: Window | None = None
    holidays: tuple[Holiday, ...] = ()
    pick: Pick = "least-recently-drilled"
    profile: ProfileName = "gameday"
    responder: ResponderMode = "human"
    announcement: Announcement = Announcement()
    gate: Gate = Gate()

    @model_validator(mode="after")
    def _once(self) -> Self:
        for name in self.experiments:
            if self.experiments.count(name) > 1:
                raise ValueError(f"{name} is named twice in `experiments`; name it once")
        return self


def why_not(day: GameDay, now: Instant) -> str:
    """Why nobody may be drilled at that moment; "" where they may."""
    local = datetime.fromtimestamp(now, ZoneInfo(day.time_zone))
    holiday = next((one for one in day.holidays if one.date == local.date().isoformat()), None)
    if holiday is not None:
        return f"{holiday.date} is {holiday.name}"
    window = day.window
    if window is None:
        return ""
    here = f"{local:%H:%M} on {_DAYS[local.weekday()]} in {day.time_zone}"
    if _DAYS[local.weekday()] not in window.days or not window.from_ <= f"{local:%H:%M}" < window.until:
        return f"it is {here}, and drills begin {', '.join(window.days)} from {window.from_} to {window.until}"
    return ""


def next_opening(day: GameDay, now: Instant) -> Instant | None:
    """The first moment, to the minute, from which on people may be drilled; now where they may. None where no such
    moment comes within a year."""
    if not why_not(day, now):
        return now
    local = datetime.fromtimestamp(now, ZoneInfo(day.time_zone))
    hour, minute = (int(part) for part in (day.window.from_ if day.window else "00:00").split(":"))
    for ahead in range(_FAR):
        on = local.date() + timedelta(days=ahead)
        at = datetime(on.year, on.month, on.day, hour, minute, tzinfo=local.tzinfo).timestamp()
        if at >= now and not why_not(day, at):
            return at
    return None


def pick(day: GameDay, drilled: Mapping[str, Instant], seed: int | None = None, how: Pick | None = None) -> str:
    """The experiment that is due. `drilled` says when each was drilled last, where that is known.

    By default the one that was drilled longest ago, those that never were first, in the file's order. `random` draws
    one of all; with a `seed` the same one again.
    """
    if (how or day.pick) == "random":
        return random.Random(seed).choice(day.experiments)  # noqa: S311 - a draw that can be repeated, no secret
    return min(day.experiments, key=lambda name: drilled.get(name, float("-inf")))


def announcement(name: str, title: str, namespace: str, at: Instant, zone: str, who: str) -> str:
    """What people are told before a drill begins."""
    local = datetime.fromtimestamp(at, ZoneInfo(zone))
    utc = datetime.fromtimestamp(at, UTC)
    when = f"{local:%A, %H:%M} {zone}" + ("" if zone == "UTC" else f" ({utc:%H:%M} UTC)")
    return (
        f"This is a drill announcement. At {when} the drill “{title}” ({name}) begins in namespace {namespace}; "
        f"{who}. It breaks that namespace for real and puts it back afterwards. To call it off: drill halt REASON"
    )


def incidents(firing: Sequence[tuple[str, str]], gate: Gate) -> list[str]:
    """Which of the firing alerts, by name and severity, are incidents that a drill waits for."""
    return sorted({name for name, severity in firing if severity in gate.severities})


_URL = re.compile(r"https?://\S+")


def is_url(text: str) -> bool:
    """Whether a webhook's file holds one URL and nothing else."""
    return _URL.fullmatch(text.strip()) is not None
