"""How exactly an alert's states are known, from the rule group's own evaluations.

Prometheus writes one `ALERTS` sample per evaluation in which an alert is active, stamped with that evaluation's
instant. The first sample with alertstate="firing" is therefore the very evaluation that fired it (Alertmanager's
startsAt is the same instant), and the first evaluation after the last sample is the one that resolved it. No poll's
clock enters. Sources: Prometheus rules/alerting.go (ActiveAt, FiredAt, ResolvedAt) and prometheus/compliance,
alert_generator/specification.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.core.clock import Bounds, Instant

_ROUNDING = 0.001
"""Slots: what rounding of stamps may take from a whole number of them."""


@dataclass(frozen=True, slots=True)
class AlertSeries:
    """Raw ALERTS samples of one instance in one state: its labels without alertname and alertstate, its stamps."""

    state: Literal["pending", "firing"]
    labels: Mapping[str, str]
    stamps: tuple[Instant, ...]


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of state at an evaluation, on Prometheus' clock.

    `at` is a point where the evaluation is known, and an interval where evaluations were missed around it: `missed`
    says how many.
    """

    to: Literal["pending", "firing", "resolved"]
    at: Bounds
    labels: Mapping[str, str]
    missed: int = 0


def transitions(
    series: Sequence[AlertSeries], *, interval: float, since: Instant, evaluated: Instant | None
) -> list[Transition]:
    """The transitions that the raw samples prove, oldest first.

    `interval` is the group's evaluation interval in seconds; `since` cuts what came before the window; `evaluated`
    is when the group's newest evaluation began: an alert without a sample at it is resolved. Instances with different
    labels count as one alert, active while any is: that is how people are paged.
    """
    stamps: dict[Instant, str] = {}
    labels: dict[str, Mapping[str, str]] = {}
    for one in series:
        for stamp in one.stamps:
            if stamp < since:
                continue
            if stamps.get(stamp) != "firing":
                stamps[stamp] = one.state
            labels.setdefault(one.state, one.labels)
    found: list[Transition] = []
    state, previous = "inactive", None
    slack = interval * 1.5
    for stamp in sorted(stamps):
        new = stamps[stamp]
        missed = 0 if previous is None or stamp - previous <= slack else round((stamp - previous) / interval) - 1
        if missed and previous is not None and new == "pending":
            # An alert that starts over was inactive in between. Firing on both sides of a gap is a missed evaluation.
            # Of an alert that was resolved and came back no sample tells which of these evaluations were made.
            if state == "firing":
                found.append(Transition("resolved", Bounds(earliest=previous, latest=stamp), labels["firing"]))
            state = "inactive"
        if new == "pending" and state != "pending":
            found.append(Transition("pending", Bounds.at(stamp), labels["pending"]))
        if new == "firing" and state != "firing":
            at = Bounds(earliest=previous, latest=stamp) if missed and previous is not None else Bounds.at(stamp)
            found.append(Transition("firing", at, labels["firing"], missed))
        state, previous = new, stamp
    if state == "firing" and previous is not None and evaluated is not None:
        slots = _slots_between(previous, evaluated, interval)
        if slots > 0:
            at = Bounds(earliest=previous + interval, latest=previous + slots * interval)
            found.append(Transition("resolved", at, labels["firing"]))
    return found


def _slots_between(last: Instant, evaluated: Instant, interval: float) -> int:
    """How many slots of evaluation there were after `last`, up to that of the evaluation which began at `evaluated`.

    Samples are stamped with their slot, slots are `interval` apart, and an evaluation begins less than one interval
    after its slot: a later one is missed. Where more than one slot has passed, a missed evaluation cannot be told
    from one that was made.
    """
    return math.floor((evaluated - last) / interval + _ROUNDING) if interval > 0 else int(evaluated > last)


def floor(
    *, scrape: float, evaluation: float, hold: float, group_wait: float | None = None
) -> tuple[Bounds, Bounds | None]:
    """Theoretical bounds in seconds of symptom -> firing, and of symptom -> paged where `group_wait` is known.

    The symptom waits up to one scrape to be sampled and up to one evaluation to be seen, then holds for `for`
    rounded up to whole evaluations. Formula: t_fire = t_symptom + phi_s + phi_e + ceil(for/Te)*Te.
    """
    held = math.ceil(hold / evaluation) * evaluation if evaluation > 0 else hold
    firing = Bounds(earliest=held, latest=held + scrape + evaluation)
    if group_wait is None:
        return firing, None
    return firing, Bounds(earliest=firing.earliest + group_wait, latest=firing.latest + group_wait + evaluation)


def weightiest(*, scrape: float, evaluation: float, hold: float, group_wait: float | None) -> tuple[str, float]:
    """Which knob of the chain adds most to the time from a symptom to its page, and how many seconds: `for`, the scrape
    interval, the evaluation interval, or Alertmanager's group_wait where it is known."""
    held = math.ceil(hold / evaluation) * evaluation if evaluation > 0 else hold
    knobs = {
        "`for`": held,
        "the scrape interval": scrape,
        "the evaluation interval": evaluation,
        "group_wait": group_wait or 0.0,
    }
    return max(knobs.items(), key=lambda knob: knob[1])
