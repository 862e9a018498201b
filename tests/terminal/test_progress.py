"""Progress tells what is done and how long it takes, to a terminal, a pipe and a program, and never fails."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from harness.terminal.displays import progress_for
from harness.terminal.progress import JsonProgress, LineProgress, Steps
from harness.terminal.stream import Lines, Mode


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    """A pipe whose reader left."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


class Tick:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def lines_of(stream: io.StringIO) -> list[str]:
    return [line[10:] for line in stream.getvalue().splitlines()]


def test_a_pipe_gets_a_line_when_a_step_begins_and_one_when_it_ends() -> None:
    out, tick = io.StringIO(), Tick()
    progress = LineProgress(Lines(out), tick)
    with progress.step("Kubernetes", expect_seconds=380):
        tick.now += 371.26
    progress.say("ready")
    assert lines_of(out) == [
        "set-up     Kubernetes ... (about 6 min 20 s)",
        "set-up     Kubernetes: done in 6 min 11.3 s",
        "           ready",
    ]


def test_a_long_step_gives_a_sign_of_life() -> None:
    out, tick = io.StringIO(), Tick()
    progress = LineProgress(Lines(out), tick)
    with progress.step("Kubernetes", expect_seconds=60) as step:
        step.update("kubelet", 0.4)
        tick.now += 15
        progress.beat()
    assert lines_of(out)[1] == "set-up     Kubernetes: 15 s of about 1 min, 40% done: kubelet"


def test_the_heartbeat_beats_by_itself() -> None:
    out = io.StringIO()
    progress = LineProgress(Lines(out), heartbeat=0.01)
    with progress.step("Kubernetes"):
        for _ in range(500):
            if len(lines_of(out)) > 2:
                break
            progress._quit.wait(0.01)
    assert len(lines_of(out)) > 2


def test_details_are_told_now_and_then_and_not_each() -> None:
    out, tick = io.StringIO(), Tick()
    progress = LineProgress(Lines(out), tick)
    with progress.step("Image") as step:
        for name in "abcdef":
            tick.now += 2
            step.update(name)
    told = [line for line in lines_of(out) if line.endswith((": a", ": b", ": c", ": d", ": e", ": f"))]
    assert told == ["set-up     Image: 6 s: c", "set-up     Image: 12 s: f"]


@pytest.mark.parametrize(
    ("error", "how"),
    [(ValueError("no"), "failed"), (KeyboardInterrupt(), "interrupted"), (SystemExit(1), "interrupted")],
)
def test_a_step_that_breaks_says_so_and_lets_the_error_pass(error: BaseException, how: str) -> None:
    out = io.StringIO()
    progress = LineProgress(Lines(out), Tick())
    with pytest.raises(type(error)), progress.step("Image"):
        raise error
    assert lines_of(out)[-1] == f"set-up     Image: {how} after 0.0 s"


def test_only_outermost_steps_are_phases_and_equal_names_add_up() -> None:
    tick = Tick()
    progress = Steps(tick)
    for _ in range(2):
        with progress.step("Cluster"):
            tick.now += 1
            with progress.step("DNS"):
                tick.now += 2
    assert progress.phases == {"Cluster": 6.0}


def test_json_lines_say_the_same_to_programs() -> None:
    out, tick = io.StringIO(), Tick()
    progress = JsonProgress(Lines(out), tick)
    with progress.step("Image", expect_seconds=2.0) as step:
        tick.now += 6
        step.update("layers", 0.5)
    progress.say("ready")
    bodies: list[dict[str, Any]] = [json.loads(line)["progress"] for line in out.getvalue().splitlines()]
    assert [body["state"] for body in bodies] == ["started", "running", "done", "said"]
    assert bodies[1] | {"utc": ""} == {
        "utc": "", "state": "running", "title": "Image", "expect_seconds": 2.0, "seconds": 6.0, "detail": "layers",
        "fraction": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("stream", [Gone, Terminal])
def test_showing_never_raises(mode: Mode, stream: Callable[[], io.StringIO]) -> None:
    out = stream()
    progress = progress_for(out, mode)
    with progress.step("Image", expect_seconds=0) as step:
        step.update("\x1b[2Jlayers", 7.0)
    progress.say("x")
    if isinstance(out, Terminal):
        out.close()
        with progress.step("closed") as step:
            step.update("still going")
        progress.say("x")
    progress.close()


def test_strangers_text_cannot_act_on_the_terminal() -> None:
    out = io.StringIO()
    progress = LineProgress(Lines(out), Tick())
    progress.say("pulled \x1b[2Jimage\nnext")
    with progress.step("a\x07b"):
        pass
    assert "\x1b" not in out.getvalue()
    assert "\x07" not in out.getvalue()


def test_a_terminal_keeps_a_line_of_each_step_and_its_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    progress = progress_for(out, Mode.TTY)
    with progress.step("Cluster", expect_seconds=5) as step:
        step.update("kubelet", 0.5)
        with progress.step("DNS"):
            pass
    text = out.getvalue()
    assert "DNS: done in 0.0 s" in text
    assert "Cluster: done in" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is visible again"
