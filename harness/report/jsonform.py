"""The report as JSON. The keys are stable; a key that changes its meaning raises `report_version`.

    report_version  1
    header          which run: title, experiment, run_id, profile, responder, automated, cluster, namespace, severity,
                    started, ended, planned, actual, digest, harness_version, journal_head, identity, narrative,
                    root_cause_*, ...
    headline        verdict, sentence, caveat, exit_code, exit_meaning
    slas, alerts    name, from, to, target, measured, verdict, required, who, who_text, reason, evidence, cut_short
    guards          name, condition, verdict, reason, evidence
    chains          alert, group, query, knobs, dominant, floor, windows (from, to, theory, measured), ...
    timeline        at, name, is_milestone, detail, source, who, who_text, actor, from_firing, from_injection, evidence
    chart           null, or title, unit, zero, start, end, points, lines, bands, markers, ready, wanted
    incident_charts such charts of the alerts that declare a signal of their own
    changes, clean, findings, checks, clocks, phases, evidence

Instants are UTC epoch seconds and durations seconds. What has bounds is {"earliest", "latest"}; a bound that is
infinite, and a number that does not exist, is null. `evidence` holds sequence numbers of journal events; the list of
the same name at the top holds those events in short. Pairs (cluster, labels, knobs) are objects.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from pydantic import BaseModel

from harness.report.values import Report

REPORT_VERSION = 1
_PAIRS = frozenset({"cluster", "labels", "knobs"})


def as_data(report: Report) -> dict[str, Any]:
    """The report as JSON-able data."""
    data = {"report_version": REPORT_VERSION, **_plain(report)}
    if not report.header.journal_head:  # of a journal from before there were chains: its report stays as it was
        del data["header"]["journal_head"]
    return data


def render_json(report: Report) -> str:
    """The report as JSON text, UTF-8 to be, with a final newline."""
    return json.dumps(as_data(report), ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def _plain(value: object) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, BaseModel):
        return {key: _plain(item) for key, item in value.model_dump().items()}
    if dataclasses.is_dataclass(value):
        return {
            field.name.rstrip("_"): (
                {key: _plain(item) for key, item in getattr(value, field.name)}
                if field.name in _PAIRS
                else _plain(getattr(value, field.name))
            )
            for field in dataclasses.fields(value)
        }
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
