"""A Prometheus that stood still repeats its newest values; the run must not take them for data."""

from __future__ import annotations

import pytest

from harness.core.errors import Refused
from harness.core.event import ChannelChanged, SignalRead
from harness.core.milestone import operand_signal
from harness.core.verdict import Verdict, judge
from harness.engine.observe import PrometheusRound, signals
from tests.fakes.drill import Drill, fired


def test_what_prometheus_repeats_while_it_stands_still_is_no_data() -> None:
    drill = Drill()
    world = drill.world
    now = world.clock.now()
    round_ = PrometheusRound(
        drill.metrics, drill.experiment, drill.metrics.offset(), 1.0, now, drill.metrics.started_at()
    )
    round_.look(now)
    world.run_for(3.0)
    froze = world.clock.now()
    world.metrics_frozen = True
    world.run_for(10.0)
    world.metrics_frozen = False
    thawed = world.clock.now()
    world.run_for(5.0)
    events, _ = round_.look(world.clock.now())
    reads = [event for event in events if isinstance(event, SignalRead)]
    assert {read.signal for read in reads} == {*signals(drill.experiment), operand_signal("HighQueueDepth")}
    assert all("Prometheus did not scrape" in read.missing for read in reads)
    for read in reads:
        missing = [at for at, value in read.samples if value is None]
        assert missing
        assert all(froze < at < thawed + 1.5 for at in missing)
        assert len(missing) >= 7
        assert [value for at, value in read.samples if at < froze] != []
        assert all(value is not None for at, value in read.samples if at < froze)


def test_a_system_that_is_not_looked_at_is_not_steady() -> None:
    drill = Drill()
    drill.world.metrics_frozen = True
    drill.world.run_for(10.0)
    with pytest.raises(Refused) as caught:
        drill.preflight()
    assert caught.value.slug == "not-steady"
    assert "no fresh data" in caught.value.fact


def test_a_guard_is_not_met_where_prometheus_was_lost_at_the_end() -> None:
    drill = Drill()
    drill.respond()
    lost = ChannelChanged(channel="Prometheus", up=False, detail="connection refused")
    drill.feed.when(fired(12.0), lambda _: drill.feed.put(lost))
    history = drill.run()
    assert [guard.verdict for guard in judge(drill.experiment, history).guards] == [Verdict.UNDECIDED]
