"""Reading PromQL without a parser: right where it answers, silent where it cannot."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.promql import counter_ranges, matchers, operand, placeholders, ranges, unbalanced


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("max(nova_queue_depth) > 50", "max(nova_queue_depth)"), ("50 < max(d)", "max(d)"), ("a / b >= 0.5", "a / b"),
        ('up{job="a>b"} == 0', 'up{job="a>b"}'), ("a > bool 5", "a"), ("a > 5 and b > 3", ""), ("absent(up)", ""),
        ("sum(rate(x[5m] > 1))", ""), ("-1 < x", "x"), ("1 > 2", ""), ("a != 1 # > 7", "a"), ("3 < on(x) y", ""),
        ("a\n> 5", "a"), ('a{b="\\"} > 1"} > 2', 'a{b="\\"} > 1"}'), ("x OR y > 1", ""),
        ("order_total > 3", "order_total"),
    ],
)  # fmt: skip
def test_what_a_rule_looks_at(query: str, expected: str) -> None:
    assert operand(query) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("sum(rate(errors_total[5m]))", [("errors_total[5m]", "rate", 300.0, 2)]),
        ("max(deriv(depth[1m30s]))", [("depth[1m30s]", "deriv", 90.0, 2)]),
        ('sum by (a) (irate(x{b="[1m]"}[ 10s ] offset 5m))', [('x{b="[1m]"}[ 10s ]', "irate", 10.0, 2)]),
        ("max_over_time(x[500ms])", [("x[500ms]", "max_over_time", 0.5, 1)]),
        ("rate(x[5m]) / rate(y[1d])", [("x[5m]", "rate", 300.0, 2), ("y[1d]", "rate", 86400.0, 2)]),
        ("max_over_time(rate(x[1m])[5m:1s])", [("x[1m]", "rate", 60.0, 2)]),
        ('rate({__name__="x"}[1m])', [('{__name__="x"}[1m]', "rate", 60.0, 2)]),
        ("x[1m]", [("x[1m]", "", 60.0, 1)]), ("rate(x[$range])", []), ("rate(x[2 * 1m])", []), ("sum(x) # [1m]", []),
        ("max(depth)", []),
    ],
)  # fmt: skip
def test_how_long_the_ranges_of_an_expression_are(query: str, expected: list[tuple[str, str, float, int]]) -> None:
    assert [(*one, one.samples) for one in ranges(query)] == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("rate(x[$range])", ("[$range",)), ("rate(x[ $range ])", ("[ $range",)), ("max(y[$range:1s])", ("[$range",)),
        ("rate(x[$__rate_interval])", ("$__rate_interval",)), ("x > $range", ("$range",)),
        ("x[${range}]", ("${range}",)),
        ('x{a=~"b$"}', ()), ('x{a="$range"} # $x', ()), ("rate(x[1m])", ()),
    ],
)  # fmt: skip
def test_what_is_for_somebody_else_to_fill_in(query: str, expected: tuple[str, ...]) -> None:
    assert placeholders(query) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("sum(rate(x[5m]))", ""), ("sum(rate(x[5m])", "("), ("sum(x))", ")"), ("x[5m)", ")"), ('x{a="b}', "{"),
        ("x[", "["),
        ('x > "', '"'), ("x # (", ""), ('x{a="("}', ""), ("'it", "'"), ("", ""),
    ],
)  # fmt: skip
def test_brackets_and_quotes_that_have_no_counterpart(query: str, expected: str) -> None:
    assert unbalanced(query) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("sum(rate(errors_total[5m]))", ("errors_total[5m]",)), ("deriv(depth[5m])", ()), ("max(depth)", ()),
        ('increase(x{a="rate(y[1m])"}[1h]) / irate ( z[1m] )', ('x{a="rate(y[1m])"}[1h]', "z[1m]")),
        ("rate(max_over_time(x[1m])[5m:1s])", ("max_over_time(x[1m])[5m:1s]",)), ("rate(x[5m]", ()),
        ("my_rate(x)", ()), ("rate(x[5m]) + rate(x[5m])", ("x[5m]",)), ("rate(x[5m] offset 1m)", ("x[5m] offset 1m",)),
    ],
)  # fmt: skip
def test_which_counters_an_expression_measures(query: str, expected: tuple[str, ...]) -> None:
    assert counter_ranges(query) == expected


@given(st.text(max_size=60))
def test_any_text_is_read_to_its_end(text: str) -> None:
    assert operand(text) in text
    assert all(found in text for found in counter_ranges(text))


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.text(max_size=20), max_size=4))
def test_a_labels_value_never_ends_its_matcher(labels: dict[str, str]) -> None:
    text, read = matchers(labels), {}
    while text:
        name, _, text = text.partition("=")
        end, escaped = 1, False
        while text[end] != '"' or escaped:
            escaped = text[end] == "\\" and not escaped
            end += 1
        value = text[1:end].replace("\\\\", "\0").replace('\\"', '"').replace("\\n", "\n").replace("\0", "\\")
        read[name], text = value, text[end + 1 :].removeprefix(",")
    if not any("\0" in value for value in labels.values()):
        assert read == labels
    assert matchers({"a": 'x"\\\n'}) == 'a="x\\"\\\\\\n"'
    assert json.loads(matchers({"a": 'x"\\\n'}).removeprefix("a=")) == 'x"\\\n'
