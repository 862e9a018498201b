"""Every format of a report: the same bytes twice, nothing from a stranger's text, nothing from outside."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from harness.core.event import ChannelChanged, RunEnded
from harness.core.history import History
from harness.report.jsonform import as_data
from harness.report.markdown import code, escape
from harness.report.model import build
from harness.report.render import render, write
from harness.report.summary import COLUMNS, summary
from harness.report.svg import CHARACTER, ROW, Scale, draw, place, ticks, time_label, time_ticks
from harness.report.values import Marker, Report
from harness.report.wording import clean
from tests.report import journal as journals

RUNS = {
    "oom_workers": ("smoke", journals.oom_workers),
    "support_readiness": ("gameday", journals.support_readiness),
    "refused": ("smoke", journals.refused),
    "recovered_later": ("smoke", journals.recovered_later),
}
NASTY = (
    'a|b`c``<script>alert("x")</script>\n| row | [l](https://e.invalid) ![i](x) @team #1 &amp; \x1b[31m\x00\u202e\ufffe'
)


def report(name: str) -> Report:
    profile, make = RUNS[name]
    return build(journals.experiment().tuned("smoke" if profile == "smoke" else "gameday"), make())


def hostile() -> Report:
    """A run in which everything that strangers can name or write is hostile."""
    writer = journals.Writer()
    journals.preflight(writer, "human", "gameday")
    journals.injected(writer)
    journals.paged(writer)
    state = journals.pods(0, 1).pods[0].model_copy(update={"name": NASTY, "uid": "other"})
    writer.add(2, journals.pods(0, 1).model_copy(update={"pods": (state,)}))
    writer.add(3, journals.act("acknowledged", 3, NASTY, actor=NASTY, kind="human", verified="claimed"))
    writer.add(4, journals.act("root_cause", 4, NASTY, actor=NASTY, kind="human"))
    writer.add(5, ChannelChanged(channel=NASTY, up=False, detail=NASTY))
    experiment = journals.experiment(title=NASTY, narrative=NASTY, signal={"query": "q", "title": NASTY, "unit": NASTY})
    return build(experiment.tuned("gameday"), writer.history)


class Page(HTMLParser):
    """Collects tags, attributes and visible text; complains of tags that do not nest."""

    VOID = frozenset({"meta", "br", "line", "rect", "path"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.mark.parametrize("name", RUNS)
def test_the_same_journal_gives_the_same_bytes(name: str) -> None:
    first, second = render(report(name)), render(report(name))
    assert first == second
    assert list(first) == ["report.md", "report.html", "report.json", "junit.xml"]


@pytest.mark.parametrize("name", RUNS)
def test_no_path_of_the_machine_is_told(name: str) -> None:
    for content in render(report(name)).values():
        assert b"/somewhere/private" not in content


@pytest.mark.parametrize("made", [*map(report, RUNS), hostile()], ids=[*RUNS, "hostile"])
def test_the_page_needs_nothing_and_runs_nothing(made: Report) -> None:
    page = Page(render(made)["report.html"].decode())
    names = {tag for tag, _ in page.tags}
    assert names.isdisjoint({"script", "link", "img", "iframe", "object", "embed", "form", "base", "use", "image"})
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name in {"src", "srcset", "style"}]
        href = attributes.get("href")
        assert href is None or href.removeprefix("#") in ids, href
    policies = [
        a["content"]
        for tag, a in page.tags
        if tag == "meta" and "content-security" in str(a.get("http-equiv", "")).lower()
    ]
    assert len(policies) == 1
    assert str(policies[0]).startswith("default-src 'none'; style-src 'sha256-")
    assert "url(" not in render(made)["report.html"].decode()


def test_hostile_text_shows_as_text_in_the_page() -> None:
    made = hostile()
    shown = "".join(Page(render(made)["report.html"].decode()).text)
    assert '<script>alert("x")</script>' in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_hostile_text_shows_as_text_in_markdown() -> None:
    text = render(hostile())["report.md"].decode()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", text)
    spans = [c for token in MarkdownIt("commonmark").enable("table").parse(text) for c in token.children or []]
    assert {span.content for span in spans if span.type == "html_inline"} == {"<br>"}
    assert not [span for span in spans if span.type == "image"]
    links = [str(span.attrs["href"]) for span in spans if span.type == "link_open"]
    assert links
    assert all(re.fullmatch(r"journal\.jsonl#L\d+", link) for link in links)
    shown = "".join(span.content for span in spans if span.type in {"text", "text_special", "code_inline"})
    assert '<script>alert("x")</script>' in shown.replace("\u2060", "")


@pytest.mark.parametrize("made", [*map(report, RUNS), hostile()], ids=[*RUNS, "hostile"])
def test_every_table_of_the_markdown_keeps_its_columns(made: Report) -> None:
    tokens = MarkdownIt("commonmark").enable("table").parse(render(made)["report.md"].decode())
    tables = [t for t in tokens if t.type == "table_open"]
    assert len(tables) >= 4
    lines = render(made)["report.md"].decode().split("\n")
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| ---")]
    parsed = sum(t.type == "tr_open" for t in tokens)
    assert len(rows) == parsed  # no row was broken in two, and none was swallowed
    for above, below in pairwise(rows):
        if lines[lines.index(above) + 1] == below:
            assert len(re.findall(r"(?<!\\)\|", above)) == len(re.findall(r"(?<!\\)\|", below))


@given(st.text())
def test_escaped_markdown_is_one_plain_paragraph(text: str) -> None:
    inline = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parseInline(f"x {escape(text)} x")
    children = inline[0].children or []
    assert {child.type for child in children} <= {"text", "text_special"}
    seen = "".join(child.content for child in children).replace("\u2060", "")
    assert " ".join(seen.split()) == " ".join(f"x {clean(text)} x".replace("\u2060", "").split())


@given(st.text())
def test_a_code_span_holds_exactly_its_text(text: str) -> None:
    children = MarkdownIt("commonmark").parseInline(f"x {code(text)} x")[0].children or []
    assert [child.type for child in children] == ["text", "code_inline", "text"]
    assert children[1].content.strip() == (clean(text).replace("|", "\\|") or " ").strip()


@given(st.text())
def test_clean_text_is_one_harmless_line(text: str) -> None:
    cleaned = clean(text)
    assert "\n" not in cleaned
    assert clean(cleaned) == cleaned
    ET.fromstring(f"<a>{cleaned.replace('&', '').replace('<', '').replace('>', '')}</a>")  # noqa: S314 (our own text)


def junit(made: Report) -> ET.Element:
    return ET.fromstring(render(made)["junit.xml"])  # noqa: S314 (our own text)


@pytest.mark.parametrize("made", [*map(report, RUNS), hostile()], ids=[*RUNS, "hostile"])
def test_junit_counts_what_it_holds(made: Report) -> None:
    root = junit(made)
    suites = root.findall("testsuite")
    assert [root.tag, len(suites)] == ["testsuites", 1]
    cases = suites[0].findall("testcase")
    assert len(cases) == len(made.slas) + len(made.alerts) + len(made.guards)
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert (
            int(suites[0].get(attribute, ""))
            == len(suites[0].findall(f"testcase/{tag}"))
            == int(root.get(attribute, ""))
        )
    assert len({(case.get("classname"), case.get("name")) for case in cases}) == len(cases)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suites[0].get("timestamp", ""))
    order = [child.tag for child in suites[0]]
    assert order == ["properties", *["testcase"] * len(cases), "system-out"]


def outcome(made: Report, part: str) -> str:
    case = next(case for case in junit(made).iter("testcase") if part in case.get("name", ""))
    return next((child.tag for child in case if child.tag != "properties"), "passed")


def test_junit_outcomes() -> None:
    record = report("support_readiness")
    assert outcome(record, "firing to mitigated") == "failure"
    assert outcome(record, "firing to recovered") == "passed"
    assert outcome(report("refused"), "must hold") == "error"
    made = unanswered()
    assert outcome(made, "firing to acknowledged") == "failure"
    assert outcome(made, "firing to assessed") == "skipped"
    assert outcome(report("recovered_later"), "firing to acknowledged") == "error"


def test_junit_properties_hold_the_measured_seconds() -> None:
    case = next(
        c for c in junit(report("oom_workers")).iter("testcase") if "firing to acknowledged" in c.get("name", "")
    )
    values = {p.get("name"): p.get("value") for p in case.iter("property")}
    assert values["measured_earliest_seconds"] == "1.996"
    assert values["measured_latest_seconds"] == "2.604"
    assert values["who"] == "AUTOMATION, not a person, verified by admission policy"
    assert case.get("time") == "2.300"


@pytest.mark.parametrize("name", RUNS)
def test_json_is_strict_and_its_keys_are_those_documented(name: str) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    data = json.loads(render(report(name))["report.json"], parse_constant=refuse)
    assert list(data) == [
        "report_version", "header", "headline", "slas", "alerts", "guards", "chains", "timeline", "chart", "changes",
        "clean", "findings", "checks", "clocks", "phases", "evidence",
    ]  # fmt: skip
    assert list(data["slas"][0]) == [
        "name", "from", "to", "target", "measured", "verdict", "required", "who", "who_text", "reason", "evidence",
        "cut_short",
    ]  # fmt: skip
    known = {event["seq"] for event in data["evidence"]}
    cited = {
        seq
        for part in ("slas", "alerts", "timeline", "findings", "changes")
        for row in data[part]
        for seq in row["evidence"]
    }
    assert cited <= known


def unanswered() -> Report:
    """A run that nobody answered until its time was over."""
    writer = journals.Writer()
    journals.preflight(writer)
    journals.injected(writer)
    journals.paged(writer)
    writer.add(600, RunEnded(reason="timeout", detail="the run's 600 s are over"))
    return build(journals.experiment().tuned("smoke"), writer.history)


def test_what_has_no_end_is_null_in_json() -> None:
    rows = {row["to"]: row for row in as_data(unanswered())["slas"]}
    assert rows["acknowledged"]["measured"] == {"earliest": pytest.approx(600, abs=0.01), "latest": None}


@pytest.mark.parametrize("made", [*map(report, RUNS), hostile()], ids=[*RUNS, "hostile"])
def test_the_summary_fits_a_terminal(made: Report) -> None:
    text = summary(made)
    assert max(map(len, text.splitlines())) <= COLUMNS
    assert "\x1b" not in text
    assert made.headline.verdict in text.splitlines()[0]


@pytest.mark.parametrize("name", RUNS)
def test_automation_is_never_shown_as_a_person(name: str) -> None:
    made = report(name)
    for row in made.slas:
        if row.who == "automation":
            assert "AUTOMATION" in row.who_text
    for moment in made.timeline:
        if moment.who == "automation":
            assert moment.who_text.startswith("AUTOMATION, not a person")
    if name == "oom_workers":
        assert all("human" not in row.who_text for row in made.slas)
        formats = render(made)
        for key in ("report.md", "report.html", "junit.xml", "report.json"):
            assert formats[key].count(b"AUTOMATION") >= 8
        assert made.headline.caveat.startswith("The responder was AUTOMATION")
        assert summary(made).count("AUTOMATION") == 6


def test_writing_leaves_whole_files_and_nothing_else(tmp_path: Path) -> None:
    made = report("oom_workers")
    (tmp_path / "report.md").write_text("old")
    written = write(made, tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(written)
    assert {path.name: path.read_bytes() for path in written} == render(made)


MARKERS = st.lists(
    st.tuples(st.floats(0, 100), st.text("abc.", min_size=1, max_size=30), st.sampled_from(["human", "automation"])),
    max_size=25,
)


@given(MARKERS)
def test_labels_neither_overlap_nor_are_crossed(raw: list[tuple[float, str, str]]) -> None:
    markers = [Marker(at, label, "automation" if who == "automation" else "human") for at, label, who in raw]
    labels = place(markers, Scale(0, 100, 44, 900))
    assert sorted(label.marker.at for label in labels) == sorted(marker.at for marker in markers)
    for one, other in combinations(labels, 2):
        if one.row == other.row:
            assert one.x + one.width <= other.x or other.x + other.width <= one.x
        for label, line in ((one, other), (other, one)):
            inside = label.x < line.x < label.x + label.width
            assert not (inside and line.row >= label.row)


@pytest.mark.parametrize("width", [400, 1040])
@pytest.mark.parametrize("name", ["oom_workers", "support_readiness", "recovered_later"])
def test_every_label_of_a_drawing_lies_inside_it(name: str, width: int) -> None:
    made = report(name)
    assert made.chart is not None
    svg = draw(made.chart, width)
    root = ET.fromstring(svg)  # noqa: S314 (our own text)
    assert root.get("role") == "img"
    space = "{http://www.w3.org/2000/svg}"
    assert "milestones" in (root.findtext(f"{space}title") or "")
    boxes = []
    for text in root.iter(f"{space}text"):
        if (text.get("class") or "").startswith("label"):
            x, y = float(text.get("x", "")), float(text.get("y", ""))
            boxes.append((x, y, x + len(text.text or "") * CHARACTER))
    assert boxes
    assert all(x >= 0 and right <= width and y > 0 for x, y, right in boxes)
    for one, other in combinations(boxes, 2):
        assert abs(one[1] - other[1]) >= ROW - 0.2 or one[2] <= other[0] or other[2] <= one[0]


def test_that_it_was_automation_is_never_cut_from_a_label() -> None:
    labels = place([Marker(1, "a-role-with-a-very-long-name.joined", "automation")], Scale(0, 2, 0, 100), 24)
    assert labels[0].text == "a-role-wit… (automation)"


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 12))
def test_ticks_cover_their_domain(low: float, length: float, wanted: int) -> None:
    marks = ticks(low, low + length, wanted)
    assert marks[0] <= low + length * 1e-6
    assert marks[-1] >= low + length * (1 - 1e-6)
    assert len(marks) <= wanted + 3
    times = time_ticks(low, low + length, wanted)
    slack = 1e-6 * length
    assert all(low - slack <= time <= low + length + slack for time in times)


def test_time_labels() -> None:
    shown = [time_label(seconds) for seconds in (0, 30, -30, 60, 90, 3600, 5400)]
    assert shown == ["0", "30 s", "−30 s", "1 min", "1:30 min", "1:00 h", "1:30 h"]


def test_a_gap_breaks_the_curve() -> None:
    writer = journals.Writer()
    journals.preflight(writer)
    journals.injected(writer)
    points = [(float(t), None if -20 < t < -10 else 5.0) for t in range(-50, 0)]
    writer.add(0, journals.signal("curve", points, step=1.0))
    writer.add(30, journals.signal("curve", [(float(t), 9.0) for t in range(20, 30)], step=1.0))
    made = build(journals.experiment().tuned("smoke"), writer.history)
    assert made.chart is not None
    assert draw(made.chart, 1040).count('class="curve"') == 3


def test_without_anything_to_draw_there_is_no_chart() -> None:
    made = report("refused")
    assert made.chart is None
    assert b"Nothing to draw" in render(made)["report.html"]
    assert b"Nothing to draw" in render(made)["report.md"]


def test_pods_without_samples_are_still_drawn() -> None:
    writer = journals.Writer()
    journals.preflight(writer)
    journals.injected(writer)
    made = build(journals.experiment().tuned("smoke"), writer.history)
    assert made.chart is not None
    assert "no samples were recorded" in draw(made.chart, 1040)
    assert b"No samples were recorded" in render(made)["report.md"]


def test_a_journal_of_one_event_can_be_reported() -> None:
    writer = journals.Writer()
    writer.add(0, journals.started())
    made = build(journals.experiment().tuned("smoke"), writer.history)
    assert made.headline.sentence.startswith("The run has not ended")
    assert set(render(made)) == {"report.md", "report.html", "report.json", "junit.xml"}


def test_a_history_is_not_changed_by_reporting_it() -> None:
    history: History = journals.oom_workers()
    before = len(history)
    build(journals.experiment().tuned("smoke"), history)
    assert len(history) == before
