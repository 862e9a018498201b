"""The journal as a file: one JSON line for each record, on disk before anybody acts upon it."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Lock

from harness.core.errors import BadInput, Internal
from harness.core.event import Record, decode, encode

NAME = "journal.jsonl"


class FileJournal:
    """The Journal port in `folder` (made if missing, for its owner only).

    A crash can tear the last line. `read` leaves it out and sets `torn`; opening the journal for the first `append`
    cuts it off, so that what follows is readable. A line that cannot be read anywhere else is an error, since judging
    a journal with a hole would be guessing. One process appends at a time; that is the Lease's business.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.torn = False
        self._lock = Lock()
        self._file: int | None = None
        self._broken = ""

    def append(self, record: Record) -> None:
        """Make one record durable: written whole, then synced. Raises Internal where that failed; the journal then
        takes nothing more, because what is on disk is no longer known."""
        line = (encode(record) + "\n").encode()
        with self._lock:
            if self._broken:
                raise self._not_durable(record)
            try:
                if self._file is None:
                    self._file = self._open()
                _write_all(self._file, line)
                os.fsync(self._file)
            except OSError as error:
                self._broken = self._broken or str(error)
                raise self._not_durable(record) from error

    def read(self) -> list[Record]:
        """All whole records; a torn last line is left out and `torn` says so. Raises BadInput, with the line's
        number, where another line cannot be read, and where there is no journal."""
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise BadInput(
                "journal-missing",
                f"the journal cannot be read: {error.strerror}",
                expected=f"a run's folder with {NAME} in it",
                remedy="name the folder of a run; runs/ holds them all",
                where=str(self.path),
            ) from error
        *whole, tail = data.split(b"\n")
        self.torn = bool(tail)
        return [self._decode(number, line) for number, line in enumerate(whole, start=1)]

    def close(self) -> None:
        """Close the file; a later append opens it again, unless a write has failed."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
            self._file = None

    def _not_durable(self, record: Record) -> Internal:
        return Internal(
            "journal-not-durable",
            f"event {record.seq} could not be made durable: {self._broken}",
            expected="to write and sync every event before anything is done about it",
            remedy="free some disk space or choose another folder for runs, then `drill recover`",
            where=str(self.path),
        )

    def _decode(self, number: int, line: bytes) -> Record:
        try:
            return decode(line.decode())
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise BadInput(
                "journal-corrupt",
                f"the line is not an event: {reason}",
                expected="one event on each line, as this harness wrote it",
                remedy="restore the journal from a copy; a run with lost events cannot be judged",
                where=f"{self.path}:{number}",
            ) from error

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
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            self.torn = True
            os.ftruncate(file, whole)
            os.fsync(file)


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
