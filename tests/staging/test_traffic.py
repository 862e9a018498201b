"""The load is the same for the same seed, and as strong as its profile says."""

from __future__ import annotations

from itertools import islice, pairwise, takewhile

import pytest

from staging.traffic import PROFILES, Arrival, Profile, plan


def first(count: int, seed: int) -> list[Arrival]:
    return list(islice(plan(PROFILES["morning-rush"], seed), count))


def test_equal_seeds_give_equal_plans_and_others_do_not() -> None:
    assert first(500, 915) == first(500, 915)
    assert first(500, 915) != first(500, 916)


def test_the_rate_climbs_in_a_straight_line_and_then_holds() -> None:
    profile = Profile("p", start_rate=2.0, plateau_rate=10.0, ramp_seconds=20.0)
    assert [profile.rate(at) for at in (0.0, 10.0, 20.0, 3600.0)] == [2.0, 6.0, 10.0, 10.0]


@pytest.mark.parametrize("seed", range(5))
def test_the_plateau_has_its_rate_in_every_ten_seconds(seed: int) -> None:
    arrivals = list(takewhile(lambda a: a.at < 120, plan(PROFILES["morning-rush"], seed)))
    for start in range(20, 110, 10):
        sent = sum(start <= a.at < start + 10 for a in arrivals)
        assert 145 <= sent <= 165  # 155 on average


def test_times_only_grow_and_jobs_are_numbered() -> None:
    arrivals = first(300, 1)
    assert all(a.at < b.at for a, b in pairwise(arrivals))
    assert [a.ticket for a in arrivals] == list(range(1, 301))
    assert all(0.8 <= a.weight <= 1.2 for a in arrivals)
