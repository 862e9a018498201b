"""Which silences mute an alert, and which of them are somebody's answer to it."""

from __future__ import annotations

import time

import pytest

from harness.engine.observe import acknowledges, covers
from harness.ports.metrics import Matcher, NotifierAlert, Silence
from tests.engine.test_drill import refusal
from tests.fakes.drill import Drill

LABELS = {"alertname": "HighQueueDepth", "severity": "page"}
HOSTILE = "((.*)*)*!"


def silence(*matchers: Matcher, state: str = "active") -> Silence:
    return Silence("s1", matchers, 0.0, 600.0, 0.0, "bob", "", state)


def alert(*silenced_by: str) -> NotifierAlert:
    return NotifierAlert("f1", LABELS, 0.0, 600.0, "active", silenced_by)


def regex(name: str, value: str, *, equal: bool = True) -> Matcher:
    return Matcher(name, value, is_regex=True, is_equal=equal)


NAMED = Matcher("alertname", "HighQueueDepth")


@pytest.mark.parametrize(
    ("matchers", "mutes", "answers"),
    [
        ((NAMED,), True, True),
        ((regex("alertname", "High.*"),), True, True),
        ((regex("alertname", "HighQueueDepth|Other"),), True, True),
        ((NAMED, Matcher("severity", "page")), True, True),
        ((regex("alertname", ".*"),), True, False),
        ((regex("alertname", ".+"),), True, False),
        ((Matcher("alertname", "Other", is_equal=False),), True, False),
        ((Matcher("severity", "page"),), True, False),
        ((regex("severity", ".*"),), True, False),
        ((Matcher("alertname", "Other"),), False, False),
        ((NAMED, Matcher("severity", "info")), False, False),
    ],
)
def test_a_silence_that_mutes_is_an_answer_only_where_it_names_the_alert(
    matchers: tuple[Matcher, ...], mutes: bool, answers: bool
) -> None:
    assert covers(silence(*matchers), LABELS) is mutes
    assert acknowledges(silence(*matchers), alert()) is answers
    assert not covers(silence(*matchers, state="expired"), LABELS)
    assert not acknowledges(silence(*matchers, state="expired"), alert())


def test_an_expression_that_would_never_end_is_not_tried() -> None:
    began = time.monotonic()
    assert covers(silence(regex("alertname", HOSTILE)), LABELS)
    assert not acknowledges(silence(regex("alertname", HOSTILE)), alert("s1"))
    assert not acknowledges(silence(NAMED, regex("severity", HOSTILE)), alert())
    assert acknowledges(silence(NAMED, regex("severity", HOSTILE)), alert("s1"))  # Alertmanager's own word
    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize("matcher", [regex("alertname", ".*"), Matcher("severity", "critical"), regex("x", HOSTILE)])
def test_a_run_is_refused_while_any_silence_mutes_its_alert(matcher: Matcher) -> None:
    drill = Drill()
    rule = next(r for r in drill.metrics.rules() if r.alert == "HighQueueDepth")
    if not matcher.is_regex:
        matcher = Matcher("severity", rule.labels["severity"])
    drill.notifier.silence([matcher], author="bob", comment="maintenance", seconds=600)
    assert refusal(drill).slug == "alert-silenced"
