"""The report as one HTML file that needs nothing else: style and drawing are inline, nothing is fetched, nothing runs.

The content security policy names the inline style by its hash, so that no text of a stranger's could add another.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from typing import TYPE_CHECKING

from harness.core.clock import utc
from harness.report import wording
from harness.report.facts import cut_short_note, facts, verdict_word
from harness.report.svg import draw
from harness.report.values import SEVERITIES, Report
from harness.report.wording import plural

if TYPE_CHECKING:
    from jinja2 import Environment

WIDE, NARROW = 1040, 400


def render_html(report: Report) -> str:
    """The page."""
    from markupsafe import Markup

    environment = _environment()
    style = environment.get_template("report.css").render()
    return environment.get_template("report.html.j2").render(
        report=report,
        facts=facts(report),
        counts=_counts(report),
        cut_short=cut_short_note(report),
        style=Markup(style),  # noqa: S704 (our own file, without any variable)
        policy=_policy(style),
        drawings=[
            # svg.draw escapes every text
            (chart, Markup(draw(chart, WIDE)), Markup(draw(chart, NARROW)))  # noqa: S704
            for chart in report.charts
        ],
    )


def _counts(report: Report) -> str:
    """ "1 critical, 5 notes": of the severities only "note" is a noun."""
    counted = [(severity, sum(f.severity == severity for f in report.findings)) for severity in SEVERITIES]
    return ", ".join(plural(n, s) if s == "note" else f"{n} {s}" for s, n in counted if n)


def _policy(style: str) -> str:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("harness.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        {
            name: getattr(wording, name)
            for name in (
                "span",
                "target",
                "measured",
                "within",
                "since",
                "uncertainty",
                "stamp",
                "clock",
                "undone",
            )
        }
    )
    environment.filters.update(utc=utc, verdict_word=verdict_word, slug=lambda text: text.lower().replace(" ", "-"))
    return environment
