"""Which run this is, as labelled facts, and the words for a run that was cut short: the same in every format."""

from __future__ import annotations

from harness.report.values import Report, SlaRow
from harness.report.wording import span, stamp, target


def facts(report: Report) -> list[tuple[str, str]]:
    """The header as labelled facts, in order."""
    h = report.header
    planned = f"at most {target(h.planned)} after the injection" if h.planned is not None else "not known"
    ended = (
        f"{stamp(h.ended)}: {h.end_reason}, {h.end_detail} (by {h.ended_by})" if h.ended is not None else h.end_reason
    )
    return [
        ("Run", h.run_id),
        ("Experiment", f"{h.experiment} ({h.experiment_file})"),
        ("Profile", h.profile),
        ("Responder", h.responder),
        ("Cluster", ", ".join(f"{key} {value}" for key, value in h.cluster)),
        ("Namespace", h.namespace),
        ("Started", stamp(h.started)),
        ("Ended", ended),
        ("Planned", planned),
        ("Took in all", span(h.actual)),
        ("Declared severity", h.severity),
        ("Why this drill", f"probability {h.probability}; tests {', '.join(h.tests)}"),
        ("Runbook", h.runbook),
        ("Experiment digest", h.digest),
        *([("Journal head", h.journal_head)] if h.journal_head else ()),
        ("Harness version", h.harness_version),
        ("Run by", h.identity),
    ]


def verdict_word(row: SlaRow) -> str:
    """A promise's verdict for people. What was not reached and is excused failed at nothing."""
    return "not judged" if row.cut_short else row.verdict


def why_not_judged(end_reason: str, *, ended: bool) -> str:
    """Why what a run did not reach is not judged, as a clause that begins a sentence."""
    if not ended:
        return "The run has not ended"
    if end_reason in {"complete", "timeout"}:
        return "The run never proved its fault"
    return "The run was cut short"


def cut_short_note(report: Report) -> str:
    """What to know before the table of targets; "" where every promise was judged."""
    if not any(row.cut_short for row in (*report.slas, *report.alerts)):
        return ""
    why = why_not_judged(report.header.end_reason, ended=report.header.ended is not None)
    return f"{why}: targets it did not reach say nothing of the people, and are not judged."
