"""A run is told alike on a terminal, in a pipe and to a program; nothing is wider than its stream."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from harness.core.errors import ExitCode
from harness.core.event import (
    ChannelChanged,
    Decided,
    Event,
    PhaseTimed,
    Record,
    SignalRead,
    StopAsked,
    UndoDone,
    decode,
)
from harness.core.history import History
from harness.core.view import view
from harness.terminal.displays import live_for
from harness.terminal.live import LineLive, standing
from harness.terminal.screen import Screen, outcome_text
from harness.terminal.sentences import Teller, sentence
from harness.terminal.stream import Lines, Mode, layout, mode_of
from tests.terminal.drill_history import BEGAN, EXPERIMENT, Drill, acted, bounds, curve, pods
from tests.terminal.test_progress import Gone, Terminal, Tick

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
TTY = {"TERM": "xterm-256color"}


def played(drill: Drill, screen: Screen) -> None:
    """The drill, shown event by event."""
    history = History()
    for record in drill.history:
        history.append(record)
        screen.on_event(record)
        screen.on_view(view(EXPERIMENT, history, record.at))


def test_a_pipe_gets_one_plain_line_per_notable_event() -> None:
    out = io.StringIO()
    with Screen(out, "text", TTY) as screen:
        played(Drill().ended(), screen)
    text = out.getvalue()
    assert not ESCAPE.search(text)
    assert "22:13:43  responder  ada (human) acknowledged the alert\n" in text
    assert "alert      HighQueueDepth is firing (evaluation of 22:13:40.000)\n" in text
    assert text.splitlines()[-1].endswith("ended      timeout: over")


def test_a_pipe_gets_a_sign_of_life_when_nothing_happens() -> None:
    out, tick = io.StringIO(), Tick()
    live = LineLive(Lines(out), tick)
    shown = view(EXPERIMENT, Drill().firing().history, BEGAN + 40)
    live.view(shown)
    assert out.getvalue() == ""
    tick.now += 15
    live.view(shown)
    live.view(shown)
    assert " ".join(out.getvalue().split())[9:] == (
        "now observing for 30 s, 1 min 30 s left; HighQueueDepth firing, paged; queue depth 140 jobs; "
        "2 of 5 pods ready, 3 OOM kills"
    )


def test_a_program_gets_every_event_as_the_journal_has_it() -> None:
    out, drill = io.StringIO(), Drill().ended()
    with Screen(out, "json", TTY) as screen:
        played(drill, screen)
        screen.outcome(
            run_id="r1", folder=Path("runs/r1"), summary="MET", exit_code=ExitCode.MET, phases={"drill": 1.0}
        )
    *events, last = out.getvalue().splitlines()
    assert [decode(line) for line in events] == list(drill.history)
    assert json.loads(last)["outcome"]["exit_meaning"] == "met"
    assert json.loads(last)["outcome"]["phases"] == {"drill": 1.0}


@pytest.mark.parametrize("columns", [80, 100])
def test_a_terminal_is_never_overrun(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setattr("harness.terminal.tty.columns", lambda _: columns)
    out = Terminal()
    drill = Drill().ended(clean=False)
    with Screen(out, "text", TTY) as screen:
        played(drill, screen)
    lines = [ESCAPE.sub("", line) for part in out.getvalue().splitlines() for line in part.split("\r")]
    assert max(map(len, lines)) <= columns
    text = "\n".join(lines)
    assert "dirty after 42 s" in text
    assert re.search(r"firing -> acknowledged +3\.0 s +5 s +MET", text)
    assert re.search(r"firing -> l2\.joined \* +22\.0 s +15 min +NOT REACHED", text)
    assert "limit: 256Mi -> 48Mi" in text


def test_running_clocks_and_losses_are_on_the_terminal() -> None:
    from harness.terminal.tty import panel

    drill = Drill().firing().add(24.0, ChannelChanged(channel="Prometheus", up=False, detail="refused\x1b[2J"))
    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, width=80)
    console.print(*panel(view(EXPERIMENT, drill.history, BEGAN + 30), 80))
    text = out.getvalue()
    assert re.search(r"firing -> acknowledged +10 s +5 s +late", text)
    assert re.search(r"firing -> recovered +10 s +1 min +running", text)
    assert "Prometheus for 6 s: refused" in text
    assert "nobody yet" in text
    assert "\x1b" not in text


def test_no_colour_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    out = Terminal()
    with Screen(out, "text", TTY) as screen:
        played(Drill().ended(clean=False), screen)
    assert not re.search(r"\x1b\[[0-9;]*(3[0-7]|9[0-7]|38)[0-9;]*m", out.getvalue())


@pytest.mark.parametrize(
    ("stream", "output", "env", "mode"),
    [
        (Terminal(), "text", TTY, Mode.TTY),
        (Terminal(), "json", TTY, Mode.JSON),
        (Terminal(), "text", {"TERM": "dumb"}, Mode.LINES),
        (Terminal(), "text", {}, Mode.LINES),
        (io.StringIO(), "text", TTY | {"FORCE_COLOR": "1"}, Mode.LINES),
    ],
)
def test_streams_are_told_apart_once(stream: io.StringIO, output: str, env: dict[str, str], mode: Mode) -> None:
    assert mode_of(stream, output, env) is mode


@pytest.mark.parametrize("mode", list(Mode))
def test_showing_a_run_never_raises(mode: Mode) -> None:
    live = live_for(Gone(), mode)
    drill = Drill().ended()
    for record in drill.history:
        live.event(record)
        live.view(view(EXPERIMENT, drill.history, record.at))
    live.close()


def test_an_ascii_stream_gets_what_it_can_show() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Lines(stream).write("5 µs")
    assert raw.getvalue() == b"5 ?s\n"


@pytest.mark.parametrize(
    "event",
    [PhaseTimed(phase="cluster", seconds=1.0), curve(1.0, [1.0])],
)
def test_what_only_judging_needs_is_not_told(event: Event) -> None:
    assert sentence(event) is None
    assert isinstance(event, PhaseTimed | SignalRead)


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (StopAsked(by="SIGINT"), ("stop", "SIGINT asks the run to end")),
        (ChannelChanged(channel="inbox", up=True), ("back", "inbox")),
        (
            UndoDone(fault="memory", outcome="refused", at=bounds(1, 2), detail="limit is 512Mi"),
            ("undo", "memory was not undone, because somebody else changed the object since: limit is 512Mi"),
        ),
        (acted("assessed", 1.0, text="P1"), ("responder", "ada (human) assessed the severity as P1")),
        (acted("joined", 1.0, role="l2"), ("responder", "ada (human) joined as l2")),
        (
            acted("acknowledged", 1.0, "automation", verified="claimed", counted=False, reason="too early"),
            ("responder", "ada (automation, identity claimed) acknowledged the alert (not counted: too early)"),
        ),
    ],
)
def test_sentences(event: Event, said: tuple[str, str]) -> None:
    assert sentence(event) == said


def test_a_service_account_is_named_shortly() -> None:
    told = sentence(acted("note", 1.0, "automation", actor="system:serviceaccount:drill-system:drill-autopilot"))
    assert told == ("responder", "drill-system/drill-autopilot (automation) noted")


def test_decisions_are_told_with_their_reason() -> None:
    event = Decided(intent="check_clean", why="compare the cluster with the snapshots")
    assert sentence(event) == ("decided", "check clean (compare the cluster with the snapshots)")


def test_a_text_with_braces_is_shown_as_it_is() -> None:
    told = sentence(acted("note", 1.0, text="{role} {x}"))
    assert told == ("responder", "ada (human) noted: {role} {x}")


def test_only_news_of_pods_is_told() -> None:
    teller = Teller()
    told = [teller.tell(Record(seq=i, at=BEGAN, event=pods(ready=r, killed=3))) for i, r in enumerate((2, 2, 5))]
    assert told == [("pods", "2 of 5 ready, 3 OOM kills"), None, ("pods", "5 of 5 ready, 3 OOM kills")]


def test_where_things_stand_before_anything_is_broken() -> None:
    shown = view(EXPERIMENT, Drill().planned().history, BEGAN + 7)
    assert standing(shown) == "watching the steady state for 7 s; HighQueueDepth inactive; queue depth no data"


def test_long_lines_wrap_under_their_own_text() -> None:
    text = layout("alert", "word " * 30, "09:15:00")
    assert {len(line) <= 80 for line in text.splitlines()} == {True}
    assert {line[:21] for line in text.splitlines()[1:]} == {" " * 21}


def test_the_last_words_name_report_time_and_exit_code(tmp_path: Path) -> None:
    (tmp_path / "report.html").touch()
    (tmp_path / "journal.jsonl").touch()
    text = outcome_text(tmp_path, "MISSED", ExitCode.MISSED, {"cluster": 4.12, "drill": 92.0}, 97.0)
    assert text.splitlines()[1:] == [
        "MISSED",
        "exit code 1 (missed)",
        "",
        f"report   {tmp_path / 'report.html'}",
        "beside   journal.jsonl",
        "",
        "wall time by phase",
        "  cluster           4.1 s",
        "  drill      1 min 32.0 s",
        "  total      1 min 37.0 s",
    ]


def test_a_summary_that_names_the_exit_code_is_not_repeated(tmp_path: Path) -> None:
    text = outcome_text(tmp_path, "MET\nexit code 0 (met); * = advisory", ExitCode.MET, {}, 1.0)
    assert text.count("exit code") == 1
    assert "wall time" not in text
