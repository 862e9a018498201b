"""What of the environment was lost is told from how a run ended, and only where that is how it ended."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.core.clock import Bounds
from harness.core.decide import API_CLOCK, API_SERVER, UNDO_FOR, lost_source
from harness.core.event import ChannelChanged, Record, RunEnded, StopAsked, UndoDone
from harness.core.history import History
from harness.core.verdict import Verdict, judge
from harness.engine.observe import ClockRound
from harness.report.series import ENVIRONMENT, outcome
from tests.fakes.drill import Drill, fired
from tests.fakes.world import World


def begun() -> Drill:
    drill = Drill()
    drill.begin()
    return drill


def lost(drill: Drill, history: History) -> str:
    """The source, as the row of a table tells it."""
    source = lost_source(history)
    row = outcome(drill.experiment, history, judge(drill.experiment, history))
    assert (row.verdict == ENVIRONMENT) == bool(source)
    assert row.why == source
    return source


def unreachable(world: World, *, gone: bool = True) -> None:
    world.cluster.unreachable = gone


def after(seconds: float) -> Callable[[World], bool]:
    began: list[float] = []

    def is_due(world: World) -> bool:
        if not began and world.cluster.unreachable:
            began.append(world.clock.now())
        return bool(began) and world.clock.now() >= began[0] + seconds

    return is_due


def test_an_api_server_that_was_lost_is_the_environments_doing() -> None:
    drill = begun()
    drill.feed.when(fired(1.0), unreachable)
    drill.feed.when(after(40.0), lambda world: unreachable(world, gone=False))
    history = drill.run()
    assert [stop.by for stop in history.all(StopAsked)] == [API_SERVER]
    assert history.is_clean
    assert "the API server did not answer: the lock could not be renewed in time" in lost(drill, history)


def test_also_where_it_never_answers_again() -> None:
    drill = begun()
    drill.feed.when(fired(1.0), unreachable)
    history = drill.run()
    assert history.open_faults() == ("memory",)
    assert lost(drill, history)
    tried = [record.at for record, _ in history.records(UndoDone)]
    assert UNDO_FOR - 20 < tried[-1] - tried[0] < UNDO_FOR + 20


def test_a_lock_in_other_hands_is_nobodys_loss() -> None:
    drill = begun()
    drill.feed.when(fired(1.0), lambda _: drill.feed.put(StopAsked(by="the lock", detail="run-2 has it")))
    assert lost(drill, drill.run()) == ""


def test_a_prometheus_that_was_lost_is_the_environments_doing() -> None:
    drill = begun()
    drill.feed.when(fired(1.0), lambda world: setattr(world, "metrics_down", True))
    history = drill.run()
    assert "Prometheus has been lost for" in lost(drill, history)


def test_one_that_answers_and_stands_still_is_not_lost() -> None:
    drill = begun()
    drill.feed.when(fired(1.0), lambda world: setattr(world, "metrics_frozen", True))
    history = drill.run()
    assert judge(drill.experiment, history).verdict is Verdict.UNDECIDED
    assert lost(drill, history) == ""


@pytest.mark.parametrize("stopped", [False, True])
def test_what_was_lost_for_a_while_or_ended_otherwise_keeps_its_verdict(*, stopped: bool) -> None:
    drill = begun()
    drill.respond()
    drill.feed.when(fired(1.0), lambda world: setattr(world, "metrics_down", True))
    drill.feed.when(fired(9.0), lambda world: setattr(world, "metrics_down", False))
    if stopped:
        drill.feed.stop_when(fired(5.0))
    assert lost(drill, drill.run()) == ""


def test_a_run_that_goes_on_is_not_lost_yet() -> None:
    drill = begun()
    drill.feed.when(fired(1.0), unreachable)
    drill.feed.when(after(40.0), lambda world: unreachable(world, gone=False))
    history = drill.run()
    unended = History(record for record in history if not isinstance(record.event, RunEnded))
    assert lost_source(history)
    assert lost_source(unended) == ""


def test_a_fault_that_nobody_could_undo_because_nobody_answered() -> None:
    drill = begun()
    drill.respond()
    history = drill.run()
    assert lost_source(history) == ""
    failed = UndoDone(fault="memory", outcome="failed", at=Bounds.at(0), detail="connection refused")

    def retold(*, known: bool) -> History:
        """The same run, in which the API server was lost before the undo."""
        gone = [replaced(record, UndoDone, failed) for record in history if not isinstance(record.event, RunEnded)]
        lost = ChannelChanged(channel=API_CLOCK, up=False, detail="connection refused")
        events = [record.event for record in gone] + [lost] * known + [RunEnded(reason="complete", detail="all done")]
        return History(Record(seq=seq, at=history.last_at, event=event) for seq, event in enumerate(events))

    assert "when fault memory was to be undone: connection refused" in lost_source(retold(known=True))
    assert lost_source(retold(known=False)) == "", "it may be somebody else's doing"


def replaced(record: Record, kind: type, event: UndoDone) -> Record:
    return record.model_copy(update={"event": event}) if isinstance(record.event, kind) else record


def test_the_clock_of_the_api_server_is_the_source_that_is_looked_at() -> None:
    assert ClockRound("API server", lambda: Bounds.at(0), Bounds.at(0), "Date").name == API_CLOCK


def test_a_failing_undo_is_tried_for_as_long_as_was_said() -> None:
    drill = begun()
    drill.undo_for = 60.0
    drill.feed.when(fired(1.0), unreachable)
    history = drill.run()
    tried = [record.at for record, _ in history.records(UndoDone)]
    assert 40.0 < tried[-1] - tried[0] < 80.0
