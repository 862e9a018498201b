"""Messages from responders: what is sent, and what is believed of what arrives."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.clock import Bounds, parse_utc
from harness.core.event import Action, ResponderActed
from harness.core.inbox import INBOX_LABEL, MAX_TEXT, ROLE_ACTIONS, message, read

STAMP = "2026-11-22T09:15:00Z"
AT = parse_utc(STAMP)


def arrived(body: dict[str, Any], *, seen_at: float = AT + 5) -> ResponderActed | None:
    meta = body["metadata"] | {"name": "drill-1", "uid": "u1", "creationTimestamp": STAMP}
    return read(body | {"metadata": meta}, verified=True, offset=Bounds.at(0), seen_at=seen_at)


@pytest.mark.parametrize("action", get_args(Action))
def test_a_message_is_read_as_it_was_sent(action: Action) -> None:
    role = "l2" if action in ROLE_ACTIONS else ""
    body = message("ns", actor="alice", action=action, role=role, text="two\nlines")
    assert body["immutable"] is True
    assert body["metadata"]["labels"] == {INBOX_LABEL: "true"}
    act = arrived(body)
    assert act is not None
    assert (act.action, act.actor, act.actor_kind, act.role, act.text) == (action, "alice", "human", role, "two\nlines")
    assert act.at == Bounds(earliest=AT, latest=AT + 1)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"actor": ""}, "nobody's"), ({"action": "joined"}, "needs the role"), ({"role": "L 2"}, "not a role"),
        ({"text": "x" * (MAX_TEXT + 1)}, "at most"), ({"role": "x" * 41}, "not a role"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_message_is_not_sent(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        message("ns", **({"actor": "alice", "action": "note"} | fields))


def test_the_server_bounds_the_time_and_the_watch_bounds_it_from_above() -> None:
    body = message("ns", actor="alice", action="note")
    act = arrived(body, seen_at=AT + 0.25)
    assert act is not None
    assert act.at == Bounds(earliest=AT, latest=AT + 0.25)


def test_a_service_account_is_automation_whatever_it_claims() -> None:
    act = arrived(message("ns", actor="system:serviceaccount:drill-system:drill-autopilot", action="acknowledged"))
    assert act is not None
    assert act.actor_kind == "automation"


@pytest.mark.parametrize(
    "data",
    [None, {}, {"actor": "a"}, {"action": "note"}, {"actor": "a", "action": "dance"}, {"actor": "", "action": "note"},
     {"actor": "a", "action": "joined"}, {"actor": "a", "action": "joined", "role": "../x"}],
)  # fmt: skip
def test_what_is_no_message_is_none(data: dict[str, str] | None) -> None:
    assert arrived({"metadata": {}, "data": data}) is None


@given(st.text(max_size=60), st.text(min_size=1, max_size=60))
def test_what_others_wrote_cannot_steer_a_terminal(text: str, actor: str) -> None:
    act = arrived({"metadata": {}, "data": {"actor": f"a{actor}", "action": "note", "text": f"\x1b[2J{text}"}})
    assert act is not None
    assert not any(ch < " " and ch not in "\t\n" for ch in act.text)
    assert "\x1b" not in act.actor
