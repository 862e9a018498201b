"""Where events become durable."""

from __future__ import annotations

from typing import Protocol

from harness.core.event import Record


class Journal(Protocol):
    """Append-only; `append` returns after the record is on disk (written, flushed, synced)."""

    def append(self, record: Record) -> None:
        """Make one record durable. Raises Internal where that failed: then nothing may be acted upon."""

    def read(self) -> list[Record]:
        """All whole records; a torn last line is dropped."""
