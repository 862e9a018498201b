"""What `drill doctor` found as a table for a terminal: 80 columns, and no colour that would carry meaning."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby

from harness.core.diagnosis import Diagnosis, State, counts
from harness.report.wording import clean

WIDTH = 80
_STATE, _CHECK = 9, 22
_INDENT = 2 + _STATE + _CHECK


def table(found: Sequence[Diagnosis]) -> str:
    """The table, group by group, and one line that counts."""
    lines: list[str] = []
    for group, rows in groupby(found, key=lambda one: one.group):
        lines += [clean(group)]
        for row in rows:
            lines += _row(row)
        lines.append("")
    return "\n".join([*lines, headline(found)])


def headline(found: Sequence[Diagnosis]) -> str:
    """What it comes to, in one sentence."""
    number = counts(found)
    parts = [f"{number[state]} {state}" for state in State if number[state]]
    missing, unknown = number[State.MISSING], number[State.UNKNOWN]
    if missing:
        meaning = "a drill would be refused"
    elif unknown:
        meaning = "nothing is missing as far as could be seen"
    else:
        meaning = "nothing is missing"
    return f"{', '.join(parts)}: {meaning}"


def _row(row: Diagnosis) -> list[str]:
    check = clean(row.check)
    head = f"  {row.state:<{_STATE}}{check:<{_CHECK}}"
    facts = _wrapped(clean(row.fact))
    if len(check) >= _CHECK:
        lines = [head.rstrip(), *(f"{'':<{_INDENT}}{line}" for line in facts)]
    else:
        lines = [f"{head}{facts[0]}".rstrip(), *(f"{'':<{_INDENT}}{line}" for line in facts[1:])]
    if row.state is not State.OK:
        for name, text in (("expected", row.expected), ("remedy", row.remedy)):
            wrapped = _wrapped(f"{name}: {clean(text)}", hang="  ") if text else []
            lines += [f"{'':<{_INDENT}}{line}" for line in wrapped]
    return lines


def _wrapped(text: str, hang: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH - _INDENT, subsequent_indent=hang, break_on_hyphens=False) or [""]
