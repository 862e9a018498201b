"""A Prometheus that stood still repeats its newest values; the run must not take them for data."""

from __future__ import annotations

from harness.core.event import SignalRead
from harness.engine.observe import PrometheusRound, signals
from tests.fakes.drill import Drill


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
    assert {read.signal for read in reads} == set(signals(drill.experiment))
    for read in reads:
        missing = [at for at, value in read.samples if value is None]
        assert missing
        assert all(froze < at < thawed + 1.5 for at in missing)
        assert len(missing) >= 7
        assert [value for at, value in read.samples if at < froze] != []
        assert all(value is not None for at, value in read.samples if at < froze)
