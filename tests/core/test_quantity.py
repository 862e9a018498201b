"""Durations and memory quantities: what they mean, what they refuse, and that they survive being written."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from harness.core.quantity import (
    LONGEST_DURATION,
    WRITTEN,
    Duration,
    Memory,
    format_duration,
    parse_cpu,
    parse_duration,
    parse_memory,
)

DURATION: TypeAdapter[float] = TypeAdapter(Duration)
MEMORY: TypeAdapter[str] = TypeAdapter(Memory)


@given(st.integers(min_value=0, max_value=int(LONGEST_DURATION) * 1000))
def test_a_duration_survives_being_written(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=1e-6)
    assert format_duration(parse_duration(format_duration(seconds))) == format_duration(seconds)


@given(st.integers(min_value=0, max_value=int(LONGEST_DURATION) * 1000))
def test_the_schema_pattern_takes_what_is_written(milliseconds: int) -> None:
    pattern = DURATION.json_schema()["pattern"]
    assert re.search(pattern, format_duration(milliseconds / 1000))


@given(st.text(max_size=12))
def test_text_is_a_duration_or_a_value_error(text: str) -> None:
    pattern = DURATION.json_schema()["pattern"]
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert 0 <= seconds <= LONGEST_DURATION
    assert re.search(pattern, text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("5m", 300), ("1h30m", 5400), ("250ms", 0.25), ("1.5h", 5400), ("1d", 86400), ("0s", 0),
     ("1m1ms", 60.001)],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("5", "did you mean 5s or 5m?"), (5, "did you mean 5s or 5m?"), (1.5, "did you mean 1.5s"),
        ("5 min", "write 5m"), ("90 seconds", "write 90s"), ("2h 5 minutes", "write 2h5m"), ("5m\n", "write 5m"),
        ("30s1h", "larger unit first"), ("5m5m", "larger unit first"), ("-5s", "with its unit"), ("", "with its unit"),
        ("٥m", "with its unit"), (None, "with its unit"), (True, "with its unit"), ("1e3s", "with its unit"),
        ("0.4ms", "millisecond"), ("400d", "366 days"), ("9" * 39 + "d", "366 days"),
        ("9" * 400 + "d", "with its unit"),
    ],
)  # fmt: skip
def test_what_is_no_duration_is_told_how_to_write_it(text: object, hint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(hint)):
        parse_duration(text)


def test_a_bare_number_passes_between_models_but_never_from_a_file() -> None:
    assert DURATION.validate_python(90.0) == 90.0
    for value in (90.0, 90):
        with pytest.raises(ValidationError, match="did you mean"):
            DURATION.validate_python(value, context=WRITTEN)
    for value in (float("nan"), float("inf"), -1.0):
        with pytest.raises(ValidationError, match="between 0 and 366 days"):
            DURATION.validate_python(value)


@pytest.mark.parametrize(
    ("text", "size"),
    [("64Mi", 64 * 2**20), ("1Gi", 2**30), ("129e6", 129_000_000), ("129M", 129_000_000), ("128974848", 128_974_848),
     ("500m", 1), ("0.5", 1), ("1.5Gi", 3 * 2**29), ("1E", 10**18), ("1e-1", 1), ("0", 0)],
)  # fmt: skip
def test_memory_as_the_api_server_reads_it(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize(
    ("text", "hint"),
    [("48MB", "write 48Mi (powers of 1024) or 48M (powers of 1000)"), ("48MB?", "write 48Mi"), ("64mi", "write 64Mi"),
     ("64 Mi", "write 64Mi"), ("48", "like 48Mi"), (48, "like 64Mi"), ("0Mi", "zero"), ("lots", "like 64Mi or 1Gi"),
     ("64Mi\n", "write 64Mi"), ("1e6", "like 64Mi or 1Gi"), (None, "like 64Mi or 1Gi"), ("4kb", "write 4Ki")],
)  # fmt: skip
def test_what_is_no_memory_quantity_is_told_how_to_write_it(text: object, hint: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(hint)):
        MEMORY.validate_python(text)


@given(st.integers(min_value=1, max_value=10**6), st.sampled_from(["Ki", "Mi", "Gi", "Ti", "k", "M", "G", "T"]))
def test_memory_is_kept_as_it_was_written(number: int, unit: str) -> None:
    text = f"{number}{unit}"
    assert MEMORY.validate_python(text) == text
    assert MEMORY.dump_python(MEMORY.validate_python(text)) == text
    assert re.search(MEMORY.json_schema()["pattern"], text)


@pytest.mark.parametrize(
    ("text", "thousandths"),
    [("250m", 250), ("2", 2000), ("0.5", 500), (".5", 500), ("1e-1", 100), ("100u", 1), ("1500000n", 2), ("1k", 10**6),
     ("0.0001", 1), ("0", 0)],
)  # fmt: skip
def test_cpu_as_the_api_server_reads_it(text: str, thousandths: int) -> None:
    assert parse_cpu(text) == thousandths


@pytest.mark.parametrize("text", ["", "m", "1Mi", "-1", "1m2", "2 cores", 250, None, "1" * 41])
def test_what_is_no_cpu_quantity_is_told(text: object) -> None:
    with pytest.raises(ValueError, match="write thousandths of a core, like 250m"):
        parse_cpu(text)
