"""This harness beside Chaos Toolkit, in the same troubles on the same cluster.

What ours promises is asserted to the letter; what the other does is recorded and shown, whatever it is.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.clusters.provider import Access
from tests.peers.compare import AFTER, BEFORE, CASES, TROUBLES, compare
from tests.peers.table import figures_only, table
from tests.peers.toolkit import NotInstalled

pytestmark = [pytest.mark.cluster, pytest.mark.peers]

Rows = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def access(request: pytest.FixtureRequest) -> Access:
    """$DRILL_TEST_KUBECONFIG (with $DRILL_TEST_CONTEXT) where it is set, and otherwise the local cluster."""
    given = os.environ.get("DRILL_TEST_KUBECONFIG")
    if not given:
        return request.getfixturevalue("local_access")  # type: ignore[no-any-return]
    kubectl = shutil.which("kubectl")
    assert kubectl is not None
    return Access("context", "given", Path(given), os.environ["DRILL_TEST_CONTEXT"], Path(kubectl))


@pytest.fixture(scope="module")
def rows(request: pytest.FixtureRequest, access: Access, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Ours by trouble. The table is shown past pytest's capture, and written where DRILL_PEERS_FIGURES says."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def say(line: str) -> None:
        with capture.global_and_fixture_disabled():
            sys.stderr.write(f"{line}\n")

    try:
        figures = compare(access, tmp_path_factory.mktemp("peers"), say)
    except NotInstalled as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"Chaos Toolkit cannot be installed here: {error}")
    say(f"\n{table(figures)}")
    path = os.environ.get("DRILL_PEERS_FIGURES")
    if path:
        Path(path).write_text(json.dumps(figures_only(figures), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    seen = {(row["trouble"], row["title"]) for row in figures["rows"]}
    assert seen == {(case.trouble, case.title) for case in CASES}
    return {row["trouble"]: row for row in figures["rows"] if row["tool"] == "drill"}


def test_sigterm_in_the_middle_undoes(rows: Rows) -> None:
    row = rows["SIGTERM"]
    assert (row["exit_code"], row["replicas"]) == (2, BEFORE)
    assert row["back_after"] is not None
    assert row["journal"] != "none"


def test_sigkill_in_the_middle_is_told_and_undone_from_the_cluster_alone(rows: Rows) -> None:
    row = rows["SIGKILL"]
    assert row["exit_code"] == -9
    assert row["journal"] != "none"
    assert row["replicas"] == BEFORE or "fewer is in force" in row["extra"]["status_said"]
    assert (row["next_exit_code"], row["next_replicas"]) == (0, BEFORE)
    assert row["extra"]["journal_in_the_end"].startswith("recovered")


def test_a_second_run_is_refused_and_leaves_the_first_alone(rows: Rows) -> None:
    row = rows["second run at once"]
    assert row["extra"]["second_exit_code"] == 3
    assert row["extra"]["first_still_runs"]
    assert row["extra"]["replicas_under_the_first"] == AFTER
    assert (row["exit_code"], row["replicas"]) == (2, BEFORE)


def test_what_somebody_else_scaled_to_is_left_and_told(rows: Rows) -> None:
    row = rows["somebody else scales to 5, then SIGTERM"]
    assert (row["exit_code"], row["replicas"]) == (4, 5)
    assert (row["next_exit_code"], row["next_replicas"]) == (0, BEFORE)


def test_a_frozen_api_server_delays_the_undo_and_does_not_prevent_it(rows: Rows) -> None:
    row = rows["API server frozen for 30 s, SIGTERM meanwhile"]
    assert row["extra"]["replicas_while_frozen"] == AFTER
    assert row["extra"]["ran_while_frozen"]
    assert (row["exit_code"], row["replicas"]) == (2, BEFORE)


def test_a_write_whose_reply_was_lost_is_undone(rows: Rows) -> None:
    row = rows["reply to the write lost, SIGTERM 5 s later"]
    assert row["journal"].endswith("the write unknown")
    assert (row["exit_code"], row["replicas"]) == (2, BEFORE)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_in_the_end_nothing_is_left(rows: Rows, trouble: str) -> None:
    row = rows[trouble]
    assert row["next_replicas"] == BEFORE
    assert (row["extra"]["home_exit_code"], row["extra"]["leftovers"]) == (0, [])
