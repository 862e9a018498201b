"""A job's summary as Markdown: the verdict of several runs first, the table, what failed and by what evidence, how to
see it again, where the time went. It is read on a build server, by people who do not know the harness.

All of it is escaped as in a run's own report: names come from files, and reasons from strangers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.core.errors import DrillError, ExitCode
from harness.report.junit import Run
from harness.report.markdown import code, escape
from harness.report.series import ENVIRONMENT, NOT_RUN, Outcome, markdown
from harness.report.values import Report, SlaRow
from harness.report.wording import measured, span, target

_WORDS = {
    ExitCode.MET: "MET", ExitCode.MISSED: "MISSED", ExitCode.UNDECIDED: "UNDECIDED", ExitCode.REFUSED: "REFUSED",
    ExitCode.ROLLBACK_INCOMPLETE: "NOT PUT BACK", ExitCode.BAD_INPUT: "BAD INPUT", ExitCode.INTERNAL: "INTERNAL ERROR",
}  # fmt: skip
INTERRUPTED = 130
_HELD = ("MET", NOT_RUN)


@dataclass(frozen=True, slots=True)
class Job:
    """Several runs on one cluster. `phases` and `seconds` are wall seconds; `folder` holds the runs; `command` does the
    same again."""

    runs: tuple[Run, ...]
    exit_code: ExitCode
    cluster: str
    """Which cluster, and what became of it, as a sentence."""
    phases: Mapping[str, float]
    seconds: float
    folder: str
    command: str
    interrupted: bool = False
    title: str = "Drill smoke"


def word(job: Job) -> str:
    """The job's verdict in one word: that of the worst, or ENVIRONMENT where nothing else kept it from being met."""
    if job.interrupted:
        return "INTERRUPTED"
    verdicts = {run.row.verdict for run in job.runs}
    blameless = ENVIRONMENT in verdicts and verdicts <= {*_HELD, ENVIRONMENT}
    return ENVIRONMENT if blameless else _WORDS[job.exit_code]


def job_summary(job: Job) -> str:
    """The summary."""
    counts = Counter(run.row.verdict for run in job.runs)
    told = ", ".join(f"{count} {escape(verdict)}" for verdict, count in counts.items())
    failed = [
        run for run in job.runs if run.row.verdict not in _HELD or run.row.clean is False or run.error is not None
    ]
    number = INTERRUPTED if job.interrupted else int(job.exit_code)
    parts = [
        f"# {job.title}: {word(job)}",
        f"**{word(job)}** (exit code {number}). {told}. {escape(job.cluster)}",
        markdown([run.row for run in job.runs]),
        *(["## What failed", *("\n\n".join(_failed(run, job.folder)) for run in failed)] if failed else ()),
        f"## The same again\n\nIn a checkout: {code(job.command)}\n\nThe runs and their reports: {code(job.folder)}",
        "## Wall time by phase\n\n| phase | took |\n| --- | --- |\n"
        + "\n".join(f"| {escape(name)} | {span(spent)} |" for name, spent in job.phases.items())
        + f"\n| **total** | {span(job.seconds)} |",
    ]
    return "\n\n".join(parts) + "\n"


def _failed(run: Run, folder: str) -> Iterator[str]:
    row = run.row
    yield f"### {escape(row.experiment)}: {escape(row.verdict)}"
    if row.verdict == ENVIRONMENT:
        yield "The environment did not hold out, so this says nothing of the system: neither met nor missed."
    if run.error is not None:
        yield "\n".join(_error(run.error))
    elif row.why:
        yield escape(row.why)
    if run.report is not None:
        yield "\n".join(_reasons(run.report, row)).strip()
        place = run.folder or f"{folder}/{row.run_id}"
        yield f"Evidence: {code(f'{place}/report.md')}, where the events are listed by their numbers."


def _error(error: DrillError) -> Iterator[str]:
    yield f"- {escape(error.fact)} ({code(error.slug)})"
    yield f"- expected: {escape(error.expected)}"
    yield f"- remedy: {escape(error.remedy)}"


def _reasons(report: Report, row: Outcome) -> Iterator[str]:
    if row.verdict == ENVIRONMENT:  # its reason stands above, and the rest is its consequence
        yield "What it had seen by then, and what was put back, is in its report."
        return
    yield f"{escape(report.headline.sentence)}\n"
    for promise in (*report.slas, *report.alerts):
        if promise.required and promise.verdict != "MET" and not promise.cut_short:
            yield f"- {_promise(promise)}{_cited(promise.evidence)}"
    for guard in report.guards:
        if guard.verdict != "MET":
            yield f"- must hold: {escape(guard.name)}: {guard.verdict}, {escape(guard.reason)}{_cited(guard.evidence)}"
    for found in report.findings:
        if found.severity in {"critical", "important"}:
            yield f"- {found.severity}: {escape(found.title)}: {escape(found.detail)}{_cited(found.evidence)}"
    for difference in report.clean.differences:
        yield f"- not put back: {escape(difference)}{_cited(report.clean.evidence)}"


def _promise(row: SlaRow) -> str:
    took = measured(row.measured, row.target)
    why = f", {escape(row.reason)}" if row.reason else ""
    return f"{escape(row.from_)} → {escape(row.to)}: {row.verdict}, {took} against {target(row.target)}{why}"


def _cited(evidence: tuple[int, ...]) -> str:
    return f" [{' '.join(f'e{seq}' for seq in evidence)}]" if evidence else ""
