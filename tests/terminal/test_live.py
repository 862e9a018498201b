"""A run is told alike on a terminal, in a pipe and to a program; nothing is wider than its stream."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from harness.core.errors import ExitCode
from harness.core.event import (
    AlertSeen,
    ChannelChanged,
    CheckDone,
    Decided,
    EffectProved,
    Event,
    InjectDone,
    InjectionPlanned,
    InjectStarted,
    PhaseTimed,
    Record,
    RunEnded,
    SignalRead,
    StopAsked,
    UndoDone,
    UndoStarted,
    decode,
)
from harness.core.history import History
from harness.core.view import view
from harness.terminal.displays import live_for
from harness.terminal.live import LineLive, standing
from harness.terminal.screen import Screen, outcome_text
from harness.terminal.sentences import AUTOPILOT, Teller, sentence
from harness.terminal.stream import Lines, Mode, layout, mode_of
from harness.wiring import settings
from tests.terminal.drill_history import BEGAN, EXPERIMENT, Drill, acted, bounds, curve, pods, transition
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


def test_of_several_drills_only_what_matters_is_told_each_with_its_target() -> None:
    out = io.StringIO()
    with Screen(out, "text", TTY) as screen:
        for record in Drill().ended().history:
            screen.of("berlin", record)
            screen.of("oslo", record)
    lines = [line[8:].strip().split(": ") for line in out.getvalue().splitlines() if line[:1].isdigit()]
    topics = {target: [topic for whose, topic, *_ in lines if whose == target] for target in ("berlin", "oslo")}
    assert topics["berlin"] == topics["oslo"], "what was told of one is news of the other"
    assert {"alert", "ended"} <= {*topics["berlin"]}
    assert {"responder", "pods", "check"}.isdisjoint(topics["berlin"])


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
    assert told == ("responder", "autopilot (automation) noted")
    other = sentence(acted("note", 1.0, "automation", actor="system:serviceaccount:drill-system:other"))
    assert other == ("responder", "drill-system/other (automation) noted")
    assert sentence(acted("note", 1.0, actor=AUTOPILOT)) == ("responder", f"{AUTOPILOT} (human) noted")
    assert "/".join(settings.AUTOPILOT) == AUTOPILOT


def test_decisions_are_told_with_their_reason() -> None:
    event = Decided(intent="check_clean", why="compare the cluster with the snapshots")
    assert sentence(event) == ("decided", "check clean (compare the cluster with the snapshots)")


def test_a_text_with_braces_is_shown_as_it_is() -> None:
    told = sentence(acted("note", 1.0, text="{role} {x}"))
    assert told == ("responder", "ada (human) noted: {role} {x}")


def told_of(*events: tuple[float, Event]) -> list[list[tuple[str, str]]]:
    """What a teller says at each event, and at the end."""
    teller = Teller()
    told = [teller.tell(Record(seq=i, at=BEGAN + at, event=event)) for i, (at, event) in enumerate(events)]
    return [[(line.topic, line.text) for line in lines] for lines in [*told, teller.rest()]]


def test_only_news_of_pods_is_told() -> None:
    told = told_of(*((2.0 * i, pods(ready=r, killed=3)) for i, r in enumerate((2, 2, 2, 5))))
    assert told == [
        [], [("pods", "2 of 5 ready, 3 OOM kills")], [], [], [("pods", "5 of 5 ready, 3 OOM kills")]
    ]  # fmt: skip


def test_a_burst_of_changes_of_pods_is_one_line_with_its_last_state() -> None:
    told = told_of(*((0.3 * i, pods(ready=5 - i, killed=0)) for i in range(5)))
    assert told == [[], [], [], [], [("pods", "2 of 5 ready")], [("pods", "1 of 5 ready")]]


def test_what_is_held_back_of_pods_comes_before_what_it_led_to() -> None:
    effect = EffectProved(fault="memory", at=bounds(0, 1), proof="3 OOM kills", evidence=(0,))
    told = told_of((0.0, pods(ready=4, killed=0)), (0.1, pods(ready=2, killed=3)), (0.2, effect))
    assert told[2] == [("pods", "2 of 5 ready, 3 OOM kills"), ("effect", "memory is proved: 3 OOM kills")]
    assert told[3] == []


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_what_is_held_back_of_pods_is_shown_when_nothing_else_happens(stream: io.StringIO) -> None:
    live, drill = live_for(stream, mode_of(stream, "text", TTY)), Drill().injected().add(12.0, pods(ready=4, killed=0))
    for record in drill.history:
        live.event(record)
    live.view(view(EXPERIMENT, drill.history, BEGAN + 12.5))
    assert "4 of 5 ready" not in stream.getvalue()
    live.view(view(EXPERIMENT, drill.history, BEGAN + 13.0))
    assert "22:13:32  pods       4 of 5 ready" in ESCAPE.sub("", stream.getvalue())
    live.close()


def test_what_is_held_back_of_pods_is_shown_when_the_run_is_over() -> None:
    out = io.StringIO()
    live = LineLive(Lines(out))
    live.event(Record(seq=0, at=BEGAN, event=pods(ready=4, killed=0)))
    live.close()
    live.close()
    assert out.getvalue() == "22:13:20  pods       4 of 5 ready\n"


def test_nothing_is_said_twice() -> None:
    checked = "lower the limit; 5 pods; the server accepts it (dry run)"
    why = "complete: every clock has stopped"
    plan = InjectionPlanned(fault="memory", kind="memory-limit", summary="lower the limit", changes=(), undo={})
    told = told_of(
        (0.0, plan),
        (0.0, CheckDone(name="plan of memory", ok=True, fact=checked)),
        (1.0, InjectStarted(fault="memory")),
        (1.1, InjectDone(fault="memory", outcome="unknown", at=bounds(1, 1.1), detail="reset")),
        (2.0, UndoStarted(fault="memory")),
        (2.1, UndoDone(fault="memory", outcome="already", at=bounds(2, 2.1))),
        (3.0, Decided(intent="end complete", why=why)),
        (3.0, RunEnded(reason="complete", detail=why)),
    )
    assert [line for lines in told for line in lines] == [
        ("plan", "lower the limit"),
        ("check", "plan of memory: 5 pods; the server accepts it (dry run)"),
        ("inject", "memory was sent, its reply was lost: reset"),
        ("undo", "memory was undone already"),
        ("ended", why),
    ]


def test_the_reason_of_a_refusal_is_told_once() -> None:
    def ended(detail: str) -> tuple[str, str]:
        refused = CheckDone(name="no alert is active", ok=False, fact="Busy is firing", expected="e", remedy="r")
        (said,), (last,), _ = told_of((0.0, refused), (0.0, RunEnded(reason="refused", detail=detail)))
        assert said == ("refused", "no alert is active: Busy is firing")
        return last

    assert ended("Busy is firing") == ("ended", "refused: nothing was injected")
    assert ended("another run holds the lock") == ("ended", "refused: another run holds the lock")


FIRED = "(before the alert fired: it stops no clock)"


@pytest.mark.parametrize(
    ("before", "early"),
    [
        (None, True),
        (transition("pending", 1.0), True),
        (AlertSeen(alert="HighQueueDepth", state="pending", evaluated_at=None), True),
        (AlertSeen(alert="HighQueueDepth", state="firing", evaluated_at=None), False),
        (transition("firing", 1.0), False),
    ],
)
def test_an_acknowledgement_before_the_alert_is_told_as_such(before: Event | None, early: bool) -> None:
    seen = [] if before is None else [(1.0, before)]
    *_, (said,), _ = told_of(*seen, (2.0, acted("acknowledged", 2.0)))
    assert said == ("responder", "ada (human) acknowledged the alert" + (f" {FIRED}" if early else ""))


def test_a_run_says_first_what_it_is_about_to_break() -> None:
    def said(**cluster: str) -> str:
        started = Drill().history.start.model_copy(update={"cluster": cluster})
        told = sentence(started)
        assert told is not None
        return told[1]

    assert said(provider="local", name="drill", context="drill-local-drill", version="v1.34.4") == (
        "r1: oom-workers in nova-staging on local cluster drill (context drill-local-drill, v1.34.4), profile smoke, "
        "responder human"
    )
    assert "on cluster eu-1 (context eu-1, v1.33.0)" in said(
        provider="context", name="eu-1", context="eu-1", version="v1.33.0"
    )
    assert said() == "r1: oom-workers in nova-staging, profile smoke, responder human"


def test_a_pipe_keeps_names_whole_and_a_terminal_keeps_to_its_width() -> None:
    name = "configmap/drill-undo-20261122-062648-oom-workers-15ce-memory"
    text = f"the way back from memory is stored in {name} in nova-staging"
    assert name in layout("undo", text, "06:26:51").split()
    assert max(map(len, layout("undo", f"{text} {'x' * 200}", "06:26:51", whole_words=False).splitlines())) <= 80


def test_where_things_stand_before_anything_is_broken() -> None:
    shown = view(EXPERIMENT, Drill().planned().history, BEGAN + 7)
    assert standing(shown) == "watching the steady state for 7 s; HighQueueDepth inactive; queue depth not read yet"


def test_no_answer_yet_is_not_an_answer_without_data() -> None:
    drill = Drill().injected()
    assert "queue depth not read yet" in standing(view(EXPERIMENT, drill.history, BEGAN + 11))
    drill.add(12.0, curve(11.0, [None]))
    assert "queue depth no data" in standing(view(EXPERIMENT, drill.history, BEGAN + 12))


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
