"""Every format of a report: the same bytes twice, nothing from a stranger's text, nothing from outside."""

from __future__ import annotations

import json
import re
from dataclasses import replace
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
from harness.report.markdown import code, escape, paragraph
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
    tags = [span.content for span in spans if span.type == "html_inline"]
    anchors = [tag for tag in tags if re.fullmatch(r'<a id="e\d+">', tag)]
    assert set(tags) - set(anchors) == {"<br>", "</a>"}
    assert len(anchors) == len(set(anchors)) == tags.count("</a>")
    assert not [span for span in spans if span.type == "image"]
    links = [str(span.attrs["href"]) for span in spans if span.type == "link_open"]
    assert links
    assert all(re.fullmatch(r"journal\.jsonl#L\d+|#e\d+", link) for link in links)
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
def test_an_escaped_paragraph_begins_nothing_but_a_paragraph(text: str) -> None:
    for told in (text, *(f"{start}{text}" for start in ("- ", "+", "> ", "=", "1. ", "12) ", "# ", "---", "<b>", "_"))):
        tokens = MarkdownIt("commonmark").enable("table").parse(paragraph(told))
        assert [token.type for token in tokens] in (["paragraph_open", "inline", "paragraph_close"], [])
        seen = "".join(child.content for token in tokens for child in token.children or []).replace("\u2060", "")
        assert seen.split() == clean(told).replace("\u2060", "").split()


@pytest.mark.parametrize(
    "text",
    ["environment=staging", "2.42.0+ds", "root_cause.declared", "64Mi -> 128Mi", "a__b", "x < 20, x <= 3", "R&D", "{a}",
     "wait!", "drill-1.2"],
)  # fmt: skip
def test_what_cannot_act_is_not_escaped(text: str) -> None:
    assert escape(text) == text


@pytest.mark.parametrize(
    ("text", "escaped"),
    [("_a_", "\\_a\\_"), ("a*b", "a\\*b"), ("a|b", "a\\|b"), ("<b>", "&lt;b>"), ("&amp;", "&amp;amp;"),
     ("a <", "a &lt;"), ("[x](y)", "\\[x\\](y)")],
)  # fmt: skip
def test_what_can_act_is_escaped(text: str, escaped: str) -> None:
    assert escape(text) == escaped


@pytest.mark.parametrize("made", [*map(report, RUNS), hostile()], ids=[*RUNS, "hostile"])
def test_every_citation_of_the_markdown_leads_to_its_event(made: Report) -> None:
    text = render(made)["report.md"].decode()
    cited = set(re.findall(r"\[(e\d+)\]\(#\1\)", text))
    anchors = re.findall(r'\| <a id="(e\d+)"></a>\[\1\]\(journal\.jsonl#L\d+\)', text)
    assert cited
    assert cited <= set(anchors)
    assert anchors == [f"e{event.seq}" for event in made.evidence]


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
        "report_version", "header", "headline", "slas", "alerts", "guards", "chains", "timeline", "chart",
        "incident_charts", "changes", "clean", "findings", "checks", "clocks", "phases", "evidence",
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


def table(made: Report) -> list[str]:
    return [line for line in summary(made).splitlines() if " -> " in line or " fires" in line]


def test_the_summary_tells_the_first_alert_once() -> None:
    sla = {"from": "memory.effective", "to": "firing", "within": "3m", "name": "Fault to Alert"}
    made = build(journals.experiment(slas=[sla]).tuned("smoke"), journals.oom_workers())
    assert [line[:30].rstrip() for line in table(made)[1:]] == ["memory.effective -> firing"]  # required, as the alert
    for content in render(made).values():
        assert b"Fault to Alert" in content or b"memory.effective to HighQueueDepth.firing" in content
    other = build(journals.experiment(slas=[{**sla, "within": "2m"}]).tuned("smoke"), journals.oom_workers())
    labels = [line[:30].rstrip() for line in table(other)[1:]]
    assert labels == ["memory.effective -> firing *", "HighQueueDepth fires"]


def test_a_label_too_long_for_the_summary_is_told_whole() -> None:
    made = report("oom_workers")
    names = ["a-role-with-quite-a-long-name.joined", "a-role-with-quite-a-long-name.paged"]
    rows = tuple(replace(made.slas[0], to=name) for name in names)
    guards = tuple(replace(made.guards[0], name=f"{'the spend of the month ' * 2}{n} stays") for n in (1, 2))
    text = summary(replace(made, slas=rows, guards=guards))
    assert all(f"\nfiring -> {name}\n" in text for name in names)
    assert all(f"\nmust hold: {guard.name}\n" in text for guard in guards)
    assert max(map(len, text.splitlines())) <= COLUMNS
    assert "…" not in text


def stopped() -> Report:
    """A run that was stopped with Ctrl-C before anybody had answered."""
    writer = journals.Writer()
    journals.preflight(writer)
    journals.injected(writer)
    journals.paged(writer)
    for name in ("mitigated", "recovered"):
        writer.add(10, journals.signal(name, ((float(t), 95.0) for t in range(10)), step=1.0))
    writer.add(10, RunEnded(reason="stopped", detail="stopped: SIGINT asked for it"))
    return build(journals.experiment().tuned("smoke"), writer.history)


def test_what_a_run_that_was_cut_short_did_not_reach_is_not_judged() -> None:
    made = stopped()
    note = "The run was cut short: targets it did not reach say nothing of the people, and are not judged."
    formats = render(made)
    for text in (summary(made), formats["report.md"].decode(), formats["report.html"].decode()):
        assert " ".join(text.split()).count(note) == 1
        assert text.count("not judged") >= 7
        assert "NOT REACHED" not in text
    assert text.count("firing → mitigated") == 0
    (told,) = [finding for finding in made.findings if finding.rule == "cut-short"]
    assert told.title == "The run was cut short: 7 targets could not be judged"
    assert "→" not in told.detail
    assert {row["verdict"] for row in as_data(made)["slas"]} == {"NOT REACHED"}  # the data keeps the word
    assert "not judged" not in summary(report("oom_workers"))
    assert "not judged" not in summary(unanswered())
    going = journals.Writer()
    going.add(0, journals.started())
    assert "The run has not ended: targets" in summary(build(journals.experiment().tuned("smoke"), going.history))


def test_what_a_run_whose_fault_was_never_proved_did_not_reach_is_not_judged() -> None:
    writer = journals.Writer()
    journals.preflight(writer)
    journals.paged(writer)
    writer.add(600, RunEnded(reason="timeout", detail="timeout: the run's 600 s are over"))
    made = build(journals.experiment().tuned("smoke"), writer.history)
    assert "The run never proved its fault: targets it did not reach" in summary(made)
    assert "NOT REACHED" not in summary(made)
    assert outcome(made, "firing to acknowledged") == "error"
    assert made.headline.verdict == "UNDECIDED"


def test_findings_are_counted_in_words() -> None:
    made = report("oom_workers")
    note = made.findings[0]
    grave = replace(note, severity="critical")
    for found, said in (((note,), "1 note"), ((grave, grave, note, note), "2 critical, 2 notes")):
        assert f"findings: {said}</a>" in render(replace(made, findings=found))["report.html"].decode()


def test_the_axis_of_ready_pods_names_the_wanted_count() -> None:
    writer = journals.Writer()
    journals.preflight(writer)
    journals.injected(writer)
    before = journals.pods(5)
    more = tuple(pod.model_copy(update={"uid": f"new-{pod.uid}", "ready": False}) for pod in before.pods[:3])
    writer.add(5, before.model_copy(update={"pods": before.pods + more}))  # a rollout adds pods for a while
    made = build(journals.experiment().tuned("smoke"), writer.history)
    assert made.chart is not None
    assert made.chart.wanted == 5
    svg = draw(made.chart, 1040)
    assert ">ready pods, 5 wanted<" in svg
    assert re.findall(r'<text class="tick"[^>]*text-anchor="end">(\d+)<', svg)[-2:] == ["0", "5"]


def test_no_two_lines_of_the_chart_look_alike() -> None:
    style = render(report("oom_workers"))["report.html"].decode()
    for name in ("ready", "met", "curve", "firing"):
        assert len(set(re.findall(rf"--{name}: (#\w+);", style))) == 2  # one for light, one for dark
    for theme in (0, 1):
        colours = [re.findall(rf"--{name}: (#\w+);", style)[theme] for name in ("ready", "met", "curve", "firing")]
        assert len(set(colours)) == len(colours)


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
