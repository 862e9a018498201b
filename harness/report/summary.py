"""The report for a terminal: at most 80 columns, no colour, no box."""

from __future__ import annotations

import textwrap
import unicodedata

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
        f"{'from -> to':<30}{'target':>8} {'measured':>16} {'verdict':<11} who",
    ]
    lines += [_row(row) for row in (*report.slas, *report.alerts)]
    lines += [f"{_fit('must hold: ' + guard.name, 55)} {guard.verdict}" for guard in report.guards]
    grave = [finding for finding in report.findings if finding.severity in {"critical", "important"}]
    if grave:
        lines += ["", "findings"]
        for finding in grave:
            lines += _wrapped(f"{finding.severity}: {finding.title}: {finding.detail}", "  ")
    lines += ["", f"exit code {head.exit_code} ({head.exit_meaning}); * = advisory"]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _row(row: SlaRow) -> str:
    ends = f"{row.from_} -> {row.to}{'' if row.required else ' *'}"
    took = measured(row.measured, row.target).partition(" (")[0]
    short = "-" if row.measured is None else took
    short = short.replace("over ", "> ")
    return f"{_fit(ends, 30)}{target(row.target):>8} {short:>16} {row.verdict:<11} {_WHO[row.who]}"[:COLUMNS]


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
