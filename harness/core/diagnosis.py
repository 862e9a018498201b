"""What a look at a cluster found, check by check, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """How a check came out."""

    OK = "OK"
    MISSING = "MISSING"
    """Something that a drill needs is not there: it would be refused."""
    WARNING = "WARNING"
    """A drill would run, and lack something."""
    UNKNOWN = "UNKNOWN"
    """It could not be looked at."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One check: what was found, and what to do about it. `group` says what it is about; `values` are its numbers, with
    units in their names."""

    group: str
    check: str
    state: State
    fact: str
    remedy: str = ""
    expected: str = ""
    slug: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The check as plain data, for JSON output."""
        return {**asdict(self), "state": str(self.state)}


def counts(found: Sequence[Diagnosis]) -> dict[str, int]:
    """How many checks came out in which state."""
    return {str(state): sum(one.state is state for one in found) for state in State}
