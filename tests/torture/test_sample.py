"""A sample of the crash matrix on the real cluster; `make torture` runs it whole."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from harness.clusters.provider import Access
from tests.faults.targets import KILLED, MADE, ROWS, TARGETS, Row
from tests.torture.matrix import Held, Point, Torture, is_bad, table, title

pytestmark = [pytest.mark.cluster, pytest.mark.apart]


def sample(points: list[Point]) -> list[Point]:
    """Where most can go wrong: the record is there and the fault is not; the write is about to be sent, or was sent
    and nobody knows; the effect is there; the undo is about to be sent, or was sent and nobody
    knows; its record is not yet removed."""

    def first(kind: str, what: str | tuple[str, ...], moment: str = "", *, last: bool = False) -> Point:
        found = [p for p in points if p.kind == kind and p.what.startswith(what) and p.moment == moment]
        return found[-1 if last else 0]

    return [
        first("append", "undo.stored"),
        first("append", "inject.started"),
        first("write", BREAKING, "after"),
        first("append", "effect.proved"),
        first("append", "undo.started"),
        first("write", BREAKING, "after", last=True),
        first("append", "undo.done"),
    ]


BREAKING = ("patch", "create Job", "delete Job", "delete Pod", "create NetworkPolicy", "delete NetworkPolicy")
"""Writes to what a fault breaks or makes."""


KINDS = {row.kind for row in ROWS}
SAMPLED = [max((row for row in ROWS if row.kind == kind), key=lambda row: len(row.manifests)) for kind in sorted(KINDS)]
"""Of each fault the row that breaks most objects."""


@pytest.mark.longest
def test_whoever_comes_next_brings_everything_back(local_access: Access, capsys: pytest.CaptureFixture[str]) -> None:
    results = Torture(local_access, lambda _: None, jobs=5, abreast=2).run(SAMPLED, sample)
    with capsys.disabled():
        print(f"\n{table(results)}")  # noqa: T201 - figures for whoever reads the log
    assert [result for result in results if is_bad(result)] == []
    assert all(result.died for result in results)
    for kind in KINDS:
        rows = [result for result in results if result.fault.startswith(kind)]
        assert sum(result.was_broken for result in rows) >= 3, "a matrix in which nothing was broken proves nothing"


HELD = [*TARGETS[:2], MADE[0], KILLED[0]]


@pytest.fixture(scope="module")
def held_up(local_access: Access, request: pytest.FixtureRequest) -> Iterator[dict[tuple[str, bool], Future[Held]]]:
    """Every run that a chosen test asks for, side by side: each is asleep for most of its time."""
    asked = [getattr(item, "callspec", None) for item in request.session.items if item.path == request.path]
    chosen = [(call.params["target"], call.params["killed"]) for call in asked if call and "killed" in call.params]
    with ThreadPoolExecutor(4, thread_name_prefix="held") as pool:

        def start(target: Row, *, killed: bool) -> Future[Held]:
            return pool.submit(lambda: Torture(local_access, lambda _: None, jobs=1).hold_up(target, killed=killed))

        running = {(title(target), killed): start(target, killed=killed) for target, killed in chosen}
        yield running
        for future in running.values():
            future.cancel()


@pytest.mark.xdist_group("held up")
@pytest.mark.parametrize("killed", [False, True], ids=["alive", "killed"])
@pytest.mark.parametrize("target", HELD, ids=lambda target: f"{target.kind}-{target.name}")
def test_a_run_that_slept_between_its_renewal_and_its_write_breaks_nothing(
    held_up: dict[tuple[str, bool], Future[Held]], target: Row, *, killed: bool
) -> None:
    held = held_up[title(target), killed].result()
    assert (held.swept, held.clean, held.leftovers) == (True, True, ())
    ends = [json.loads(line)["event"] for line in held.journal.splitlines()]
    done = [event for event in ends if event["type"] == "inject.done"]
    if killed:
        assert (held.code, done) == (-9, [])
        assert [event["type"] for event in ends][-1] == "inject.started"
        return
    assert [event["outcome"] for event in done] == ["failed"]
    assert re.search("(?i)resourceversion|not found", done[0]["detail"])
    assert held.code not in {0, 4, 70}
