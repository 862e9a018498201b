"""How long the matrix will still take is told from what it has done; what it leaves on disk, from how it ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.matrix import Pace, journals


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


@pytest.mark.parametrize("said", [[], [False], [True], [True, False]])
def test_journals_go_only_where_all_is_known_to_be_well(tmp_path: Path, said: list[bool]) -> None:
    folder, heard = tmp_path / "journals", list[str]()
    folder.mkdir()
    with journals(folder, heard.append) as all_well:
        all_well.extend(said)
    assert folder.exists() == (said != [True])
    assert (str(folder) in "".join(heard)) == folder.exists()


def test_what_broke_off_keeps_its_journals(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), journals(tmp_path, lambda _: None):
        raise KeyboardInterrupt
    assert tmp_path.exists()
