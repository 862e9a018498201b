"""The checks of the alerting chain before a drill: which rule gives an expected alert, whether it can fire in time, and
what keeps it from people. They only look; the preflight stops at the first refusal, the doctor goes on.

Each raises Refused, or answers with a fact for people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.core.clock import Bounds, utc
from harness.core.errors import Refused
from harness.core.experiment import AnyExperiment, ExpectedAlert
from harness.core.promql import ranges
from harness.core.quantity import format_duration
from harness.core.sense import of_run
from harness.engine.observe import active_of, covers, rule_of, state_of
from harness.ports.metrics import Rule, Silence

DEFAULT_SCRAPE = 60.0
"""Seconds between scrapes where nothing is scraped: Prometheus' own default."""


def longest_scrape(intervals: Mapping[str, float]) -> float:
    """Seconds between two samples of a series, whichever pool scrapes it."""
    return max(intervals.values(), default=DEFAULT_SCRAPE)


def check_rule(expected: ExpectedAlert, loaded: Sequence[Rule]) -> Rule:
    """The rule that gives the alert. Raises Refused where none is loaded, or it cannot be evaluated."""
    rule = rule_of(expected, loaded)
    if rule is None:
        names = ", ".join(sorted({r.alert for r in loaded})) or "none"
        labelled = "".join(f' {name}="{value}"' for name, value in sorted(expected.labels.items()))
        raise Refused(
            "alert-rule-missing",
            f"Prometheus has no alerting rule {expected.name}{' with' if labelled else ''}{labelled}",
            expected=f"a loaded rule of that name; loaded are: {names}",
            remedy="load the rule, or correct `alerts` in the experiment",
        )
    if rule.health not in {"ok", "unknown"}:
        raise Refused(
            "alert-rule-broken",
            f"rule {expected.name} cannot be evaluated: {rule.last_error}",
            expected="a healthy rule",
            remedy="mend the rule's expression; promtool check rules shows it offline",
        )
    return rule


def labels_of(expected: ExpectedAlert, rule: Rule) -> dict[str, str]:
    """The labels with which the alert will arrive at Alertmanager, as far as they are known beforehand."""
    return {**rule.labels, **expected.labels, "alertname": rule.alert}


def check_in_time(expected: ExpectedAlert, firing: Bounds, rule: Rule, scrape: float) -> str:
    """How long the chain takes from the symptom to the firing. Raises Refused where even the quickest is too slow."""
    if firing.earliest > expected.within:
        raise Refused(
            "alert-cannot-meet-its-bound",
            f"{expected.name} cannot fire within {format_duration(expected.within)}: its `for` alone takes "
            f"{format_duration(firing.earliest)}",
            expected="a bound that the alerting chain can meet",
            remedy=f"shorten the rule's `for` ({format_duration(rule.for_seconds)}) or allow more in `alerts`",
        )
    return (
        f"symptom to firing takes {firing.earliest:.1f} to {firing.latest:.1f} s (scrape {scrape:g} s, "
        f"evaluation {rule.interval:g} s, for {rule.for_seconds:g} s)"
    )


def check_ranges(
    experiment: AnyExperiment, rules: Mapping[str, Rule], intervals: Mapping[str, float], loaded: Sequence[Rule]
) -> tuple[str, tuple[str, ...]]:
    """Whether ranges of the experiment's queries and of its `rules` can hold the samples that they need: a fact, and
    warnings. Which pool scrapes a series, or which rule records it, is not known: what is too short for all of them is
    refused, and what is too short for some is told."""
    asked = [(".".join(map(str, loc)), query) for loc, query in of_run(experiment)]
    asked += [(f"the rule of {name}", rule.query) for name, rule in rules.items()]
    found = [(where, one) for where, query in asked for one in ranges(query)]
    if not found or not intervals:
        return "no query looks at a range" if not found else "no target is scraped", ()
    pool, longest = max(intervals.items(), key=lambda item: item[1])
    shortest = min([*intervals.values(), *(rule.interval for rule in loaded)])
    warnings = []
    for where, one in found:
        what = f"{one.text} of {where}"
        if one.seconds < one.samples * shortest:
            raise Refused(
                "range-too-short",
                f"{what} looks at {format_duration(one.seconds)}, and nothing here is scraped or recorded more "
                f"often than every {format_duration(shortest)}: it cannot hold {_count(one.samples)}",
                expected=f"a range of at least {format_duration(one.samples * shortest)}; four times the "
                "interval survives a scrape that fails",
                remedy="write a longer range (`range` in the profile, where the query says [$range]), or "
                "scrape more often",
            )
        if one.seconds < one.samples * longest:
            warnings.append(
                f"{what} cannot hold {_count(one.samples)} of what {pool} scrapes every {format_duration(longest)}"
            )
    return f"{len(found)} looked at; the longest scrape interval is {format_duration(longest)}", tuple(warnings)


def check_inactive(expected: ExpectedAlert, loaded: Sequence[Rule]) -> None:
    """Raise Refused where the alert is pending or firing already."""
    active = active_of(expected, loaded)
    if active:
        since = min((a.active_at for a in active), default=None)
        raise Refused(
            "alert-already-active",
            f"{expected.name} is {state_of(active)} before anything was injected"
            + (f", since {utc(since)}" if since is not None else ""),
            expected="an inactive alert: one that fires already proves nothing",
            remedy="wait until it is resolved, or find out what is wrong with the system",
        )


def check_silences(expected: ExpectedAlert, rule: Rule, silences: Sequence[Silence]) -> None:
    """Raise Refused where one of them mutes the alert."""
    muting = next((one for one in silences if covers(one, labels_of(expected, rule))), None)
    if muting is not None:
        raise Refused(
            "alert-silenced",
            f"silence {muting.id} by {muting.created_by} covers {rule.alert}",
            expected="an alert that can reach the pager",
            remedy="expire the silence (amtool silence expire) or wait for its end",
        )


def _count(samples: int) -> str:
    return "a sample" if samples == 1 else f"{samples} samples"
