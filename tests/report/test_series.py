"""Several runs in one table."""

from __future__ import annotations

import json

import pytest

from harness.core.clock import Bounds
from harness.core.verdict import judge
from harness.report.series import Incident, Outcome, as_data, markdown, outcome, table
from tests.core.test_incidents import BOTH, REJECTED, SLOW, drill, read
from tests.core.test_judging import history

ROWS = (
    Outcome("oom-workers", "MET", clean=True, run_id="r", incidents=(
        Incident("HighQueueDepth", Bounds(earliest=1.0, latest=3.0), Bounds(earliest=15.0, latest=15.04),
                 Bounds.at(62.0)),
    )),
    Outcome("registry-and-llm", "UNDECIDED", clean=False, incidents=(
        Incident("NovaRegistryLatencyP50High", Bounds.at(14.2)), Incident("NovaLLMErrors"),
    )),
    Outcome("noop", "MET", clean=True),
    Outcome("an-experiment-with-a-rather-long-name", "REFUSED", why="steady-state"),
)  # fmt: skip


def test_the_table_fits_a_terminal_and_says_how_sure_it_is() -> None:
    lines = table(ROWS).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].split() == ["oom-workers", "2.0", "s", "±1.0", "15.0", "s", "1", "min", "2.0", "s", "MET", "yes"]
    assert lines[2].split() == ["registry-and-llm", "14.2", "s", "-", "-", "UNDECIDED", "NO"]
    assert lines[3].split() == ["NovaLLMErrors", "-", "-", "-"]
    assert lines[4].split() == ["noop", "-", "-", "-", "MET", "yes"]
    nothing = f"{'':24}{'-':13}{'-':13}{'-':13}REFUSED     -"
    assert lines[5:] == ["an-experiment-with-a-rather-long-name", nothing, "  steady-state"]


def test_as_markdown_and_as_data_it_says_the_same() -> None:
    assert "| `oom-workers` | 2.0 s ±1.0 | 15.0 s | 1 min 2.0 s | MET | yes |" in markdown(ROWS)
    assert "| … NovaLLMErrors | - | - | - |  |  |" in markdown(ROWS)
    data = json.loads(json.dumps(as_data(ROWS)))
    assert data[0]["incidents"][0]["effective"] == {"earliest": 1.0, "latest": 3.0}
    assert data[1]["incidents"][1]["firing"] is None


def test_a_run_gives_a_row_with_each_of_its_incidents() -> None:
    told = history(*BOTH, read(f"{REJECTED}.recovered", 50, [1, 1, 0, 0, 0, 0]))
    row = outcome(drill(), told, judge(drill(), told))
    assert (row.experiment, row.clean, row.ended) == ("drawn", None, "")
    slow, rejected = row.incidents
    assert (slow.name, slow.effective, slow.firing, slow.recovered) == (SLOW, Bounds.at(1), Bounds.at(9), None)
    assert rejected.firing == Bounds.at(9)
    assert rejected.recovered is not None
    assert rejected.recovered.latest == pytest.approx(2)
