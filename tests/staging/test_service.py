"""What every part shares, where nothing else tests it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator

import pytest

from staging.service import log, stop_on_signals


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_of_a_line_stops_and_leaves_the_line_whole(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    stop = stop_on_signals()
    real = sys.stdout.buffer

    class Interrupted:
        """A standard output that is told to end while it is written to, and then is entered by nobody else."""

        def __init__(self) -> None:
            self.busy = False

        def write(self, text: str) -> None:
            assert not self.busy, "entered twice"
            self.busy = True
            signal.raise_signal(number)
            real.write(text.encode())
            self.busy = False

        def flush(self) -> None:
            real.flush()

    monkeypatch.setattr(sys, "stdout", Interrupted())
    log("something", number=7)
    assert stop.is_set()
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 2
    assert number.name in lines[0]
    assert '"number": 7' in lines[1]
