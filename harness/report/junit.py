"""The report as JUnit XML: one suite per run, one case per SLA, expected alert and guard.

MISSED is a failure; NOT REACHED is a failure where it was required and skipped where it was not; UNDECIDED is an
error, and so is what was not reached because the run itself was cut short: there the harness, not a team, is at
fault. Measured seconds are properties; a case's `time` is the measured duration.

Of several runs it is one document. What has no verdict there is a suite of one case: an error of that type, or skipped
where it was not run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from harness.core.clock import Bounds, utc
from harness.core.errors import DrillError
from harness.report.series import ENVIRONMENT, NOT_RUN, Outcome
from harness.report.values import GuardRow, Report, SlaRow
from harness.report.wording import clean, inert, measured, target


def render_junit(report: Report) -> bytes:
    """The XML document."""
    return _document([_suite(report)])


@dataclass(frozen=True, slots=True)
class Run:
    """One of several runs: its row, with its report where there was something to judge, and the error that ended it.
    `folder` holds the reports, where that is not one of the run's name beside the others."""

    row: Outcome
    report: Report | None = None
    error: DrillError | None = None
    folder: str = ""


def combined(runs: Sequence[Run]) -> bytes:
    """The XML document of several runs."""
    return _document([
        _unjudged(run) if run.report is None or run.row.verdict == ENVIRONMENT else _judged(run.report, run.error)
        for run in runs
    ])  # fmt: skip


def _judged(report: Report, error: DrillError | None) -> ET.Element:
    """A run's suite. What failed without any case being at fault (nothing was put back, say) is a case of its own."""
    suite, head = _suite(report), report.headline
    blameless = not int(suite.get("failures", "0")) + int(suite.get("errors", "0"))
    if error is not None or (head.exit_code and blameless):
        message, word = f"{head.exit_meaning}: {head.sentence}", head.verdict
        if error is not None:
            message, word = inert(f"{error.fact} ({error.slug}); {error.remedy}"), "ERROR"
        case = ET.SubElement(suite, "testcase", classname=f"{report.header.experiment}.run", name="ends well")
        ET.SubElement(case, "error", message=message, type=word)
        _counted(suite)
    return suite


def _document(suites: Sequence[ET.Element]) -> bytes:
    root = ET.Element("testsuites")
    for name in ("tests", "failures", "errors", "skipped"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in suites)))
    root.set("time", f"{sum(float(suite.get('time', '0')) for suite in suites):.3f}")
    root.extend(suites)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'.encode()


def _unjudged(run: Run) -> ET.Element:
    row, name, word = run.row, clean(run.row.experiment), clean(run.row.verdict)
    why = row.why if run.error is None else f"{run.error.fact} ({run.error.slug}); {run.error.remedy}"
    suite = ET.Element("testsuite", name=f"drill {name}")
    _properties(suite, [("verdict", word), *([("run_id", clean(row.run_id))] if row.run_id else ())])
    case = ET.SubElement(suite, "testcase", classname=f"{name}.run", name="is judged")
    message = inert(f"{word}: {why}" if why else word)
    if row.verdict == NOT_RUN:
        ET.SubElement(case, "skipped", message=message)
    else:
        ET.SubElement(case, "error", message=message, type=word)
    _counted(suite)
    return suite


def _counted(suite: ET.Element) -> None:
    for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(name, str(len(suite.findall(f"testcase/{tag}"))))
    suite.set("tests", str(len(suite.findall("testcase"))))


def _suite(report: Report) -> ET.Element:
    header = report.header
    suite = ET.Element("testsuite", name=f"drill {header.experiment} ({header.profile})")
    _properties(suite, [
        ("run_id", header.run_id), ("profile", header.profile), ("responder", header.responder),
        ("namespace", header.namespace), ("digest", header.digest), ("harness_version", header.harness_version),
        *([("journal_head", header.journal_head)] if header.journal_head else ()),
        ("verdict", report.headline.verdict), ("exit_code", str(report.headline.exit_code)),
        *((f"clock.{row.peer}.offset_seconds", f"{row.offset.middle:.6f}") for row in report.clocks),
    ])  # fmt: skip
    for kind, rows in (("sla", report.slas), ("alert", report.alerts)):
        for row in rows:
            _promise(suite, header.experiment, kind, row)
    for guard in report.guards:
        _guard(suite, header.experiment, guard)
    out = ET.SubElement(suite, "system-out")
    out.text = " ".join(filter(None, (report.headline.verdict, report.headline.sentence, report.headline.caveat)))
    _counted(suite)
    suite.set("time", f"{header.actual:.3f}")
    suite.set("timestamp", utc(header.started)[:19])
    return suite


def _properties(parent: ET.Element, pairs: list[tuple[str, str]]) -> None:
    properties = ET.SubElement(parent, "properties")
    for name, value in pairs:
        ET.SubElement(properties, "property", name=name, value=value)


def _bounds(name: str, bounds: Bounds | None) -> list[tuple[str, str]]:
    if bounds is None:
        return []
    latest = "" if math.isinf(bounds.latest) else f"{bounds.latest:.3f}"
    return [(f"{name}_earliest_seconds", f"{bounds.earliest:.3f}"), (f"{name}_latest_seconds", latest)]


def _promise(suite: ET.Element, experiment: str, kind: str, row: SlaRow) -> None:
    case = ET.SubElement(suite, "testcase", classname=f"{experiment}.{kind}",
                          name=f"{row.from_} to {row.to} within {target(row.target)}")  # fmt: skip
    if row.measured is not None and not math.isinf(row.measured.latest):
        case.set("time", f"{max(0.0, row.measured.middle):.3f}")
    _properties(case, [
        ("target_seconds", f"{row.target:.3f}"), *_bounds("measured", row.measured),
        ("verdict", row.verdict), ("required", str(row.required).lower()), ("who", row.who_text),
        ("evidence", " ".join(map(str, row.evidence))),
    ])  # fmt: skip
    message = f"{row.verdict}: {measured(row.measured, row.target)}, target {target(row.target)}"
    _outcome(case, row.verdict, message + (f"; {row.reason}" if row.reason else ""), required=row.required,
             cut_short=row.cut_short)  # fmt: skip


def _guard(suite: ET.Element, experiment: str, row: GuardRow) -> None:
    case = ET.SubElement(suite, "testcase", classname=f"{experiment}.guard", name=f"must hold: {row.name}")
    _properties(case, [("condition", row.condition), ("verdict", row.verdict)])
    _outcome(case, row.verdict, f"{row.verdict}: {row.reason}", required=True, cut_short=False)


def _outcome(case: ET.Element, verdict: str, message: str, *, required: bool, cut_short: bool) -> None:
    if verdict == "UNDECIDED" or (verdict == "NOT REACHED" and required and cut_short):
        ET.SubElement(case, "error", message=message, type=verdict)
    elif verdict == "MISSED" or (verdict == "NOT REACHED" and required):
        ET.SubElement(case, "failure", message=message, type=verdict)
    elif verdict == "NOT REACHED":
        ET.SubElement(case, "skipped", message=message)
