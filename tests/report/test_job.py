"""A job's summary and its JUnit: the verdict first, no text of strangers acts, and nothing that failed looks met."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from markdown_it import MarkdownIt

from harness.core.errors import ExitCode, Unreachable
from harness.report.job import Job, job_summary, word
from harness.report.junit import Run, combined
from harness.report.series import ENVIRONMENT, NOT_RUN, Incident, Outcome
from tests.report.test_formats import NASTY, hostile, report

MET = Run(Outcome("noop", "MET", clean=True, run_id="r1"), report("oom_workers"))
LOST = Run(
    Outcome("oom-workers", ENVIRONMENT, clean=True, run_id="r2", why="Prometheus has been lost"), report("refused")
)
LEFT = Run(Outcome("stale-cursor", NOT_RUN))


def job(*runs: Run, code: ExitCode = ExitCode.MET, interrupted: bool = False) -> Job:
    phases = {"cluster up": 6.0, "drill noop": 34.0}
    return Job(runs, code, "It was taken away.", phases, 41.5, "runs/x", "./drill smoke noop", interrupted=interrupted)


@pytest.mark.parametrize(("runs", "code", "expected"), [
    ((MET,), ExitCode.MET, "MET"),
    ((MET, LOST, LEFT), ExitCode.UNDECIDED, ENVIRONMENT),
    ((LOST, Run(Outcome("x", "UNDECIDED"))), ExitCode.UNDECIDED, "UNDECIDED"),
    ((LOST, Run(Outcome("x", "MISSED"))), ExitCode.MISSED, "MISSED"),
    ((MET,), ExitCode.ROLLBACK_INCOMPLETE, "NOT PUT BACK"),
])  # fmt: skip
def test_the_word_is_that_of_the_worst(runs: tuple[Run, ...], code: ExitCode, expected: str) -> None:
    assert word(job(*runs, code=code)) == expected
    assert job_summary(job(*runs, code=code)).startswith(
        f"# Drill smoke: {expected}\n\n**{expected}** (exit code {code})"
    )


def test_an_interrupted_job_says_so_with_its_own_code() -> None:
    assert "**INTERRUPTED** (exit code 130)" in job_summary(job(MET, LEFT, code=ExitCode.UNDECIDED, interrupted=True))


def test_nothing_in_it_acts() -> None:
    row = Outcome(NASTY, NASTY, clean=False, run_id=NASTY, why=NASTY, incidents=(Incident(NASTY), Incident(NASTY)))
    error = Unreachable(NASTY, NASTY, expected=NASTY, remedy=NASTY)
    nasty = replace(job(Run(row, hostile()), Run(row, error=error)), cluster=NASTY, folder=NASTY, command=NASTY)
    text = job_summary(replace(nasty, phases={NASTY: 1.0}))
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inline = [child for token in tokens for child in token.children or ()]
    kinds = {token.type for token in [*tokens, *inline]}
    assert not kinds & {"link_open", "image", "html_block", "html_inline", "fence", "code_block"}
    assert "\x1b" not in text
    assert "\u202e" not in text
    tables = text.split("\n\n")
    rows = [line for block in tables if block.startswith("| experiment") for line in block.splitlines()]
    assert len(rows) == 2 + 2 * 2, "each row is one line"
    ET.fromstring(combined(nasty.runs))  # noqa: S314 - our own


def test_each_run_is_a_suite_and_what_has_no_verdict_is_an_error() -> None:
    root = ET.fromstring(combined([MET, LOST, LEFT]))  # noqa: S314 - our own
    met, lost, left = root
    assert [suite.get("errors") for suite in root] == ["0", "1", "0"]
    assert int(met.get("tests", "")) > 1
    error = lost.find("testcase/error")
    assert error is not None
    assert (error.get("type"), error.get("message")) == (ENVIRONMENT, f"{ENVIRONMENT}: Prometheus has been lost")
    assert left.find("testcase/skipped") is not None
    assert (root.get("tests"), root.get("skipped")) == (str(int(met.get("tests", "0")) + 2), "1")


def test_a_run_that_ended_badly_is_never_all_green() -> None:
    good = report("oom_workers")
    head = replace(good.headline, exit_code=4, exit_meaning="rollback incomplete", sentence="It was NOT put back.")
    root = ET.fromstring(combined([Run(MET.row, good), Run(MET.row, replace(good, headline=head))]))  # noqa: S314
    assert [suite.get("errors") for suite in root] == ["0", "1"]
    assert "NOT put back" in str(ET.tostring(root[1]))
