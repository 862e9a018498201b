"""The report as Markdown (CommonMark and pipe tables, nothing that only one forge knows).

Strangers' text (names of pods, annotations, what responders wrote) is escaped so that it shows as it was written: no
table breaks, no HTML, no links, no mentions, no references to issues. Events are cited as `e12`, never as #12, and a
citation leads to its event in the appendix.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from harness.report.facts import cut_short_note, facts, verdict_word
from harness.report.values import Chart, Moment, Report, SlaRow
from harness.report.wording import (
    clean,
    clock,
    measured,
    since,
    span,
    stamp,
    target,
    uncertainty,
    undone,
    within,
)

_SPECIAL = re.compile(r"([\\`*\[\]#|~$]|(?<!\w)_+|_++(?!\w))")
_ENTITY = re.compile(r"&(?=#?\w+;)")
_TAG = re.compile(r"<(?![ =])")
_START = re.compile(r"^(\d{1,9}(?=[.)])|(?=[-+=>]))(.)")
_JOINER = "\u2060"
_BARS = " ▁▂▃▄▅▆▇█"
_COLUMNS = 64


def escape(text: str) -> str:
    """`text` as Markdown that shows exactly it, within a line or a table's cell.

    Escaped is what could act there and nothing else: `=`, `+`, `>`, or a `_` inside a word are left as they are.
    """
    plain = _TAG.sub("&lt;", _ENTITY.sub("&amp;", clean(text)))
    plain = _SPECIAL.sub(lambda match: "".join(f"\\{character}" for character in match[0]), plain)
    # Forges turn bare addresses, mentions and numbers into links after rendering: a word joiner stops them.
    plain = plain.replace("://", f":{_JOINER}//").replace("@", f"@{_JOINER}").replace("\\#", f"\\#{_JOINER}")
    return re.sub(r"(?i)\bwww\.", lambda match: f"{match[0][:-1]}{_JOINER}.", plain)


def paragraph(text: str) -> str:
    """`text` escaped for the start of a line, where it could begin a list, a quotation or a rule too."""
    return _START.sub(r"\1\\\2", escape(text))


def code(text: str) -> str:
    """`text` as a code span that is safe inside a table."""
    plain = clean(text).replace("|", "\\|") or " "
    fence = "`" * (max((len(run) for run in re.findall(r"`+", plain)), default=0) + 1)
    pad = " " if plain.startswith("`") or plain.endswith("`") else ""
    return f"{fence}{pad}{plain}{pad}{fence}"


def render_markdown(report: Report) -> str:
    """The report as Markdown."""
    header, head = report.header, report.headline
    verdict = f"**{head.verdict}** (exit code {head.exit_code}, {head.exit_meaning}). {escape(head.sentence)}"
    run = f"{stamp(header.started)} · profile {escape(header.profile)} · run {code(header.run_id)}"
    responder = f"Responder: {_who('automation' if header.automated else '', header.responder)}"
    parts = [f"# {escape(header.title)}", f"{run}<br>{responder}", verdict]
    if head.caveat:
        parts.append(f"> **{escape(head.caveat)}**")
    parts += [
        _promises(report),
        _guards(report),
        "\n\n".join(["## Chart", *map(_chart, report.charts or (None,))]),
        _timeline(report),
        _findings(report),
        _chains(report),
        _changes(report),
        _header(report),
        _setup(report),
        _scenario(report),
        _evidence(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(cell or " " for cell in row) + " |" for row in rows)])


def _cite(evidence: tuple[int, ...]) -> str:
    return " ".join(f"[e{seq}](#e{seq})" for seq in evidence)


def _who(who: str, text: str) -> str:
    return f"**{escape(text)}**" if who == "automation" else escape(text)


def _promises(report: Report) -> str:
    def row(sla: SlaRow) -> tuple[str, ...]:
        name = sla.name if sla.name != f"{sla.from_} to {sla.to}" else ""
        ends = f"{escape(sla.from_)} → {escape(sla.to)}" + (f"<br>{escape(name)}" if name else "")
        told = sla.reason and not sla.cut_short
        verdict = f"**{verdict_word(sla)}**" + (f"<br>{escape(sla.reason)}" if told else "")
        weight = "required" if sla.required else "advisory"
        took = measured(sla.measured, sla.target)
        who = _who(sla.who, sla.who_text)
        return (ends, target(sla.target), took, verdict, weight, who, _cite(sla.evidence))

    rows = [row(sla) for sla in (*report.slas, *report.alerts)]
    head = ("From → to", "Target", "Measured", "Verdict", "Counts", "Who", "Evidence")
    note = cut_short_note(report)
    return "## Targets\n\n" + (f"{note}\n\n" if note else "") + _table(head, rows)


def _guards(report: Report) -> str:
    rows = [
        (escape(g.name), code(g.condition), f"**{g.verdict}**", escape(g.reason), _cite(g.evidence))
        for g in report.guards
    ]
    return (
        "## Had to hold all through\n\n" + _table(("Guard", "Condition", "Verdict", "Fact", "Evidence"), rows)
        if rows
        else ""
    )


def _chart(chart: Chart | None) -> str:
    if chart is None:
        return "Nothing to draw: neither the signal nor the pods were seen."
    head = (
        f"{paragraph(chart.title)}{f' ({escape(chart.unit)})' if chart.unit else ''}, drawn in full in the HTML report."
    )
    known = [(at, value) for at, value in chart.points if value is not None and math.isfinite(value)]
    if not known:
        return f"{head}\n\nNo samples were recorded."
    most = max(value for _, value in known) or 1.0
    step = (chart.end - chart.start) / _COLUMNS
    cells = []
    for column in range(_COLUMNS):
        left = chart.start + column * step
        inside = [value for at, value in known if left <= at < left + step or (column == _COLUMNS - 1 and at >= left)]
        cells.append(max(inside) if inside else None)
    rows = []
    for level in range(5, -1, -1):
        line = "".join(
            " " if cell is None else _BARS[max(0, min(8, round(cell / most * 48) - level * 8))] for cell in cells
        )
        rows.append(f"{most * (level + 1) / 6:>8.4g} |{line}")
    feet = "".join("·" if cell is None else "-" for cell in cells)
    rows.append(f"{'':>8} +{feet}")
    rows.append(f"{'':>10}{since(chart.start):<32}{since(chart.end):>32}   (from {clean(chart.zero)}; · = no sample)")
    return head + "\n\n```text\n" + "\n".join(row.rstrip() for row in rows) + "\n```"


def _findings(report: Report) -> str:
    if not report.findings:
        return "## Findings\n\nNone by rule."
    rows = [
        (f.severity, f"**{escape(f.title)}**<br>{escape(f.detail)}", f.rule, _cite(f.evidence)) for f in report.findings
    ]
    return "## Findings by rule\n\n" + _table(("Severity", "Finding", "Rule", "Evidence"), rows)


def _timeline(report: Report) -> str:
    def row(moment: Moment) -> tuple[str, ...]:
        name = f"**{escape(moment.name)}**" if moment.is_milestone else escape(moment.name)
        who = " ".join(filter(None, (code(moment.actor) if moment.actor else "", _who(moment.who, moment.who_text))))
        return (
            clock(moment.at.middle), uncertainty(moment.at),
            since(moment.from_firing) if moment.from_firing is not None else "",
            since(moment.from_injection) if moment.from_injection is not None else "",
            name + (f"<br>{escape(moment.detail)}" if moment.detail else ""), who, escape(moment.source),
            _cite(moment.evidence),
        )  # fmt: skip

    head = ("UTC", "Known to", "From firing", "From injection", "What", "Who", "Source", "Evidence")
    return "## Timeline\n\nMilestones are bold.\n\n" + _table(head, map(row, report.timeline))


def _chains(report: Report) -> str:
    parts = []
    for chain in report.chains:
        knobs = ", ".join(
            f"**{name} {target(value)}**" if name == chain.dominant else f"{name} {target(value)}"
            for name, value in chain.knobs
        )
        rows = [
            (f"{escape(w.from_)} → {escape(w.to)}", within(w.theory) if w.theory else "", measured(w.measured),
             _cite(w.evidence)) for w in chain.windows
        ]  # fmt: skip
        parts.append(
            f"### {escape(chain.alert)}\n\n{code(chain.query)} in group {code(chain.group)}, to receiver "
            f"{code(chain.receiver)}. Knobs: {knobs}; the slowest is {chain.dominant} ({_cite(chain.evidence)}).\n\n"
            + _table(("From → to", "Configured to take", "Measured", "Evidence"), rows)
        )
    return "## Alerting chain\n\n" + "\n\n".join(parts) if parts else ""


def _changes(report: Report) -> str:
    rows = [
        (escape(c.fault), f"{code(c.object)}<br>{code(c.path)}", code(c.before), code(c.after),
         f"**{escape(undone(c.undo))}**" + (f"<br>{escape(c.undo_detail)}" if c.undo_detail else ""), _cite(c.evidence))
        for c in report.changes
    ]  # fmt: skip
    text = "## What was changed, and put back\n\n"
    text += _table(("Fault", "Where", "Before", "After", "Undo", "Evidence"), rows) if rows else "Nothing was changed."
    clean_ = report.clean
    word = {
        True: "**Clean**: the cluster equals its snapshot.",
        False: "**NOT clean**:",
        None: "No comparison was made.",
    }
    text += f"\n\n{word[clean_.clean]} {_cite(clean_.evidence)}".rstrip()
    return text + "".join(f"\n- {code(difference)}" for difference in clean_.differences)


def _header(report: Report) -> str:
    return "## This run\n\n" + _table(("", ""), [(key, escape(value)) for key, value in facts(report)])


def _setup(report: Report) -> str:
    parts = []
    if report.checks:
        rows = [
            ("ok" if c.ok else "**FAILED**", escape(c.name), escape(c.fact) + ("" if c.ok else
             f"<br>expected: {escape(c.expected)}<br>remedy: {escape(c.remedy)}"), _cite(c.evidence))
            for c in report.checks
        ]  # fmt: skip
        parts.append("## Preflight\n\n" + _table(("", "Check", "Fact", "Evidence"), rows))
    if report.clocks:
        rows2 = [(escape(c.peer), f"{c.offset.middle:+.3f} s ± {c.offset.width / 2:.3f}", escape(c.method),
                  _cite(c.evidence)) for c in report.clocks]  # fmt: skip
        parts.append("## Clocks\n\nTheir clock less ours.\n\n" + _table(("Peer", "Offset", "How", "Evidence"), rows2))
    if report.phases:
        rows3 = [(escape(p.name), span(p.seconds), _cite(p.evidence)) for p in report.phases]
        parts.append("## Durations\n\n" + _table(("Phase", "Took", "Evidence"), rows3))
    return "\n\n".join(parts)


def _scenario(report: Report) -> str:
    h = report.header
    told = "\n\n".join(f"> {paragraph(part)}" for part in h.narrative)
    truth = f"{code(h.root_cause_object)}: {escape(h.root_cause_reason)}"
    return f"## Scenario\n\nWhat responders were told:\n\n{told}\n\nWhat only the facilitator knew: {truth}"


def _evidence(report: Report) -> str:
    rows = [
        (f'<a id="e{e.seq}"></a>[e{e.seq}](journal.jsonl#L{e.seq + 1})', clock(e.at), e.type, code(e.text))
        for e in report.evidence
    ]
    return "## Evidence\n\nThe cited events of the journal, shortened.\n\n" + _table(
        ("Event", "UTC", "Type", "Content"), rows
    )
