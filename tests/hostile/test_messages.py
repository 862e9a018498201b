"""Forged, replayed and monstrous messages, pages and silences: shown, or passed over, and never counted for another."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.clock import Bounds, utc
from harness.core.event import AlertTransition, Event, InjectDone, PageReceived, UndoDone
from harness.core.expressions import fits
from harness.core.history import History, entry
from harness.core.inbox import INBOX_LABEL, MAX_TEXT, message
from harness.core.inbox import read as read_message
from harness.core.milestone import milestones
from harness.engine import notes
from harness.engine.messages import sweep
from harness.engine.observe import InboxTracker, PagerRound
from harness.ports.cluster import Forbidden, WatchEvent
from harness.ports.metrics import Notification
from tests.fakes.cluster import FakeCluster
from tests.hostile.texts import NASTY, acting
from tests.report import journal as journals

NOW = 1795327200.0
ZERO = Bounds.at(0.0)


class Still:
    def now(self) -> float:
        return NOW + 60


def sent(uid: str, *, at: float = NOW + 30, **data: str) -> dict[str, Any]:
    body = message("nova-staging", actor="emma", action="acknowledged", text="mine")
    body["data"].update(data)
    body["metadata"].update({"uid": uid, "name": f"drill-acknowledged-{uid}", "creationTimestamp": utc(at)})
    return body


def tracker(since: float = NOW) -> InboxTracker:
    return InboxTracker(verified=True, offset=ZERO, since=since, clock=Still())


def test_a_message_is_heard_once_however_often_it_is_shown() -> None:
    heard = tracker()
    first = heard.update(WatchEvent("sync", (sent("a"),)))
    assert len(first) == 1
    for kind in ("added", "modified", "deleted", "sync"):
        assert heard.update(WatchEvent(kind, (sent("a"),))) == []


def test_a_message_made_anew_counts_from_its_own_time() -> None:
    """Deleted and created again, or copied: the API server stamps it anew, so it is never earlier than it was sent."""
    heard = tracker()
    (first,) = heard.update(WatchEvent("added", (sent("a", at=NOW + 10),)))
    (again,) = heard.update(WatchEvent("added", (sent("b", at=NOW + 50),)))
    assert again.at.earliest == first.at.earliest + 40  # type: ignore[union-attr]


def test_a_message_from_before_the_run_is_nobodys() -> None:
    assert tracker().update(WatchEvent("sync", (sent("a", at=NOW - 3600), sent("b", at=NOW - 2)))) == []


def test_a_stamp_in_the_future_is_no_later_than_it_was_seen() -> None:
    (act,) = tracker().update(WatchEvent("added", (sent("a", at=NOW + 10**6),)))
    assert act.at.latest <= NOW + 60  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "poison",
    [{"data": None}, {"data": []}, {"data": {"actor": 7, "action": "note"}}, {"metadata": {"uid": "x"}},
     {"metadata": {"uid": "x", "name": "n", "creationTimestamp": "never"}},
     {"data": {"action": ["note"], "actor": "a"}}],
)  # fmt: skip
def test_one_poisoned_message_keeps_no_other_from_being_heard(poison: dict[str, Any]) -> None:
    bad = {**sent("x"), **poison}
    bad["metadata"] = {"uid": "x", **bad["metadata"]}
    heard = tracker().update(WatchEvent("sync", (sent("a"), bad, sent("b"))))
    assert [act.key for act in heard] == ["a", "b"]  # type: ignore[union-attr]


def test_a_monstrous_message_is_cut_to_size_and_cannot_act() -> None:
    act = read_message(sent("a", text="x" * 2**20, actor="é" * 10**5), verified=False, offset=ZERO, seen_at=NOW + 60)
    assert act is not None
    assert len(act.text) == MAX_TEXT
    nasty = read_message(sent("a", text=NASTY, actor=NASTY), verified=False, offset=ZERO, seen_at=NOW + 60)
    assert nasty is not None
    assert not acting(nasty.text + nasty.actor)
    assert nasty.verified == "claimed"


@pytest.mark.parametrize("actor", ["\x00\x1b\u202e", "   ", "", "\u2066"])
def test_a_name_that_shows_nothing_is_no_name(actor: str) -> None:
    assert read_message(sent("a", actor=actor), verified=False, offset=ZERO, seen_at=NOW + 60) is None


def test_what_the_dead_left_is_swept_and_nothing_else() -> None:
    cluster = FakeCluster(lambda: NOW)
    cluster.create({"kind": "Namespace", "metadata": {"name": "nova-staging"}})
    for _ in range(3):
        cluster.create(message("nova-staging", actor="emma", action="note", text="old"))
    labels = {INBOX_LABEL: "true"}
    meta = {"name": "theirs", "namespace": "nova-staging", "labels": labels}
    cluster.create({"kind": "ConfigMap", "metadata": meta, "data": {"a": "b"}})
    assert sweep(cluster, "nova-staging") == 3
    assert [body["metadata"]["name"] for body in cluster.list("ConfigMap", "nova-staging")] == ["theirs"]
    assert sweep(cluster, "nova-staging") == 0


def test_what_may_still_be_heard_is_not_swept() -> None:
    cluster = FakeCluster(lambda: NOW)
    cluster.create({"kind": "Namespace", "metadata": {"name": "nova-staging"}})
    cluster.create(message("nova-staging", actor="emma", action="note", text="new"))
    assert sweep(cluster, "nova-staging", before=NOW - 60) == 0
    assert sweep(cluster, "nova-staging", before=NOW + 60) == 1


GOOD_NOTE = {
    "run_id": "r1", "fault": "memory", "by": "sweeper", "outcome": "restored", "detail": "", "clean": True,
    "differences": [], "at": NOW, "seconds": 1.0,
}  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(sorted(GOOD_NOTE)),
        st.sampled_from(
            [None, 7, -1.0, 1e300, float("nan"), float("inf"), "../x", "restored", "x", "", [], [1], {}, True]
        ),
        max_size=3,
    )
)
def test_any_note_is_read_or_nobodys_word(changes: dict[str, Any]) -> None:
    _reads_notes(json.dumps({**GOOD_NOTE, **changes}))


@pytest.mark.parametrize("text", ["[" * 50_000, "", "7", "null", '{"run_id":"r1"}', "1e999", "\x00", '{"at":' * 20_000])
def test_a_note_that_parsers_fall_over_is_nobodys_word(text: str) -> None:
    assert _reads_notes(text) == 0


def _reads_notes(text: str) -> int:
    cluster = FakeCluster(lambda: NOW)
    cluster.create({"kind": "Namespace", "metadata": {"name": "n"}})
    meta = {"name": "drill-recovered-x", "namespace": "n", "labels": {notes.LABEL: "true"}}
    cluster.create({"kind": "ConfigMap", "metadata": meta, "data": {"note": text}})
    found = notes.read(cluster, "n")
    for one in found:
        assert str(one)
        at = Bounds(earliest=one.at - one.seconds, latest=one.at)
        assert UndoDone(fault=one.fault, outcome=one.outcome, at=at)
    return len(found)


def test_what_cannot_be_swept_is_left() -> None:
    cluster = FakeCluster(lambda: NOW)
    cluster.create({"kind": "Namespace", "metadata": {"name": "nova-staging"}})
    for _ in range(2):
        cluster.create(message("nova-staging", actor="emma", action="note", text="old"))
    cluster.fail_next("delete", Forbidden("forbidden", "no", expected="a role", remedy="bind one"))
    assert sweep(cluster, "nova-staging") == 1


# Pages


class Repeating:
    """A pager that says everything again each time, with whatever numbers."""

    def __init__(self, *pages: Notification) -> None:
        self.pages = list(pages)

    def offset(self) -> Bounds:
        return ZERO

    def notifications(self, since: int) -> list[Notification]:
        del since
        return self.pages


def page(seq: int, received: float, status: str = "firing", began: float = NOW) -> Notification:
    labels = {"alertname": "HighQueueDepth"}
    return Notification(seq, received, "pager", status, labels, began, "f")  # type: ignore[arg-type]


def test_a_page_that_is_repeated_is_one_page() -> None:
    watcher = PagerRound(Repeating(page(1, NOW + 1), page(2, NOW + 2, "resolved")), ZERO, NOW)
    assert len(watcher.look(NOW + 3)[0]) == 2
    watcher.pager.pages = [page(9, NOW + 1), page(-3, NOW + 2, "resolved"), page(10, NOW + 30)]  # type: ignore[attr-defined]
    assert [event.at.middle for event in watcher.look(NOW + 31)[0]] == [NOW + 30]  # type: ignore[union-attr]


def test_a_page_of_an_earlier_run_is_nobodys() -> None:
    assert PagerRound(Repeating(page(1, NOW - 60)), ZERO, NOW).look(NOW)[0] == []


def of_a_run(*pages: PageReceived) -> History:
    history = History()
    fired = AlertTransition(
        alert="HighQueueDepth",
        to="firing",
        at=Bounds(earliest=NOW - 0.01, latest=NOW + 0.01),
        evaluation=NOW,
        source="s",
    )
    injected = InjectDone(fault="memory", outcome="done", at=Bounds.at(NOW - 30))
    events: tuple[Event, ...] = (journals.started(), injected, fired, *pages)
    for event in events:
        history.append(entry(history, event, NOW + 5))
    return history


def received(at: float, began: float) -> PageReceived:
    return PageReceived(
        alert="HighQueueDepth", status="firing", at=Bounds.at(at), starts_at=began, receiver="pager", source="pager"
    )


def test_an_old_page_that_is_sent_again_is_not_this_firings() -> None:
    """Whoever kept a notification of last week's drill and posts it to the pager pages nobody."""
    replayed, real = received(NOW + 0.5, NOW - 86400), received(NOW + 4, NOW)
    experiment = journals.experiment()
    assert "paged" not in milestones(experiment, of_a_run(replayed))
    assert milestones(experiment, of_a_run(replayed, real))["paged"].at.middle == NOW + 4


# Expressions of silences

HANGING = ["(a+)+$", "((.*)*)*!", "(a|a)*b", "(.|.)" * 40 + "b", "(a|a)" * 33 + "b", ".*" * 40 + "b", "(a?){40}a{40}",
           "(" * 30 + "a" + "|a)" * 30 + "b", "(.*a){25}", "a{1,99}" * 20 + "b", ".{0,9999}.{0,9999}.{0,9999}b",
           "(?:a|a)(?:a|a)" * 20 + "b", "(x|(a|a)(a|a)(a|a)(a|a)(a|a)(a|a)(a|a)(a|a)(a|a))" * 3 + "b"]  # fmt: skip


@pytest.mark.parametrize("pattern", HANGING)
@pytest.mark.parametrize("length", [20, 60, 253, 5000])
def test_no_expression_holds_the_harness(pattern: str, length: int) -> None:
    began = time.monotonic()
    fits(pattern, "a" * length)
    assert time.monotonic() - began < 2.0


@settings(max_examples=300, deadline=2000)
@given(st.text(st.sampled_from("ab|()*+?{}.,1 9[]^$\\"), max_size=60), st.integers(0, 300))
def test_any_expression_answers_soon(pattern: str, length: int) -> None:
    found = fits(pattern, "ab" * length)
    if found is not None:
        assert found == (re.fullmatch(pattern, "ab" * length) is not None)


@pytest.mark.parametrize(
    ("pattern", "value", "found"),
    [
        ("High.*", "HighQueueDepth", True),
        ("HighQueueDepth|Other", "Other", True),
        ("(High|Low)QueueDepth", "HighQueueDepth", True),
        ("node[0-9]+", "node12", True),
        ("worker-.*-[a-z]{5}", "worker-7c9d5b-abcde", True),
        ("x", "y", False),
        ("(", "x", None),
        ("(a)?b", "b", True),
        ("|".join(f"Alert{n}" for n in range(150)), "Alert7", True),
    ],
)
def test_usual_expressions_are_tried(pattern: str, value: str, found: bool | None) -> None:
    assert fits(pattern, value) is found
