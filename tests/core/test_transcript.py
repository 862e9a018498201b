"""What a drill's pod says of itself: read where it is one of our lines, and never for better than it was."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.errors import BadInput, DrillError, ExitCode, Internal, Refused, RollbackIncomplete, Unreachable
from harness.core.event import Record, RunStarted, encode
from harness.core.transcript import MAX_TEXT, Transcript

RUN = "20261126-101500-oom-workers-93fd"
ERRORS = (
    BadInput("experiment-invalid", "two\nlines", expected="one", remedy="write it", where="x.yaml:1:2"),
    Refused("halted", "drills are halted", expected="none", remedy="ask"),
    Unreachable("api-unreachable", "no answer", expected="one", remedy="look"),
    RollbackIncomplete("rollback-incomplete", "not back", expected="clean", remedy="recover"),
    Internal("internal", "a mistake", expected="no such thing", remedy="report it"),
)


def read(*lines: str | dict[str, Any]) -> Transcript:
    found = Transcript()
    for line in lines:
        found.read(line if isinstance(line, str) else json.dumps(line))
    return found


def started(run_id: str = RUN) -> str:
    event = RunStarted(
        run_id=run_id, experiment={"name": "oom-workers"}, experiment_path="x", digest="d", profile="smoke",
        responder="autopilot", harness_version="1", cluster={}, identity="me",
    )  # fmt: skip
    return encode(Record(seq=1, at=1_800_000_000.0, event=event))


def ended(code: Any) -> dict[str, Any]:
    return {"outcome": {"exit_code": code, "run_id": "of no interest"}}


def failed(error: DrillError, /, **more: Any) -> dict[str, Any]:
    return {**error.as_dict(), "exit_code": int(error.exit_code), **more}


def test_before_anything_was_said_nothing_is_known() -> None:
    found = Transcript()
    assert (found.run_id, found.error, found.exit_code, found.strange) == ("", None, None, "")


def test_a_fact_is_handed_on_and_the_run_noted() -> None:
    found = Transcript()
    record = found.read(started())
    assert isinstance(record, Record)
    assert isinstance(record.event, RunStarted)
    assert found.run_id == RUN
    assert (found.exit_code, found.error, found.strange) == (None, None, "")


@pytest.mark.parametrize("code", ExitCode)
def test_how_it_ended_by_its_own_word(code: ExitCode) -> None:
    assert read(ended(int(code))).exit_code is code


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_is_of_its_family_again(error: DrillError) -> None:
    found = read(failed(error))
    assert type(found.error) is type(error)
    assert found.error.as_dict() == error.as_dict()
    assert found.exit_code is error.exit_code


def test_what_is_for_people_is_handed_on_and_what_moves_is_not() -> None:
    found = Transcript()
    assert found.read(json.dumps({"progress": {"state": "said", "text": "hello"}})) == "hello"
    assert found.read(json.dumps({"progress": {"state": "begun", "text": "hello"}})) is None
    assert found.read(json.dumps({"progress": {"state": "said"}})) == ""
    assert found.strange == ""


@pytest.mark.parametrize("codes", list(permutations([0, 1, 4])))
def test_a_later_word_takes_no_earlier_one_back(codes: tuple[int, ...]) -> None:
    assert read(*map(ended, codes)).exit_code is ExitCode.ROLLBACK_INCOMPLETE


@pytest.mark.parametrize("order", [ERRORS, ERRORS[::-1]])
def test_of_several_errors_the_worst_is_kept(order: tuple[DrillError, ...]) -> None:
    found = read(*map(failed, order), ended(0))
    assert isinstance(found.error, RollbackIncomplete)
    assert found.exit_code is ExitCode.ROLLBACK_INCOMPLETE


def test_an_error_that_claims_to_be_none_is_a_mistake_of_ours() -> None:
    for code in (0, 1, 2):
        found = read(failed(ERRORS[1], exit_code=code))
        assert isinstance(found.error, Internal)
        assert found.exit_code is ExitCode.INTERNAL


def test_a_refusal_is_a_peer_that_did_not_answer_only_by_the_word_itself() -> None:
    assert type(read(failed(ERRORS[1], unreachable="yes")).error) is Refused
    assert type(read(failed(ERRORS[3], unreachable=True)).error) is RollbackIncomplete


@pytest.mark.parametrize("code", [None, False, True, 0.0, "0", [], {}, -1, 3.5, 130, 10**30, float("nan")])
def test_what_is_no_exit_code_of_ours_is_none(code: Any) -> None:
    for line in (ended(code), failed(ERRORS[1], exit_code=code)):
        found = read(line)
        assert (found.exit_code, found.error) == (None, None)
        assert found.strange == json.dumps(line)[:300]
        assert read(ended(1), line).exit_code is ExitCode.MISSED


@pytest.mark.parametrize("slug", ["", "../..", "a b", "a\n", "A", None, 7, "a" * 63, "\x1b[2J", {}])
def test_what_is_no_slug_names_no_error(slug: Any) -> None:
    found = read(failed(ERRORS[0], error=slug))
    assert (found.error, found.exit_code) == (None, None)


@pytest.mark.parametrize(
    "run_id",
    [
        "", "latest", "..", "runs/20261120-101500-oom-workers-0000", f"../{RUN}", f"/var/{RUN}", f"{RUN}\n",
        f"{RUN}/..", f"{RUN}\0", RUN.upper(), RUN.replace("2", "\u0662"), f"20261126-101500-{'x' * 41}-93fd",
    ],
)  # fmt: skip
def test_what_does_not_look_like_a_run_is_none(run_id: str) -> None:
    found = Transcript()
    assert found.read(started(run_id)) is None
    assert found.run_id == ""


def test_a_pod_drills_once() -> None:
    assert read(started(), started(RUN.replace("93fd", "0000"))).run_id == RUN


STRANGE = [
    "Traceback (most recent call last):", "  Error: x  ", "[1]", "7", "null", '"text"', "{}", '{"event": 7}', "{",
    '{"event": {"type": "from.the.future"}, "seq": 1, "at": 1}', "[" * 100_000, '{"a":' * 50_000, "9" * 10_000,
    '{"outcome": 0}', '{"progress": []}', "\x1b]0;x\x07", "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("line", STRANGE, ids=range(len(STRANGE)))
def test_what_is_no_line_of_ours_counts_for_nothing_and_is_kept(line: str) -> None:
    found = read(line)
    assert (found.run_id, found.error, found.exit_code) == ("", None, None)
    assert found.strange == line.strip()[:300]
    found.read("   ")
    assert found.strange == line.strip()[:300]


def test_long_sentences_are_cut() -> None:
    found = Transcript()
    long = "x" * (MAX_TEXT * 3)
    assert found.read(json.dumps({"progress": {"state": "said", "text": long}})) == "x" * MAX_TEXT
    found.read(json.dumps(failed(ERRORS[1], fact=long, expected=long, remedy=[long], where=long)))
    assert found.error is not None
    sentences = (found.error.fact, found.error.expected, found.error.remedy, found.error.where)
    assert {len(one) for one in sentences} == {MAX_TEXT}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["event", "outcome", "error", "progress", "exit_code", "state", "text", "seq", "at", "utc"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(st.lists(JSON.map(json.dumps) | st.text(max_size=40), max_size=5))
def test_no_line_whatever_it_holds_is_more_than_nothing(lines: list[str]) -> None:
    found = read(*lines, ended(1))
    assert found.exit_code is not ExitCode.MET
    assert found.run_id == ""
