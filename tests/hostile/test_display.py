"""What strangers wrote shows as text: in every report, on every terminal, in every answer of a command."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from markdown_it import MarkdownIt
from pydantic import BaseModel, ValidationError

from harness.cli.failures import Invocation, guarded
from harness.core.errors import Unreachable
from harness.core.event import Record, decode, encode
from harness.core.experiment import AnyExperiment
from harness.core.history import History
from harness.core.view import view
from harness.report.model import build
from harness.report.render import render
from harness.report.summary import summary
from harness.report.values import Report
from harness.report.wording import inert, inert_line
from harness.terminal.screen import Screen
from harness.terminal.stream import Lines
from tests.hostile.texts import ESCAPES, FORGED_LINE, MARKUP, NASTY, acting
from tests.report import journal as journals
from tests.terminal.test_progress import Terminal

KEPT = {"type", "run_id", "profile", "alert", "signal", "fault"}
"""Fields by which events hang together: they are validated names, or tie an event to its experiment."""
RICH = re.compile(r"\x1b\[(?:[0-9;]*m|\?25[lh]|[0-9]*[AK]|2K|H)|\r")
"""What the terminal's own display writes: colours, the cursor's visibility, a line up, a line erased."""


def leaves(value: Any, kept: set[str], at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if key not in kept:
                yield from leaves(inner, kept, (*at, key))
    elif isinstance(value, str):
        yield at


def poisoned(model: BaseModel, kept: set[str] = KEPT) -> Any:
    """`model` with what strangers write in every place that takes any text."""
    check = type(model).model_validate
    body = model.model_dump(mode="json", by_alias=True)
    for at in list(leaves(body, kept)):
        inside = body
        for key in at[:-1]:
            inside = inside[key]
        before, inside[at[-1]] = inside[at[-1]], NASTY
        try:
            check(body)
        except ValidationError:
            inside[at[-1]] = before
    return check(body)


def experiment() -> AnyExperiment:
    clean: AnyExperiment = journals.experiment()
    return poisoned(clean, {"query"})  # type: ignore[no-any-return]


def history(make: Callable[[], History]) -> History:
    made = History()
    for record in make():
        event = poisoned(record.event)
        if record.seq == 0:
            event = event.model_copy(update={"experiment": record.event.experiment})  # type: ignore[union-attr]
        made.append(Record(seq=record.seq, at=record.at, event=event))
    return made


def report(make: Callable[[], History], profile: str = "smoke") -> Report:
    return build(experiment().tuned(profile), history(make), "0" * 64)  # type: ignore[arg-type]


MADE = {
    "met": report(journals.oom_workers), "people": report(journals.support_readiness, "gameday"),
    "refused": report(journals.refused), "recovered": report(journals.recovered_later),
}  # fmt: skip
made = pytest.mark.parametrize("made", MADE.values(), ids=MADE)


def test_the_poison_is_everywhere() -> None:
    """A test of the tests: dozens of places take a stranger's text, among them those that matter most."""
    page = render(MADE["people"])["report.html"].decode()
    assert page.count("&lt;script&gt;") > 40
    held = {r.event.type for r in history(journals.oom_workers) if NASTY in set(leaves_of(r))}
    assert held >= {"responder.acted", "pods.seen", "undo.done", "check.done", "alerting.read", "page.received"}


def leaves_of(record: Record) -> Iterator[str]:
    body = record.model_dump(mode="json")
    for at in leaves(body, KEPT):
        value: Any = body
        for key in at:
            value = value[key]
        yield value


class Page(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@made
def test_no_stranger_makes_a_tag_or_a_link_in_the_page(made: Report) -> None:
    text = render(made)["report.html"].decode()
    page = Page(text)
    tags = {tag for tag, _ in page.tags}
    assert tags.isdisjoint({"script", "img", "iframe", "object", "embed", "form", "base", "link", "use", "image"})
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name in {"src", "style", "srcset"}]
        assert str(attributes.get("href", "#")).startswith("#"), "links lead into the page only, never out of it"
        assert tag != "meta" or "refresh" not in str(attributes.get("http-equiv", "")).lower()
    assert not acting(text)
    assert [a["http-equiv"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a] == [
        "Content-Security-Policy"
    ]


@made
def test_no_stranger_makes_markup_in_markdown(made: Report) -> None:
    text = render(made)["report.md"].decode()
    assert not acting(text)
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    assert "html_block" not in {token.type for token in tokens}
    spans = [span for token in tokens for span in token.children or []]
    tags = {span.content for span in spans if span.type == "html_inline"}
    assert all(re.fullmatch(r'<a id="e\d+">|</a>|<br>', tag) for tag in tags)
    assert not [span for span in spans if span.type == "image"]
    links = {str(span.attrs["href"]) for span in spans if span.type == "link_open"}
    assert all(re.fullmatch(r"journal\.jsonl#L\d+|#e\d+", link) for link in links)
    assert not [line for line in text.splitlines() if line.startswith(("clean after", "exit code"))]


@made
def test_no_stranger_makes_an_element_of_the_other_formats(made: Report) -> None:
    formats = render(made)
    root = ET.fromstring(formats["junit.xml"])  # noqa: S314 - our own document
    known = {
        "testsuites",
        "testsuite",
        "testcase",
        "properties",
        "property",
        "failure",
        "error",
        "skipped",
        "system-out",
    }
    assert {element.tag for element in root.iter()} <= known
    assert not acting(formats["junit.xml"].decode())
    json.loads(formats["report.json"])
    assert not acting(formats["report.json"].decode())
    assert not acting(summary(made))
    assert not [line for line in summary(made).splitlines() if line.startswith("clean after")]


def test_the_drawing_holds_only_shapes_and_text() -> None:
    text = render(MADE["met"])["report.html"].decode()
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert drawings
    for drawing in drawings:
        tags = {element.tag.rpartition("}")[2] for element in ET.fromstring(drawing).iter()}  # noqa: S314 - as above
        assert tags <= {"svg", "title", "desc", "line", "text", "rect", "path"}


def shown(stream: Any, output: str, make: Callable[[], History]) -> str:
    tuned, so_far = experiment().tuned("smoke"), History()
    with Screen(stream, output, {"TERM": "xterm-256color"}) as screen:
        screen.progress.say(NASTY)
        with screen.progress.step(NASTY) as step:
            step.update(NASTY, 0.5)
        for record in history(make):
            so_far.append(record)
            screen.on_event(record)
            screen.on_view(view(tuned, so_far, record.at))
    return str(stream.getvalue())


@pytest.mark.parametrize("make", [journals.oom_workers, journals.support_readiness, journals.recovered_later])
def test_no_stranger_reaches_the_terminal_of_a_run(
    make: Callable[[], History], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    lines = shown(io.StringIO(), "text", make)
    assert not acting(lines)
    assert not [line for line in lines.splitlines() if line.startswith(FORGED_LINE.splitlines()[1])]
    told = shown(io.StringIO(), "json", make)
    assert not acting(told)
    bodies = [json.loads(line) for line in told.splitlines()]
    assert [decode(json.dumps(body)) for body in bodies if "seq" in body] == list(history(make))
    drawn = shown(Terminal(), "text", make)
    assert not acting(RICH.sub("", drawn))


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_no_stranger_reaches_the_terminal_of_a_fleet(stream: Callable[[], io.StringIO]) -> None:
    out, told = stream(), io.StringIO()
    with Screen(out, "text", {"TERM": "xterm-256color"}) as screen, Screen(told, "json") as programs:
        for record in history(journals.oom_workers):
            screen.of("berlin", record)
            programs.of("berlin", record)
    shown = RICH.sub("", out.getvalue())
    assert "berlin: effect: " in shown
    assert not acting(shown)
    assert not acting(told.getvalue())
    bodies = [json.loads(line) for line in told.getvalue().splitlines()]
    assert {body.pop("target") for body in bodies} == {"berlin"}
    assert [decode(json.dumps(body)) for body in bodies] == list(history(journals.oom_workers))


def test_no_stranger_reaches_the_terminal_through_an_answer() -> None:
    for output in ("text", "json"):
        stream = io.StringIO()
        with Screen(stream, output) as screen:
            screen.answer(NASTY, {"plan": NASTY})
        assert not acting(stream.getvalue())
        if output == "json":
            assert json.loads(stream.getvalue()) == {"plan": NASTY}


@pytest.mark.parametrize("output", ["text", "json"])
@pytest.mark.parametrize(
    "error",
    [
        Unreachable(NASTY, NASTY, expected=NASTY, remedy=NASTY, where=NASTY),
        ValueError(NASTY),
        ValueError("\udcff\ud800"),
        RuntimeError(ESCAPES),
    ],
)
def test_no_stranger_reaches_the_terminal_through_an_error(
    error: Exception, output: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def act() -> None:
        raise error

    guarded(act, Invocation(output=output, runs=tmp_path))
    told = capsys.readouterr()
    assert told.err
    assert not acting(told.err + told.out)


def test_a_line_stays_one_line_and_keeps_its_indent() -> None:
    assert inert_line("    now   64Mi\nclean\x1b[2J") == "    now   64Mi clean\ufffd[2J"
    assert inert("a\n  b\x07\n") == "a\n  b\ufffd\n"
    assert not acting(inert(NASTY))


def test_a_journal_can_be_looked_at() -> None:
    """A journal's lines are JSON that acts on no terminal, and say what was said."""
    for record in history(journals.oom_workers):
        line = encode(record)
        assert not acting(line)
        assert "\n" not in line
        assert decode(line) == record


def test_lines_are_json_for_whoever_reads_them() -> None:
    stream = io.StringIO()
    Lines(stream).json({"a": MARKUP + ESCAPES, "b": "\U0001f383ü"})
    assert json.loads(stream.getvalue()) == {"a": MARKUP + ESCAPES, "b": "\U0001f383ü"}
    assert "ü" in stream.getvalue()


def test_a_runbook_is_never_a_link() -> None:
    url = "javascript:document.title='owned'"
    chain = replace(MADE["met"].chains[0], runbook_url=url)
    formats = render(replace(MADE["met"], chains=(chain,)))
    assert f"<code>{url.replace(chr(39), '&#39;')}</code>" in formats["report.html"].decode()
    assert '<a href="javascript' not in formats["report.html"].decode()
