"""A journal that somebody changed is not judged; one that a crash tore is."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.adapters.file_journal import NAME, FileJournal
from harness.adapters.system_clock import SystemClock
from harness.core.errors import BadInput, ExitCode
from harness.core.event import NOTHING_BEFORE, Record, RunStarted, decode, digest_of_line, encode
from harness.core.history import History
from harness.engine.notes import Note
from harness.loading import parse
from harness.wiring import Settings, judge_run
from harness.wiring.judging import close_journal
from tests.fakes.drill import experiment_data
from tests.report import journal as journals

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def records(version: int = 2) -> list[Record]:
    """A whole run of an experiment that the catalog knows."""
    experiment = parse(experiment_data())
    made = list(journals.oom_workers())
    start = made[0].event
    assert isinstance(start, RunStarted)
    changes = {"experiment": experiment.as_data(), "digest": experiment.digest(), "schema_version": version}
    made[0] = made[0].model_copy(update={"event": start.model_copy(update=changes)})
    return made


RECORDS = records()


def written(folder: Path, some: Sequence[Record] = RECORDS) -> Path:
    journal = FileJournal(folder)
    for record in some:
        journal.append(record)
    journal.close()
    return folder / NAME


def refused(folder: Path) -> BadInput:
    with pytest.raises(BadInput) as caught:
        judge_run(folder)
    assert caught.value.exit_code == ExitCode.BAD_INPUT
    return caught.value


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return written(tmp_path_factory.mktemp("original")).read_bytes()


def test_each_line_carries_the_digest_of_the_one_before(original: bytes) -> None:
    lines = original.splitlines()
    assert json.loads(lines[0])["prev"] == NOTHING_BEFORE
    for before, line in pairwise(lines):
        assert json.loads(line)["prev"] == digest_of_line(before)


@SLOW
@given(data=st.data())
def test_a_changed_byte_is_found_wherever_it_is(tmp_path: Path, original: bytes, data: st.DataObject) -> None:
    last = original[:-1].rfind(b"\n") + 1
    at = data.draw(st.integers(0, last - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != original[at]))
    (tmp_path / NAME).write_bytes(original[:at] + bytes([byte]) + original[at + 1 :])
    error = refused(tmp_path)
    assert error.slug == "journal-tampered"
    number = int(error.where.rpartition(":")[2])
    assert error.where.startswith(f"{tmp_path / NAME}:")
    assert number - original[:at].count(b"\n") in {1, 2}, "the line itself, or the one that gives it away"


@SLOW
@given(data=st.data())
def test_a_line_that_is_gone_doubled_or_moved_is_found(tmp_path: Path, original: bytes, data: st.DataObject) -> None:
    lines = original.splitlines(keepends=True)
    at = data.draw(st.integers(0, len(lines) - 2))
    other = data.draw(st.integers(0, len(lines) - 1).filter(lambda index: index != at))
    how = data.draw(st.sampled_from(["gone", "doubled", "swapped"]))
    if how == "gone":
        del lines[at]
    elif how == "doubled":
        lines.insert(at, lines[at])
    else:
        lines[at], lines[other] = lines[other], lines[at]
    (tmp_path / NAME).write_bytes(b"".join(lines))
    assert refused(tmp_path).slug == "journal-tampered"


def test_what_follows_a_change_would_have_to_be_written_anew(tmp_path: Path, original: bytes) -> None:
    """Renumbering does not help who takes a line out: the sequence fits again, the chain does not."""
    lines = original.splitlines()
    forged = [json.loads(line) for line in (*lines[:5], *lines[6:])]
    for number, body in enumerate(forged):
        body["seq"] = number
    (tmp_path / NAME).write_text("".join(json.dumps(body) + "\n" for body in forged), encoding="utf-8")
    assert refused(tmp_path).slug == "journal-tampered"


def test_a_chain_cannot_be_left_off_from_some_line_on(tmp_path: Path, original: bytes) -> None:
    lines = [json.loads(line) for line in original.splitlines()]
    for body in lines[3:]:
        del body["prev"]
    (tmp_path / NAME).write_text("".join(json.dumps(body) + "\n" for body in lines), encoding="utf-8")
    assert refused(tmp_path).slug == "journal-tampered"
    for body in lines[:3]:
        del body["prev"]
    (tmp_path / NAME).write_text("".join(json.dumps(body) + "\n" for body in lines), encoding="utf-8")
    assert refused(tmp_path).slug == "journal-tampered", "its first line says version 2, which is chained"


@pytest.mark.parametrize("kept", [1, 40, -1])
def test_a_line_that_a_crash_tore_is_left_out_and_the_chain_goes_on(tmp_path: Path, original: bytes, kept: int) -> None:
    path, lines = tmp_path / NAME, original.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:kept])
    judge_run(tmp_path)
    journal = FileJournal(tmp_path)
    assert len(journal.read()) == len(lines) - 1
    assert journal.torn
    journal.append(RECORDS[-1])
    journal.close()
    assert path.read_bytes() == original


def test_a_recovery_continues_the_chain(tmp_path: Path) -> None:
    half = RECORDS[: len(RECORDS) // 2]
    start = half[0].event
    assert isinstance(start, RunStarted)
    folder = tmp_path / start.run_id
    written(folder, half)
    judge_run(folder)
    note = Note(
        start.run_id, "memory", "recover", "restored", "", clean=True, differences=(), at=half[-1].at, seconds=1.0
    )
    assert close_journal(Settings(runs=tmp_path), note, SystemClock())
    lines = (folder / NAME).read_bytes().splitlines()
    assert len(lines) == len(half) + 3
    assert [json.loads(line)["prev"] for line in lines[1:]] == [digest_of_line(line) for line in lines[:-1]]
    assert judge_run(folder).run_id == start.run_id


def test_every_report_states_the_head(tmp_path: Path, original: bytes) -> None:
    (tmp_path / NAME).write_bytes(original)
    judge_run(tmp_path)
    head = digest_of_line(original.splitlines()[-1])
    for name in ("report.md", "report.html", "report.json", "junit.xml"):
        assert head in (tmp_path / name).read_text(encoding="utf-8"), name


def test_a_journal_that_was_written_anew_is_not_the_one_that_was_reported(tmp_path: Path, original: bytes) -> None:
    """Whoever writes the whole file anew makes a chain that holds; the report beside it knows another head."""
    path = tmp_path / NAME
    path.write_bytes(original)
    judge_run(tmp_path)
    path.unlink()
    changed = RECORDS[-1].model_copy(update={"at": RECORDS[-1].at + 1})
    written(tmp_path, [*RECORDS[:-1], changed])
    error = refused(tmp_path)
    assert error.slug == "journal-tampered"
    assert digest_of_line(original.splitlines()[-1]) in error.fact
    (tmp_path / "report.json").unlink()
    judge_run(tmp_path)


def test_lines_cut_off_after_the_report_are_missed_by_it(tmp_path: Path, original: bytes) -> None:
    (tmp_path / NAME).write_bytes(original)
    judge_run(tmp_path)
    (tmp_path / NAME).write_bytes(b"".join(original.splitlines(keepends=True)[:-2]))
    assert refused(tmp_path).slug == "journal-tampered"


def version_one() -> bytes:
    """A journal as the harness wrote it before there was a chain."""
    return "".join(f"{encode(record)}\n" for record in records(version=1)).encode()


def test_a_journal_from_before_the_chain_is_judged_as_it_is(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(version_one())
    judge_run(tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    judge_run(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first
    assert first[NAME] == version_one()
    assert b"journal_head" not in first["report.json"] + first["junit.xml"]


def test_what_is_appended_to_a_journal_from_before_is_chained(tmp_path: Path) -> None:
    lines = version_one().splitlines(keepends=True)
    path = tmp_path / NAME
    path.write_bytes(b"".join(lines[:-2]))
    journal = FileJournal(tmp_path)
    for record in RECORDS[-2:]:
        journal.append(record)
    journal.close()
    assert len(FileJournal(tmp_path).read()) == len(lines)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"seq":%d' % (len(lines) - 3), b'"seq": %d' % (len(lines) - 3)))
    with pytest.raises(BadInput) as caught:
        FileJournal(tmp_path).read()
    assert caught.value.slug == "journal-tampered"


def test_an_append_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = FileJournal(tmp_path)
    journal.append(RECORDS[0])

    def read(*_: object) -> bytes:
        raise AssertionError("the file was read")

    monkeypatch.setattr(Path, "read_bytes", read)
    for record in RECORDS[1:20]:
        journal.append(record)
    journal.close()


@SLOW
@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_journal_or_bad_input(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / NAME).write_bytes(raw)
    with suppress(BadInput):
        History(FileJournal(tmp_path).read())


VALUES: st.SearchStrategy[object] = st.sampled_from(
    [None, True, 0, -1, 2**70, 1e308, -1e308, float("inf"), float("nan"), "", "x" * 5000, "\ud800", [], {},
     "", [[]], {"earliest": 1e300, "latest": 1e301}, {"earliest": float("-inf"), "latest": float("inf")}]
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_forged_journal_with_a_chain_that_holds_is_judged_or_bad_input(tmp_path: Path, data: st.DataObject) -> None:
    """Whoever writes the whole file anew can write anything into it; it is still judged, or refused with its place."""
    bodies = [json.loads(encode(record)) for record in RECORDS]
    for _ in range(data.draw(st.integers(1, 3))):
        _spoil(bodies[data.draw(st.integers(0, len(bodies) - 1))], data)
    prev, lines = NOTHING_BEFORE, []
    for body in bodies:
        line = json.dumps({**body, "prev": prev}).encode()
        prev = digest_of_line(line)
        lines.append(line + b"\n")
    (tmp_path / NAME).write_bytes(b"".join(lines))
    (tmp_path / "report.json").unlink(missing_ok=True)
    with suppress(BadInput):
        judge_run(tmp_path)


def _spoil(value: object, data: st.DataObject) -> None:
    """Put something else at some place within `value`."""
    while isinstance(value, dict | list) and value:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = data.draw(st.sampled_from(keys))
        inner = value[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            value[key] = copy.deepcopy(data.draw(VALUES))  # else what is put in may be spoilt by holding itself
            return
        value = inner


@pytest.mark.parametrize(
    "line",
    [b"[" * 100_000, b'{"a":' * 50_000, b'{"seq":0,"at":1e999,"event":{"type":"stop.asked","by":"x"}}', b"9" * 9999],
)  # fmt: skip
def test_a_line_that_parsers_fall_over_is_no_event(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's and pydantic's own words
        decode(line.decode())
