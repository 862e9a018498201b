"""What is known of a fault's effect: pure, from the history.

A fault counts when its effect is proved, not when its write returned. What can prove one is gathered here, so that a
fault's own `proof` is a sentence over it: the pods of its target as they were seen since the injection, and since when
the condition of its `effect` holds on Prometheus' samples. What was so already before a fault was injected proves
nothing of it, whether another fault brought it about or nobody knows what.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.core.clock import Bounds, Instant
from harness.core.event import InjectDone, ObjectSeen, PodsSeen, Record
from harness.core.experiment import FaultSpec, effect_signal, measured_effect
from harness.core.held import held_since
from harness.core.history import History
from harness.core.samples import samples


@dataclass(frozen=True, slots=True)
class Proof:
    """The effect is there: since when, in words, by which journal records."""

    at: Bounds
    proof: str
    evidence: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen of one fault since its injection."""

    injected: Bounds
    """The write: from before it was sent to the reply."""
    pods: Sequence[tuple[Record, PodsSeen]] = ()
    """The target's pods after every change, oldest first; empty for a fault that shows in none."""
    measured: Proof | None = None
    """Since when the condition of `effect` holds; None where it does not yet, where it held already before the
    injection, or where there is none."""
    objects: Sequence[tuple[Record, ObjectSeen]] = ()
    """The object that shows the effect after every change, oldest first; empty for a fault that shows in none."""
    undo: dict[str, Any] = field(default_factory=dict)
    """The fault's undo record: what `plan` chose."""
    deleted: frozenset[str] = frozenset()
    """The uids of what the write surely deleted."""
    replied: bool = True
    """Whether every reply came: if not, the write may have done more."""


def evidence(spec: FaultSpec, history: History) -> Evidence | None:
    """What there is to prove the effect of a fault by; None where it was not injected."""
    write = _write(history, spec.id)
    if write is None:
        return None
    injected = write.at
    pods = [
        (record, event)
        for record, event in history.records(PodsSeen)
        if event.fault == spec.id and record.at >= injected.earliest
    ]
    objects = [
        (record, event)
        for record, event in history.records(ObjectSeen)
        if event.fault == spec.id and record.at >= injected.earliest
    ]
    plan = history.plans().get(spec.id)
    measured = _measured(spec, history, injected)
    undo = plan.undo if plan is not None else {}
    replied = write.outcome == "done"
    return Evidence(injected, pods, measured, objects, undo, frozenset(write.deleted), replied)


def _measured(spec: FaultSpec, history: History, injected: Bounds) -> Proof | None:
    condition = measured_effect(spec)
    if condition is None or held_before(spec, history, injected.earliest):
        return None
    held = held_since(history, effect_signal(spec.id), condition, not_before=injected.earliest)
    return None if held is None else Proof(held.at, held.source, held.evidence)


def held_before(spec: FaultSpec, history: History, at: Instant) -> str:
    """Why the effect of a fault that is injected at an instant cannot be proved: its condition holds in the last sample
    before that which has a value. "" where it does not, or where there is none: the preflight has looked, too."""
    condition = measured_effect(spec)
    if condition is None:
        return ""
    told = samples(history, effect_signal(spec.id))
    for index in range(bisect_left(told, at, key=lambda sample: sample.at) - 1, -1, -1):
        sample = told[index]
        if sample.value is not None:
            return (
                f"{condition} held already {at - sample.at:.1f} s before it: {sample.value:g}"
                if condition.holds(sample.value)
                else ""
            )
    return ""


def unprovable(spec: FaultSpec, history: History) -> str:
    """Why the effect of a fault that was injected can never be proved; "" where it can, or was not injected."""
    write = _write(history, spec.id)
    return "" if write is None else held_before(spec, history, write.at.earliest)


def _write(history: History, fault_id: str) -> InjectDone | None:
    """How the write of a fault ended; None where it was not injected."""
    done = next((event for event in history.all(InjectDone) if event.fault == fault_id), None)
    return None if done is None or done.outcome == "failed" else done
