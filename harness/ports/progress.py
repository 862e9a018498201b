"""How long work tells a person what it is doing and how long it will take."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol, Self


class StepHandle(Protocol):
    """One running step."""

    def update(self, detail: str, fraction: float | None = None) -> None:
        """Say what the step is at; `fraction` in [0, 1] where it is known."""


class Progress(Protocol):
    """A sink for progress. Implementations must be cheap and must never raise."""

    def say(self, text: str) -> None:
        """One line of plain information."""

    def step(self, title: str, *, expect_seconds: float | None = None) -> AbstractContextManager[StepHandle]:
        """Announce a step, time it, and report how it ended. `expect_seconds` is an honest estimate."""


class Silent:
    """The progress of someone who is not watching."""

    def say(self, text: str) -> None:
        """Drop the line."""

    def step(self, title: str, *, expect_seconds: float | None = None) -> AbstractContextManager[StepHandle]:
        """A step that nobody sees."""
        del title, expect_seconds
        return _SilentStep()


class _SilentStep:
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def update(self, detail: str, fraction: float | None = None) -> None:
        """Drop the detail."""
