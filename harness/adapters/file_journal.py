"""The journal as a file: one JSON line for each record, on disk before anybody acts upon it.

The lines are a chain: each carries the SHA-256 of the line before, so that none but the last can be changed, taken
out or moved without a later one giving it away. The digest of the last line, the head, stands for the whole file:
who keeps a copy of it elsewhere can prove the journal by it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from harness.core.errors import BadInput, DrillError, Internal, disk_full, is_full
from harness.core.event import (
    CHAINED_SINCE,
    NOTHING_BEFORE,
    Record,
    RunStarted,
    digest_of_line,
    encode,
    parse,
)

NAME = "journal.jsonl"
MAX_BYTES = 256 * 1024 * 1024
"""A journal larger than this is none of ours: a game day of hours is a few MiB."""


class _Line(NamedTuple):
    """One whole line: its bytes, and what could be read of it."""

    raw: bytes
    record: Record | None
    prev: str
    error: ValueError | None


class FileJournal:
    """The Journal port in `folder` (made if missing, for its owner only).

    A crash can tear the last line. `read` leaves it out and sets `torn`; opening the journal for the first `append`
    cuts it off, so that what follows is readable. A line that cannot be read anywhere else is an error, since judging
    a journal with a hole would be guessing. One process appends at a time; that is the Lease's business.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.torn = False
        self.head = ""
        """The digest of the last whole line as `read` found it; "" where the lines are not chained from the first on,
        as in a journal of schema version 1."""
        self.heads: frozenset[str] = frozenset()
        """The digests of all whole lines: every head that the journal ever had."""
        self._prev = NOTHING_BEFORE
        self._lock = Lock()
        self._file: int | None = None
        self._broken: OSError | None = None

    def append(self, record: Record) -> None:
        """Make one record durable: written whole, then synced. Raises Internal where that failed, BadInput where the
        disk is full; the journal then takes nothing more, because what is on disk is no longer known."""
        with self._lock:
            if self._broken:
                raise self._not_durable(record)
            try:
                if self._file is None:
                    self._file = self._open()
                line = encode(record, self._prev).encode()
                _write_all(self._file, line + b"\n")
                os.fsync(self._file)
            except OSError as error:
                self._broken = self._broken or error
                raise self._not_durable(record) from error
            self._prev = digest_of_line(line)

    def read(self) -> list[Record]:
        """All whole records; a torn last line is left out and `torn` says so. Raises BadInput: where there is no
        journal, and with the line's number where another line cannot be read (journal-corrupt) or the chain is broken
        (journal-tampered)."""
        *whole, tail = self._bytes().split(b"\n")
        self.torn = bool(tail)
        lines = [_read(raw) for raw in whole]
        chained = self._checked(lines)
        self.head = digest_of_line(lines[-1].raw) if chained else ""
        self.heads = frozenset(digest_of_line(line.raw) for line in lines)
        return [line.record for line in lines if line.record is not None]

    def close(self) -> None:
        """Close the file; a later append opens it again, unless a write has failed."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
            self._file = None

    def _not_durable(self, record: Record) -> DrillError:
        if self._broken is not None and is_full(self._broken):
            return disk_full(
                f"event {record.seq} could not be made durable: {self._broken.strerror}",
                where=str(self.path),
                remedy="make room there, or choose another folder with --runs; then `drill recover`, which looks "
                "whether all is as it was",
            )
        return Internal(
            "journal-not-durable",
            f"event {record.seq} could not be made durable: {self._broken}",
            expected="to write and sync every event before anything is done about it",
            remedy="free some disk space or choose another folder for runs, then `drill recover`",
            where=str(self.path),
        )

    def _bytes(self) -> bytes:
        try:
            if not self.path.is_file():
                raise FileNotFoundError(2, "it is not a file")
            with self.path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise BadInput(
                "journal-missing",
                f"the journal cannot be read: {error.strerror}",
                expected=f"a run's folder with {NAME} in it",
                remedy="name the folder of a run; runs/ holds them all",
                where=str(self.path),
            ) from error
        if len(data) > MAX_BYTES:
            raise BadInput(
                "journal-too-large",
                f"the journal is larger than {MAX_BYTES // 1024 // 1024} MiB",
                expected="a journal of a few MiB",
                remedy="restore the journal from a copy",
                where=str(self.path),
            )
        return data

    def _checked(self, lines: Sequence[_Line]) -> bool:
        """Whether the lines are chained from the first on. Raises BadInput where one cannot be read, or where the
        chain does not hold. A journal of version 1 has no chain, but what a recovery appends to it has one."""
        begun = any(line.prev for line in lines)
        due = bool(lines) and (bool(lines[0].prev) or _promises_chain(lines[0].record))
        head = NOTHING_BEFORE
        for number, line in enumerate(lines, start=1):
            due = due or bool(line.prev)
            if due and line.record is not None and line.prev != head:
                raise self._tampered(number)
            head = digest_of_line(line.raw)
            if line.error is not None:
                as_written = not begun or (number < len(lines) and lines[number].prev == head)
                raise self._corrupt(number, line.error) if as_written else self._tampered(number)
        return bool(lines) and bool(lines[0].prev)

    def _tampered(self, number: int) -> BadInput:
        before = f"line {number - 1} as it stands there now" if number > 1 else "nothing, as a first line must"
        return BadInput(
            "journal-tampered",
            f"line {number} was not written after {before}: a line was changed, taken out or moved",
            expected="each line to carry the SHA-256 of the line before it",
            remedy="restore the journal from a copy; a run whose record was changed is not judged",
            where=f"{self.path}:{number}",
        )

    def _corrupt(self, number: int, error: ValueError) -> BadInput:
        return BadInput(
            "journal-corrupt",
            f"the line is not an event: {str(error).splitlines()[0]}",
            expected="one event on each line, as this harness wrote it",
            remedy="restore the journal from a copy; a run with lost events cannot be judged",
            where=f"{self.path}:{number}",
        )

    def _open(self) -> int:
        folder = self.path.parent
        made = not folder.exists()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        created = not self.path.exists()
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._cut_torn_line(file)
            if created:
                os.fsync(file)
                _sync_folder(folder)
            if made:
                _sync_folder(folder.parent)
        except OSError:
            os.close(file)
            raise
        return file

    def _cut_torn_line(self, file: int) -> None:
        """Cut off what a crash left of a line, and take up the chain behind the last whole one."""
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            self.torn = True
            os.ftruncate(file, whole)
            os.fsync(file)
        if whole:
            self._prev = digest_of_line(data[data.rfind(b"\n", 0, whole - 1) + 1 : whole - 1])


def _read(raw: bytes) -> _Line:
    try:
        return _Line(raw, *parse(raw.decode()), None)
    except ValueError as error:
        return _Line(raw, None, "", error)


def _promises_chain(record: Record | None) -> bool:
    return record is not None and isinstance(record.event, RunStarted) and record.event.schema_version >= CHAINED_SINCE


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
