"""The doctor's table: 80 columns, nothing said by colour, nothing of others that could act."""

from __future__ import annotations

from harness.core.diagnosis import Diagnosis, State, counts
from harness.report.diagnosis import WIDTH, headline, table

FOUND = [
    Diagnosis("cluster", "API server", State.OK, "Kubernetes v1.34.4", expected="unused", remedy="unused"),
    Diagnosis("cluster", "mark", State.MISSING, "there is none " * 9, "make one " * 12, "a mark", "cluster-not-marked"),
    Diagnosis("alerting", "a check with a name that is long", State.WARNING, "it is slow", "make it quick"),
    Diagnosis("alerting", "pager", State.UNKNOWN, "x" * 200, "mend that first"),
]


def test_it_fits_80_columns_group_by_group() -> None:
    lines = table(FOUND).splitlines()
    assert max(map(len, lines)) <= WIDTH == 80
    assert [line for line in lines if line and not line.startswith(" ")] == ["cluster", "alerting", lines[-1]]
    assert lines[1] == "  OK       API server            Kubernetes v1.34.4"
    assert lines[2].startswith("  MISSING  mark                  there is none there is none")


def test_a_remedy_stands_where_something_is_to_be_done_and_only_there() -> None:
    text = table(FOUND)
    assert "unused" not in text
    assert "expected: a mark" in text
    assert text.count("remedy: ") == 3


def test_a_long_name_takes_a_line_of_its_own() -> None:
    lines = table(FOUND).splitlines()
    at = lines.index("  WARNING  a check with a name that is long")
    assert lines[at + 1].strip() == "it is slow"


def test_the_last_line_counts_and_says_what_it_means() -> None:
    assert headline(FOUND) == "1 OK, 1 MISSING, 1 WARNING, 1 UNKNOWN: a drill would be refused"
    assert headline(FOUND[:1]) == "1 OK: nothing is missing"
    assert headline([FOUND[0], FOUND[3]]) == "1 OK, 1 UNKNOWN: nothing is missing as far as could be seen"
    assert counts(FOUND) == {"OK": 1, "MISSING": 1, "WARNING": 1, "UNKNOWN": 1}


def test_strangers_text_stays_on_its_line_and_cannot_act() -> None:
    evil = Diagnosis("clu\nster", "ma\x1b[2Jrk", State.OK, "a\nOK  forged\u202e")
    text = table([evil])
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert [line for line in text.splitlines() if line.startswith("OK")] == []


def test_a_check_is_plain_data_for_programs() -> None:
    assert FOUND[1].as_dict()["state"] == "MISSING"
    assert set(FOUND[1].as_dict()) == {"group", "check", "state", "fact", "remedy", "expected", "slug", "values"}
