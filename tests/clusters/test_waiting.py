"""No sequence of changes that the policy on Secrets lets pass loses a value: all of them, over small Secrets."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.clusters.waiting import PLACES, Data, contents, passes, passes_for_autopilot

VALUES = ("V", "W", "X")
ONE = ("a", *(place + "a" for place in PLACES))
NESTED = (*ONE, *(place + other + "a" for place in PLACES for other in PLACES))
TWO = (*ONE, "b", *(place + "b" for place in PLACES))
Rule = Callable[[Data, Data], bool]


def reached(first: Data, every: list[dict[str, str]], rule: Rule) -> list[Data]:
    """What any number of changes that pass makes of a Secret."""
    found, due, left = [first], [first], [one for one in every if one != first]
    while due:
        now = due.pop()
        more = [one for one in left if rule(now, one)]
        left = [one for one in left if one not in more]
        found += more
        due += more
    return found


def lost(first: Data, now: Data) -> list[str]:
    """The names whose value is neither under them nor waits for them, and alone."""
    waiting = {name: [place + name for place in PLACES if place + name in now] for name in first}
    return [
        name
        for name, value in first.items()
        if (now[waiting[name][0]] if len(waiting[name]) == 1 else None if waiting[name] else now.get(name)) != value
    ]


@pytest.mark.parametrize("names", [ONE, TWO], ids=["one", "two"])
def test_after_any_sequence_every_value_is_there_and_one_change_brings_all_of_them_back(names: tuple[str, ...]) -> None:
    values = VALUES if names == ONE else VALUES[:2]
    every = list(contents(names, values))
    owners = [one for one in every if not any(name.startswith(PLACES) for name in one)]
    assert len(owners) == (len(values) + 1) ** (len(names) // 3)
    for first in owners:
        for now in reached(first, every, passes):
            assert not lost(first, now), now
            assert passes(now, first), now


def test_a_value_that_waits_already_is_not_lost_either() -> None:
    every = list(contents(ONE, VALUES))
    for first in every:
        for place in PLACES:
            waits = first.get(place + "a")
            if waits is None or len([name for name in first if name.startswith(PLACES)]) > 1:
                continue
            for now in reached(first, every, passes):
                told = [name for name in now if name.startswith(PLACES)]
                assert [now[name] for name in told] == [waits] if told else now["a"] == waits


def test_what_waits_for_what_waits_is_left_to_people() -> None:
    every = list(contents(NESTED, VALUES[:1]))
    nested = [one for one in every if one.keys() - set(ONE)]
    assert len(nested) == len(every) - 8
    for first in every:
        assert not [one for one in nested if passes(first, one) or passes(one, first)]


def test_the_search_finds_the_five_steps_by_which_a_value_was_lost() -> None:
    def before(old: Data, new: Data) -> bool:
        """The rule as it was: one name, two places, and a value may come to wait in the second one, too."""
        at = [place + "a" for place in PLACES]
        waits = any(one in old for one in at)
        moved = "a" not in old or old["a"] in new.values() or waits
        came = all(one in old or one not in new or new[one] == old.get("a") for one in at)
        stayed = all(one not in old or old[one] in (new.get(one), new.get("a")) for one in at)
        return moved and came and stayed and ("a" in old or "a" not in new or waits)

    every = list(contents(ONE, VALUES[:2]))
    assert any(lost({"a": "V"}, now) and "V" not in now.values() for now in reached({"a": "V"}, every, before))


def test_the_ways_of_the_fault_pass() -> None:
    whole = {"a": "V", "b": "W"}
    for place in PLACES:
        gone, other = {place + "a": "V", "b": "W"}, {place + "a": "V", "a": "X", "b": "W"}
        for old, new in ((whole, gone), (whole, other), (other, gone), (gone, other), (gone, whole), (other, whole)):
            assert passes(old, new)
        assert passes_for_autopilot(gone, other)
        assert passes_for_autopilot(other, {**other, "a": "W"})
        assert not passes_for_autopilot(whole, gone)
        assert not passes_for_autopilot(gone, whole)
