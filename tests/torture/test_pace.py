"""How long the matrix will still take is told from what it has done."""

from __future__ import annotations

import pytest

from tests.torture.matrix import Pace


def test_rows_to_come_are_taken_for_what_the_known_ones_hold() -> None:
    pace = Pace(rows=4, planned=[80, 40], done=60)
    assert pace.total == 240
    assert pace.left(180.0) == pytest.approx(540.0)
    assert pace.told(180.0) == "60 of about 240, about 9 min left"


def test_once_all_rows_have_begun_it_is_known() -> None:
    pace = Pace(rows=2, planned=[10, 10], done=20)
    assert pace.told(60.0) == "20 of 20, about 0 s left"


def test_more_than_was_expected_is_no_time_in_the_past() -> None:
    assert Pace(rows=1, planned=[3], done=4).left(8.0) == 0.0
