"""The journal on a disk that tears and fails, the clock, and the comparison of clocks."""

from __future__ import annotations

import errno
import math
import os
import stat
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.adapters.file_journal import NAME, FileJournal
from harness.adapters.system_clock import SystemClock
from harness.core.clock import Bounds
from harness.core.errors import BadInput, DrillError, Internal
from harness.core.event import Record, StopAsked, encode
from harness.ports.stamps import Stamp, compare, http_date, together


def record(seq: int) -> Record:
    return Record(seq=seq, at=1795327200.0 + seq, event=StopAsked(by="test", detail="ü"))


def written(folder: Path, count: int) -> FileJournal:
    journal = FileJournal(folder)
    for seq in range(count):
        journal.append(record(seq))
    journal.close()
    return journal


def test_what_was_appended_is_read(tmp_path: Path) -> None:
    journal = written(tmp_path / "runs" / "one", 3)
    assert journal.read() == [record(0), record(1), record(2)]
    assert not journal.torn
    assert (tmp_path / "runs" / "one" / NAME).read_text(encoding="utf-8").count("\n") == 3


def test_only_the_owner_may_look(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    written(folder, 1)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / NAME).stat().st_mode) == 0o600


@pytest.mark.parametrize("kept", [1, 10, -1])
def test_a_torn_last_line_is_left_out_and_cut_off_by_the_next_append(tmp_path: Path, kept: int) -> None:
    written(tmp_path, 2)
    path = tmp_path / NAME
    with path.open("a", encoding="utf-8") as file:
        file.write(encode(record(2))[:kept])
    journal = FileJournal(tmp_path)
    assert journal.read() == [record(0), record(1)]
    assert journal.torn
    journal.append(record(2))
    journal.close()
    again = FileJournal(tmp_path)
    assert again.read() == [record(0), record(1), record(2)]
    assert not again.torn


def test_a_corrupt_line_is_named(tmp_path: Path) -> None:
    written(tmp_path, 3)
    path = tmp_path / NAME
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text(lines[0] + "{broken\n" + lines[2], encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        FileJournal(tmp_path).read()
    assert caught.value.where == f"{path}:2"


def test_a_missing_journal_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        FileJournal(tmp_path / "nowhere").read()


@pytest.mark.parametrize(
    ("number", "family", "slug"),
    [
        (errno.EIO, Internal, "journal-not-durable"),
        (errno.ENOSPC, BadInput, "disk-full"),
        (errno.EDQUOT, BadInput, "disk-full"),
    ],
)
def test_a_failed_sync_is_told_and_final(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, family: type[DrillError], slug: str
) -> None:
    journal = written(tmp_path, 1)

    def fails(_: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fails)
        with pytest.raises(family, match=os.strerror(number)) as caught:
            journal.append(record(1))
    assert caught.value.slug == slug
    assert "drill recover" in caught.value.remedy
    with pytest.raises(family, match=os.strerror(number)):
        journal.append(record(1))
    journal.close()


def test_every_append_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync

    def sync(file: int) -> None:
        synced.append(file)
        real(file)

    monkeypatch.setattr(os, "fsync", sync)
    journal = FileJournal(tmp_path / "run")
    journal.append(record(0))
    first = len(synced)
    journal.append(record(1))
    journal.close()
    assert first >= 3, "the line, the folder and the folder's own entry"
    assert len(synced) == first + 1


def test_the_clock_is_wall_time_that_cannot_be_stepped(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    assert abs(clock.now() - time.time()) < 1.0
    monkeypatch.setattr(time, "time", lambda: 0.0)
    before = clock.now()
    assert clock.now() >= before > 1_700_000_000


# ------------------------------------------------------------------------------------------- the stamps


@given(
    offset=st.floats(-1000, 1000),
    start=st.floats(0, 1),
    there=st.floats(0.0001, 0.2),
    back=st.floats(0.0001, 0.2),
)
def test_whole_second_stamps_bound_the_offset_and_asking_again_tightens(
    offset: float, start: float, there: float, back: float
) -> None:
    clock = [1_795_327_200.0 + start]

    def ask() -> Stamp:
        sent = clock[0]
        stamped = math.floor(sent + there + offset)
        clock[0] += there + back
        return Stamp(sent, clock[0], stamped, stamped + 1.0)

    def pause(seconds: float) -> bool:
        assert 0 <= seconds < 1.0
        clock[0] += seconds
        return False

    known = compare(ask, now=lambda: clock[0], pause=pause)
    assert known.earliest - 1e-6 <= offset <= known.latest + 1e-6
    assert known.width <= max(0.12, 2.0 * (there + back) + 0.12)


def test_a_stop_ends_the_comparison_with_what_is_known() -> None:
    asked: list[int] = []

    def ask() -> Stamp:
        asked.append(1)
        return Stamp(10.0, 10.1, 10.0, 11.0)

    assert compare(ask, now=lambda: 10.1, pause=lambda _: True).width == pytest.approx(1.1)
    assert len(asked) == 1


def test_contradictions_widen() -> None:
    one, other = Bounds(earliest=0, latest=1), Bounds(earliest=5, latest=6)
    assert together(one, other) == Bounds(earliest=0, latest=6)


def test_http_dates() -> None:
    assert http_date("Sun, 22 Nov 2026 06:00:00 GMT") == 1795327200.0
    assert http_date(None) is None
    assert http_date("yesterday") is None
