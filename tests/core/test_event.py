"""Every event survives the journal's line; a line that is not one is refused."""

from __future__ import annotations

import json
import types
from typing import Any, Union, get_args, get_origin

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from harness.core.clock import Bounds
from harness.core.errors import BadInput
from harness.core.event import Event, Record, RunEnded, SignalRead, decode, encode
from harness.core.history import History, entry

FACTS: tuple[type[BaseModel], ...] = get_args(get_args(Event)[0])

instants = st.floats(min_value=0, max_value=4e9, allow_nan=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def ordered_bounds(draw: st.DrawFn) -> Bounds:
    earliest = draw(instants)
    return Bounds(earliest=earliest, latest=earliest + draw(st.floats(min_value=0, max_value=100)))


st.register_type_strategy(Bounds, ordered_bounds())


def of_type(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of a field's annotation, kept to what a JSON line can hold."""
    args = get_args(annotation)
    if annotation is float:
        return instants
    if annotation is Any:
        return json_values
    if annotation is Bounds:
        return ordered_bounds()
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return fact(annotation)
    if isinstance(annotation, types.UnionType) or get_origin(annotation) is Union:
        return st.one_of(*(of_type(arg) for arg in args))
    origin = getattr(annotation, "__origin__", None)
    if origin is tuple:
        if args[-1] is Ellipsis:
            return st.lists(of_type(args[0]), max_size=3).map(tuple)
        return st.tuples(*(of_type(arg) for arg in args))
    if origin is dict:
        return st.dictionaries(of_type(args[0]), of_type(args[1]), max_size=3)
    if hasattr(annotation, "__metadata__"):
        return of_type(origin)
    return st.from_type(annotation)


def fact(kind: type[BaseModel]) -> st.SearchStrategy[BaseModel]:
    return st.builds(kind, **{name: of_type(field.annotation) for name, field in kind.model_fields.items()})


def test_every_fact_has_its_own_type_and_says_so() -> None:
    tags = [kind.model_fields["type"].default for kind in FACTS]
    assert len(tags) == len(set(tags)) >= 25
    assert all(kind.__doc__ for kind in FACTS)


@pytest.mark.parametrize("kind", FACTS, ids=lambda kind: kind.__name__)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_record_survives_its_line(kind: type[BaseModel], data: st.DataObject) -> None:
    record = Record(seq=data.draw(st.integers(0, 10**6)), at=data.draw(instants), event=data.draw(fact(kind)))
    line = encode(record)
    assert "\n" not in line
    assert decode(line) == record
    assert encode(decode(line)) == line


def test_a_value_that_is_not_a_number_is_no_value_and_infinity_is_one() -> None:
    samples = ((1.0, float("nan")), (2.0, float("inf")), (3.0, float("-inf")), (4.0, 0.5))
    record = Record(seq=0, at=1.0, event=SignalRead(signal="s", samples=samples, resolution=1.0))
    line = encode(record)
    json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    read = decode(line).event
    assert isinstance(read, SignalRead)
    assert [value for _, value in read.samples] == [None, float("inf"), float("-inf"), 0.5]


@pytest.mark.parametrize(
    "line",
    [
        "", "[]", "{}", "null", '{"seq":0,"at":1.0}',
        '{"seq":-1,"at":1.0,"event":{"type":"stop.asked","by":"x"}}',
        '{"seq":0,"at":1.0,"event":{"type":"no.such.event"}}',
        '{"seq":0,"at":1.0,"event":{"type":"stop.asked","by":"x","more":1}}',
        '{"seq":0,"utc":"1970-01-01T00:00:02.000Z","at":1.0,"event":{"type":"stop.asked","by":"x"}}',
        '{"seq":0,"at":1.0,"event":{"type":"stop.asked","by":"x"}',
    ],
)  # fmt: skip
def test_a_line_that_is_no_record_is_refused(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's and pydantic's own words
        decode(line)


@given(st.lists(st.integers(0, 5), max_size=6))
def test_a_history_takes_dense_numbers_only(numbers: list[int]) -> None:
    history = History()
    end = RunEnded(reason="complete", detail="")
    for number in numbers:
        expected = len(history)
        if number == expected:
            history.append(Record(seq=number, at=0.0, event=end))
            continue
        with pytest.raises(BadInput) as caught:
            history.append(Record(seq=number, at=0.0, event=end))
        assert caught.value.slug == "journal-gap"
        assert len(history) == expected
    assert [record.seq for record in history] == list(range(len(history)))
    assert entry(history, end, 1.0).seq == len(history)


def test_a_history_without_its_head_is_refused() -> None:
    for records in ([], [Record(seq=0, at=0.0, event=RunEnded(reason="complete", detail=""))]):
        with pytest.raises(BadInput) as caught:
            _ = History(records).start
        assert caught.value.slug == "journal-headless"
