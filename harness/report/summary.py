"""The report for a terminal: at most 80 columns, no colour, no box."""

from __future__ import annotations

import textwrap
import unicodedata

from harness.report.facts import cut_short_note, verdict_word
from harness.report.values import Report, SlaRow
from harness.report.wording import measured, target

COLUMNS = 80
_WHO = {"human": "human", "automation": "AUTOMATION", "machine": "machine", "": "-"}


def summary(report: Report) -> str:
    """Verdict, SLA table, the gravest findings. The caller says where the full report is."""
    header, head = report.header, report.headline
    lines = [
        _fit(f"{head.verdict}  {header.experiment} ({header.profile}), run {header.run_id}", COLUMNS).rstrip(),
        *_wrapped(head.sentence),
        *(_wrapped(head.caveat) if head.caveat else ()),
        "",
        *([*_wrapped(note), ""] if (note := cut_short_note(report)) else ()),
        f"{'from -> to':<30}{'target':>8} {'measured':>16} {'verdict':<11} who",
    ]
    for row in report.slas:
        # The first alert is what `firing` without a name means: told under both names, it is one promise.
        twin = any(_same(row, alert) for alert in report.alerts[:1])
        lines += _row(row, f"{row.from_} -> {row.to}", required=row.required or twin)
    for alert in report.alerts:
        if not (alert is report.alerts[0] and any(_same(row, alert) for row in report.slas)):
            lines += _row(alert, alert.name, required=alert.required)
    for guard in report.guards:
        lines += _labelled(f"must hold: {guard.name}", 55, f" {guard.verdict}")
    # That the run was cut short already stands above the table.
    grave = [f for f in report.findings if f.severity in {"critical", "important"} and f.rule != "cut-short"]
    if grave:
        lines += ["", "findings"]
        for finding in grave:
            lines += _wrapped(f"{finding.severity}: {finding.title}: {finding.detail}", "  ")
    lines += ["", f"exit code {head.exit_code} ({head.exit_meaning}); * = advisory"]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _same(row: SlaRow, alert: SlaRow) -> bool:
    """Whether an SLA and the first alert's promise are one: the same instants, the same target, the same outcome."""
    return (
        (row.from_, row.target, row.measured, row.verdict, row.evidence)
        == (alert.from_, alert.target, alert.measured, alert.verdict, alert.evidence)
        and row.to in {"firing", alert.to}
    )  # fmt: skip


def _row(row: SlaRow, label: str, *, required: bool) -> list[str]:
    took = measured(row.measured, row.target).partition(" (")[0]
    short = "-" if row.measured is None else took
    short = short.replace("over ", "> ")
    cells = f"{target(row.target):>8} {short:>16} {verdict_word(row):<11} {_WHO[row.who]}"
    return _labelled(label + ("" if required else " *"), 30, cells)


def _labelled(label: str, width: int, cells: str) -> list[str]:
    """A line of the table; a label too long for it stands whole on its own, since its end may be all that differs."""
    if _width(label) <= width:
        return [(_fit(label, width) + cells)[:COLUMNS]]
    return [*_wrapped(label), (" " * width + cells)[:COLUMNS]]


def _wrapped(text: str, indent: str = "") -> list[str]:
    lines: list[str] = []
    for line in textwrap.wrap(text, COLUMNS - len(indent), subsequent_indent="  "):
        lines += [indent + line] if _width(line) <= COLUMNS - len(indent) else _split_wide(line, indent)
    return lines


def _split_wide(line: str, indent: str) -> list[str]:
    half = COLUMNS // 2 - len(indent)
    return [indent + line[at : at + half] for at in range(0, len(line), half)]


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _fit(text: str, width: int) -> str:
    """`text` in exactly `width` columns, cut with an ellipsis where it is longer."""
    if _width(text) > width:
        while _width(text) > width - 1:
            text = text[:-1]
        text += "…"
    return text + " " * (width - _width(text))
