"""The report as JUnit XML: one suite per run, one case per SLA, expected alert and guard.

MISSED is a failure; NOT REACHED is a failure where it was required and skipped where it was not; UNDECIDED is an
error, and so is what was not reached because the run itself was cut short: there the harness, not a team, is at
fault. Measured seconds are properties; a case's `time` is the measured duration.
"""

from __future__ import annotations

import math
from xml.etree import ElementTree as ET

from harness.core.clock import Bounds, utc
from harness.report.values import GuardRow, Report, SlaRow
from harness.report.wording import measured, target


def render_junit(report: Report) -> bytes:
    """The XML document."""
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
    for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(name, str(len(suite.findall(f"testcase/{tag}"))))
    suite.set("tests", str(len(suite.findall("testcase"))))
    suite.set("time", f"{header.actual:.3f}")
    suite.set("timestamp", utc(header.started)[:19])
    root = ET.Element(
        "testsuites", {key: suite.get(key, "0") for key in ("tests", "failures", "errors", "skipped", "time")}
    )
    root.append(suite)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'.encode()


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
