"""The sync service on real sockets: who is let in, who is heard in time, who may resume, and what is counted."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websocket import WebSocketBadStatusException, create_connection

from staging import sync_gateway, sync_tokens, websocket
from staging.keys import Door, Keys
from staging.metrics import render
from staging.resp import Redis
from staging.sync_clients import LONGEST_PAUSE, Client, NoToken, Pace, Tally, issued
from staging.sync_gateway import CLOSES, MOST_EVENTS, MOST_TOPIC, MOST_VALUE, REJECTS, Gateway, published
from staging.sync_issuer import Issuer, key_of
from staging.sync_log import MARGIN, MOST_WAITING, START, STATE, STREAM, Cursor, Event, Feed, Log, Position, Stale
from staging.sync_tokens import REASONS, Rejected, sign, verify
from staging.web import Server
from staging.websocket import Code, Message, Opcode, Refused, Violation, WebSocket

ROOT = Path(__file__).parents[2]
KEY, OTHER = b"key-" + b"a" * 40, b"new-" + b"b" * 40
EPOCH = "0123456789abcdef"


# Tokens


def rejected(token: str, keys: Keys, now: float = 100.0) -> str:
    with pytest.raises(Rejected) as caught:
        verify(token, keys, now)
    assert caught.value.reason in REASONS
    return caught.value.reason


def test_a_token_says_who_until_it_expires() -> None:
    token = sign(KEY, "client-07", 160.0)
    assert verify(token, Keys((OTHER, KEY)), 159.9) == "client-07"
    assert rejected(token, Keys((KEY,)), 160.0) == "expired"


def test_the_class_of_a_refusal_tells_what_happened_to_the_key() -> None:
    token = sign(KEY, "client-07", 160.0)
    assert rejected(token, Keys((OTHER,))) == "bad_signature"  # rotated
    assert rejected(token, Keys((), revoked=(KEY,))) == "revoked_key"
    assert (
        rejected(token, Keys((OTHER,), revoked=(KEY,))) == "revoked_key"
    )  # a new one is there, the issuer has the old
    assert rejected(token, Keys((), malformed=1)) == "no_key"  # garbled
    assert rejected(token, Keys()) == "no_key"  # removed


def test_what_was_signed_cannot_be_changed() -> None:
    body, _, signature = sign(KEY, "client-07", 160.0).partition(".")
    longer, _, _ = sign(OTHER, "client-07", 10**9).partition(".")
    assert rejected(f"{longer}.{signature}", Keys((KEY,))) == "bad_signature"
    flipped = ("B" if signature[0] == "A" else "A") + signature[1:]
    assert rejected(f"{body}.{flipped}", Keys((KEY,))) == "bad_signature"


@pytest.mark.parametrize("token", ["", ".", "x", "a.b", "ü.ü", f"{'a' * 2000}.{'b' * 43}", f".{'a' * 43}"])
def test_what_is_no_token_is_malformed(token: str) -> None:
    assert rejected(token, Keys((KEY,))) == "malformed"


def test_a_signed_text_that_is_no_claim_is_malformed() -> None:
    for text in (b"[]", b"{}", b'{"sub": "x", "exp": "soon"}', b"\xff"):
        body = sync_tokens._encoded(text)
        signature = sync_tokens._encoded(sync_tokens._signature(KEY, body))
        assert rejected(f"{body}.{signature}", Keys((KEY,))) == "malformed"


# The log


def event(ms: int, topic: str = "a", value: str = "1", seq: int = 0) -> Event:
    return Event(Position(ms, seq), topic, value)


def at(ms: int, seq: int = 0) -> Cursor:
    return Cursor(EPOCH, Position(ms, seq))


class Now:
    """A clock to set, in seconds."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds


def test_a_cursor_gets_what_came_after_it() -> None:
    log = Log(300, Now())
    log.reset(EPOCH, [event(1000), event(1000, seq=1)], [], floor=START)
    log.extend([event(2000)])
    assert log.since(at(0)) == (at(2000), [event(1000), event(1000, seq=1), event(2000)])
    assert log.since(at(1000)) == (at(2000), [event(1000, seq=1), event(2000)])
    assert log.since(at(2000)) == (at(2000), [])
    assert log.since(at(9000)) == (at(9000), []), "seen at a gateway that was ahead of this one"


def test_below_the_floor_a_cursor_is_stale_and_on_it_it_is_not() -> None:
    now = Now(3.0)
    log = Log(10, now)
    log.reset(EPOCH, [event(1000), event(2000), event(3000)], [], floor=START)
    assert len(log.since(at(500))[1]) == 3, "nothing was dropped after it"
    now.seconds = 12.5
    with pytest.raises(Stale):
        log.since(at(1999))
    assert log.since(at(2000)) == (at(3000), [event(3000)]), "it has seen the last one that was dropped"
    assert (len(log), log.reach) == (1, 9.5)
    with pytest.raises(Stale):
        log.since(Cursor("f" * 16, Position(3000, 0)))


def test_after_all_was_dropped_only_those_who_saw_it_may_resume() -> None:
    now = Now(3.0)
    log = Log(1, now)
    log.reset(EPOCH, [event(1000), event(3000)], [], floor=START)
    now.seconds = 60.0
    assert log.since(at(3000)) == (at(3000), [])
    with pytest.raises(Stale):
        log.since(at(2999))
    assert log.reach == 0


def test_a_snapshot_has_the_last_value_of_every_topic_whatever_was_dropped() -> None:
    now = Now(3.0)
    log = Log(1, now)
    log.reset(EPOCH, [event(3000, "b", "new")], [event(900, "a", "old"), event(2900, "b", "older")], floor=START)
    log.extend([event(3001, "c", "last")])
    now.seconds = 60.0
    assert log.snapshot() == (at(3001), {"a": "old", "b": "new", "c": "last"})


def test_a_value_that_redis_kept_from_a_slower_writer_does_not_win() -> None:
    log = Log(300, Now())
    log.reset(EPOCH, [event(1000, "a", "first"), event(2000, "a", "second")], [event(1000, "a", "first")], floor=START)
    assert log.snapshot()[1] == {"a": "second"}


def test_whoever_listens_is_woken_until_it_leaves() -> None:
    log = Log(300, Now())
    calls: list[int] = []

    def wake() -> None:
        calls.append(1)

    log.listen(wake)
    log.extend([])
    assert calls == []
    log.extend([event(1)])
    log.reset(EPOCH, [], [], floor=START)
    log.leave(wake)
    log.extend([event(2)])
    assert len(calls) == 2


@pytest.mark.parametrize(
    "text", ["", "x", f"{EPOCH}.", f"{EPOCH}.1", f"{EPOCH}.1-", f"{EPOCH}.-1-0", "XYZ.1-0", f"{EPOCH}.1-0 "]
)
def test_what_is_no_cursor_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Cursor.parse(text)
    assert Cursor.parse(str(at(7, 3))) == at(7, 3)


# The log in Redis


def soon(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not within {seconds:g} s: {what}"
        time.sleep(0.01)


@contextmanager
def following(port: int, retention: float = 300) -> Iterator[Feed]:
    feed, stop = Feed("127.0.0.1", Log(retention), port=port), threading.Event()
    threads = feed.start(stop)
    try:
        soon(lambda: feed.up, "the log follows Redis")
        yield feed
    finally:
        stop.set()
        feed.finish()
        for thread in threads:
            thread.join()


def test_what_is_published_at_one_gateway_is_known_to_all_and_to_those_that_come_later(
    redis: Redis, redis_port: int
) -> None:
    with following(redis_port) as one, following(redis_port) as two:
        cursor, state = two.log.snapshot()
        assert state == {}
        one.publish("a", "grüße")
        one.publish("b", "2")
        soon(lambda: len(two.log) == 2, "both events")
        assert [(e.topic, e.value) for e in two.log.since(cursor)[1]] == [("a", "grüße"), ("b", "2")]
    with following(redis_port) as later:
        assert [e.topic for e in later.log.since(cursor)[1]] == ["a", "b"], "a restarted gateway makes no cursor stale"
        assert later.log.snapshot()[1] == {"a": "grüße", "b": "2"}


def test_a_gateway_that_starts_with_a_shorter_retention_has_a_higher_floor(redis: Redis, redis_port: int) -> None:
    with following(redis_port) as feed:
        cursor, _ = feed.log.snapshot()
        feed.publish("a", "1")
        soon(lambda: len(feed.log) == 1, "the event")
        seen, _ = feed.log.since(cursor)
    # Not a moment later than the event may be: a retention shorter than anything that took place since.
    with following(redis_port, retention=0.001) as shorter:
        with pytest.raises(Stale):
            shorter.log.since(cursor)
        assert shorter.log.since(seen) == (seen, [])
        assert shorter.log.snapshot()[1] == {"a": "1"}


def test_the_stream_is_cut_and_a_gateway_that_starts_on_it_knows(redis: Redis, redis_port: int) -> None:
    with following(redis_port) as feed:
        cursor, _ = feed.log.snapshot()
    old, young = int((time.time() - 20) * 1000), int(time.time() * 1000)
    redis.command("XADD", STREAM, f"{old}-0", "topic", "a", "value", "1")
    redis.command("XADD", STREAM, f"{young}-0", "topic", "a", "value", "2")
    assert MARGIN < 20
    with following(redis_port, retention=1):
        soon(lambda: redis.command("XLEN", STREAM) == 1, "the old event is cut off")
    with following(redis_port) as feed:
        with pytest.raises(Stale):
            feed.log.since(cursor)
        assert feed.log.since(Cursor(cursor.epoch, Position(young, 0)))[1] == []
    redis.command("XTRIM", STREAM, "MAXLEN", 0)
    with following(redis_port) as feed:
        assert feed.log.snapshot()[0] == Cursor(cursor.epoch, Position(young, 0))
        with pytest.raises(Stale):
            feed.log.since(cursor)


def test_when_redis_lost_its_memory_every_cursor_is_stale_once(redis: Redis, redis_port: int) -> None:
    with following(redis_port) as feed:
        feed.publish("a", "1")
        soon(lambda: len(feed.log) == 1, "the event")
        cursor, _ = feed.log.snapshot()
        redis.command("FLUSHALL")
        soon(lambda: feed.up and feed.log.epoch != cursor.epoch, "another epoch")
        with pytest.raises(Stale):
            feed.log.since(cursor)
        anew, state = feed.log.snapshot()
        assert state == {}
        feed.publish("a", "2")
        soon(lambda: len(feed.log) == 1, "the event of the new life")
        assert [e.value for e in feed.log.since(anew)[1]] == ["2"]


def test_while_redis_is_away_the_log_is_what_it_was_and_what_is_published_is_dropped() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    feed, stop = Feed("127.0.0.1", Log(300), port=port), threading.Event()
    feed.log.reset(EPOCH, [event(int(time.time() * 1000))], [], floor=START)
    threads = feed.start(stop)
    feed.publish("a", "1")
    soon(lambda: feed.dropped == 1, "it is dropped")
    assert not feed.up
    assert len(feed.log) == 1
    stop.set()
    feed.finish()
    for thread in threads:
        thread.join()


def test_more_than_can_wait_is_dropped() -> None:
    feed = Feed("127.0.0.1", Log(300))
    for _ in range(MOST_WAITING + 3):
        feed.publish("a", "1")
    assert feed.dropped == 3


def test_nothing_else_in_redis_is_touched(redis: Redis, redis_port: int) -> None:
    redis.command("SET", "nova:budget", "7")
    with following(redis_port) as feed:
        feed.publish("a", "1")
        soon(lambda: len(feed.log) == 1, "the event")
        soon(lambda: redis.command("HLEN", STATE) == 1, "its value")
    names = redis.command("KEYS", "*")
    assert isinstance(names, list)
    assert {str(name) for name in names} == {
        str(name) for name in (b"nova:budget", b"nova:sync", b"nova:sync:epoch", b"nova:sync:state")
    }


# The gateway


class Held:
    """A Secret in a variable."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys

    def read(self) -> Keys:
        return self.keys


@contextmanager
def served(server: Server) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Room:
    """A gateway on loopback with a log of its own. Its feed has no Redis: events are put in by hand."""

    def __init__(self, *, timeout: float = 5.0, retention: float = 300.0) -> None:
        self.secret = Held(Keys((KEY,)))
        self.door = Door(self.secret)
        self.door.refresh()
        self.now = Now(10.0)
        self.log = Log(retention, self.now)
        self.log.reset(EPOCH, [event(9000, "a", "1")], [], floor=START)
        self.feed = Feed("127.0.0.1", self.log)
        self.gateway = Gateway(("127.0.0.1", 0), self.door, self.feed, timeout=timeout)
        self.port = 0

    def connect(self, cursor: str = "", token: str | None = None) -> WebSocket:
        token = sign(KEY, "client-07", time.time() + 60) if token is None else token
        path = f"/sync?cursor={cursor}" if cursor else "/sync"
        return websocket.connect("127.0.0.1", self.port, path, {"authorization": f"Bearer {token}"}, timeout=5)

    def figure(self, line: str) -> float:
        (found,) = [text for text in render(self.gateway.figures()).splitlines() if text.startswith(f"{line} ")]
        return float(found.split()[-1])

    def rejects(self, reason: str) -> float:
        return self.figure(f'nova_sync_rejects_total{{class="{REJECTS[reason]}",reason="{reason}"}}')

    def closes(self, reason: str) -> float:
        return self.figure(f'nova_sync_closes_total{{reason="{reason}"}}')


@contextmanager
def room(**settings: float) -> Iterator[Room]:
    made = Room(**settings)
    with served(made.gateway) as port:
        made.port = port
        yield made


class Ear:
    """The messages of a socket, one by one."""

    def __init__(self, socket: WebSocket) -> None:
        self.socket = socket
        self.heard: list[Message] = []

    def next(self) -> Message:
        while not self.heard:
            self.heard += self.socket.receive()
        return self.heard.pop(0)

    def body(self) -> dict[str, object]:
        message = self.next()
        assert message.opcode is Opcode.TEXT
        found: dict[str, object] = json.loads(message.data)
        return found


def test_a_new_client_gets_a_snapshot_and_then_what_happens() -> None:
    with room() as here:
        ear = Ear(here.connect())
        assert ear.body() == {"type": "snapshot", "cursor": f"{EPOCH}.9000-0", "state": {"a": "1"}}
        here.log.extend([event(9500, "b", "2"), event(9501, "c", "3")])
        assert ear.body() == {
            "type": "events",
            "cursor": f"{EPOCH}.9501-0",
            "events": [{"topic": "b", "value": "2"}, {"topic": "c", "value": "3"}],
        }
        assert here.figure("nova_sync_sockets") == 1
        ear.socket.close(Code.NORMAL)
        soon(lambda: here.closes("client") == 1, "the end is counted")
        assert here.figure("nova_sync_sockets") == 0
        assert here.figure('nova_sync_connects_total{how="snapshot"}') == 1


def test_a_client_resumes_where_it_was() -> None:
    with room() as here:
        here.log.extend([event(9500, "b", "2")])
        ear = Ear(here.connect(f"{EPOCH}.9000-0"))
        assert ear.body() == {"type": "welcome", "cursor": f"{EPOCH}.9000-0"}
        assert ear.body()["events"] == [{"topic": "b", "value": "2"}]
        assert here.figure('nova_sync_connects_total{how="resume"}') == 1
        ear.socket.drop()


def test_the_longest_absence_comes_in_messages_that_a_client_takes() -> None:
    with room() as here:
        missed = [event(9001 + number, "ü" * MOST_TOPIC, "ü" * MOST_VALUE) for number in range(MOST_EVENTS + 1)]
        here.log.extend(missed)
        ear = Ear(here.connect(f"{EPOCH}.9000-0"))
        ear.body()
        first, second = ear.body(), ear.body()
        assert first["cursor"] == f"{EPOCH}.{9000 + MOST_EVENTS}-0"
        assert second["cursor"] == f"{EPOCH}.{9001 + MOST_EVENTS}-0"
        assert second["events"] == [{"topic": "ü" * MOST_TOPIC, "value": "ü" * MOST_VALUE}]
        ear.socket.drop()


def refusal(here: Room, **how: str) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        here.connect(**how)
    body = json.loads(caught.value.body)
    assert body["type"] == "rejected"
    return caught.value.status, body["reason"]


def test_below_the_floor_a_client_is_refused_and_a_snapshot_cures_it() -> None:
    with room(retention=5.0) as here:
        here.now.seconds = 20.0
        assert refusal(here, cursor=f"{EPOCH}.8000-0") == (410, "stale_cursor")
        assert refusal(here, cursor=f"{'f' * 16}.9000-0") == (410, "stale_cursor")
        assert here.rejects("stale_cursor") == 2
        ear = Ear(here.connect())
        cursor = str(ear.body()["cursor"])
        ear.socket.drop()
        Ear(here.connect(cursor)).socket.drop()
        assert here.rejects("stale_cursor") == 2


def test_who_falls_below_the_floor_while_connected_is_told_so() -> None:
    with room(retention=5.0) as here:
        ear = Ear(here.connect())
        ear.body()
        here.log.reset("f" * 16, [], [], floor=START)
        message = ear.next()
        assert (message.opcode, message.close_code) == (Opcode.CLOSE, Code.STALE)
        ear.socket.drop()
        soon(lambda: here.closes("stale_cursor") == 1, "the end is counted")
        assert here.rejects("stale_cursor") == 0


def test_refusals_by_class() -> None:
    with room() as here:
        old = sign(KEY, "client-07", time.time() + 60)
        assert refusal(here, token="") == (401, "malformed")
        assert refusal(here, token=sign(KEY, "x", time.time() - 1)) == (401, "expired")
        assert refusal(here, token=sign(OTHER, "x", time.time() + 60)) == (401, "bad_signature")
        here.secret.keys = Keys((OTHER,))
        here.door.refresh()
        assert refusal(here, token=old) == (401, "bad_signature")
        here.secret.keys = Keys((), revoked=(KEY,))
        here.door.refresh()
        assert refusal(here, token=old) == (401, "revoked_key")
        here.secret.keys = Keys()
        here.door.refresh()
        assert refusal(here, token=old) == (401, "no_key")
        here.secret.keys = Keys((KEY,))
        here.door.refresh()
        assert refusal(here, cursor="x") == (400, "malformed_cursor")
        assert {reason: here.rejects(reason) for reason in REJECTS if here.rejects(reason)} == {
            "malformed": 1,
            "expired": 1,
            "bad_signature": 2,
            "revoked_key": 1,
            "no_key": 1,
            "malformed_cursor": 1,
        }
        assert here.figure('nova_sync_connects_total{how="snapshot"}') == 0


def test_who_is_connected_stays_when_the_key_changes() -> None:
    with room() as here:
        ear = Ear(here.connect())
        ear.body()
        here.secret.keys = Keys((OTHER,))
        here.door.refresh()
        here.log.extend([event(9500)])
        assert ear.body()["type"] == "events"
        ear.socket.drop()


def test_who_is_silent_is_closed_and_who_pings_is_not() -> None:
    with room(timeout=1.5) as here:
        silent, loud = Ear(here.connect()), Ear(here.connect())
        silent.body()
        loud.body()
        until = time.monotonic() + 2.2
        while time.monotonic() < until:
            loud.socket.send(Opcode.PING, b"still here")
            assert loud.next() == Message(Opcode.PONG, b"still here")
            time.sleep(0.05)
        message = silent.next()
        assert (message.opcode, message.close_code, message.data[2:]) == (Opcode.CLOSE, Code.TIMEOUT, b"timeout")
        silent.socket.drop()
        loud.socket.drop()
        soon(lambda: here.figure("nova_sync_sockets") == 0, "both have gone")
        assert (here.closes("timeout"), here.closes("gone")) == (1, 1)


def test_events_do_not_count_as_hearing_the_client() -> None:
    with room(timeout=0.3) as here:
        ear = Ear(here.connect())
        ear.body()
        started = time.monotonic()
        for number in range(200):
            here.log.extend([event(9001 + number)])
            time.sleep(0.01)
            if here.closes("timeout"):
                break
        soon(lambda: here.closes("timeout") == 1, "the end is counted")
        assert time.monotonic() - started >= 0.25
        ear.socket.drop()


def test_what_a_client_publishes_is_written() -> None:
    with room() as here:
        ear = Ear(here.connect())
        ear.body()
        ear.socket.send(Opcode.TEXT, b'{"type": "publish", "topic": "t", "value": "v"}')
        soon(lambda: not here.feed._waiting.empty(), "it waits to be written")
        assert here.feed._waiting.get_nowait() == ("t", "v")
        ear.socket.drop()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"{", Code.UNSUPPORTED),
        (b"[]", Code.UNSUPPORTED),
        (b'"x"', Code.UNSUPPORTED),
        (b'{"type": "x"}', Code.UNSUPPORTED),
        (b'{"type": "publish", "topic": "", "value": ""}', Code.TOO_BIG),
        (json.dumps({"type": "publish", "topic": "t", "value": "v" * (MOST_VALUE + 1)}).encode(), Code.TOO_BIG),
        (b" " * (websocket.LONGEST_REQUEST + 1), Code.TOO_BIG),
    ],
)
def test_what_is_nothing_to_publish_ends_the_socket(data: bytes, code: Code) -> None:
    with pytest.raises(Violation):
        published(data)
    with room() as here:
        ear = Ear(here.connect())
        ear.body()
        ear.socket.send(Opcode.TEXT, data)
        assert ear.next().close_code == code
        ear.socket.drop()
        soon(lambda: here.closes("protocol") == 1, "the end is counted")


def test_bytes_that_come_with_the_handshake_are_heard() -> None:
    with room() as here, socket.create_connection(("127.0.0.1", here.port), timeout=5) as raw:
        token = sign(KEY, "x", time.time() + 60)
        head = (
            "GET /sync HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Authorization: Bearer {token}\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        raw.sendall(head.encode() + websocket.encode(Opcode.PING, b"early", mask=b"1234"))
        seen = b""
        while b"early" not in seen:
            data = raw.recv(4096)
            assert data, seen
            seen += data
        assert websocket.encode(Opcode.PONG, b"early", mask=None) in seen


def test_a_client_that_others_wrote_is_understood() -> None:
    with room() as here:
        token = sign(KEY, "x", time.time() + 60)
        theirs = create_connection(
            f"ws://127.0.0.1:{here.port}/sync", header=[f"Authorization: Bearer {token}"], timeout=5
        )
        assert json.loads(theirs.recv())["type"] == "snapshot"
        theirs.ping("7")
        assert theirs.recv_data(control_frame=True) == (Opcode.PONG, b"7")
        theirs.send(json.dumps({"type": "publish", "topic": "t", "value": "ü" * 1000}))
        soon(lambda: not here.feed._waiting.empty(), "it waits to be written")
        here.log.extend([event(9500 + number, "t", "ü" * 1000) for number in range(20)])
        assert json.loads(theirs.recv())["events"] == [{"topic": "t", "value": "ü" * 1000}] * 20
        theirs.close()
        soon(lambda: here.closes("client") == 1, "it said goodbye")
        with pytest.raises(WebSocketBadStatusException) as caught:
            create_connection(f"ws://127.0.0.1:{here.port}/sync", timeout=5)
        assert caught.value.status_code == 401


def test_a_gateway_that_ends_sends_its_clients_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_gateway, "LEAVE_SECONDS", (0.05, 0.2))
    with room() as here:
        ears = [Ear(here.connect()) for _ in range(3)]
        for ear in ears:
            ear.body()
        here.gateway.drain()
        late = Ear(here.connect())
        late.body()
        for ear in [*ears, late]:
            assert ear.next().close_code == Code.GOING_AWAY
            ear.socket.drop()
        soon(lambda: here.closes("going_away") == 4, "all ends are counted")


def test_there_is_an_end_to_how_many_may_be_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_gateway, "MOST_SOCKETS", 1)
    with room() as here:
        ear = Ear(here.connect())
        ear.body()
        assert refusal(here) == (503, "full")
        ear.socket.drop()


def ask(port: int, method: str, path: str, body: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, body, {"Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_a_gateway_is_ready_once_it_knows_its_keys_and_its_log() -> None:
    door = Door(Held(Keys((KEY,))))
    feed = Feed("127.0.0.1", Log(300))
    with served(Gateway(("127.0.0.1", 0), door, feed, timeout=5)) as port:
        token = sign(KEY, "x", time.time() + 60)

        def status() -> int:
            return ask(port, "GET", "/readyz")[0]

        assert status() == 503
        with pytest.raises(Refused) as caught:
            websocket.connect("127.0.0.1", port, "/sync", {"Authorization": f"Bearer {token}"}, timeout=5)
        assert json.loads(caught.value.body)["reason"] == "not_ready"
        door.refresh()
        assert status() == 503
        feed.log.reset(EPOCH, [], [], floor=START)
        assert status() == 200


def test_everything_is_exposed_from_the_start() -> None:
    with room() as here:
        status, text = ask(here.port, "GET", "/metrics")
        assert status == 200
        lines = text.splitlines()
        for reason in CLOSES:
            assert f'nova_sync_closes_total{{reason="{reason}"}} 0' in lines
        for reason, kind in REJECTS.items():
            assert f'nova_sync_rejects_total{{class="{kind}",reason="{reason}"}} 0' in lines
        assert "nova_sync_signing_keys 1" in lines
        assert "nova_sync_retention_seconds 300" in lines
        assert ask(here.port, "GET", "/sync")[0] == 400
        assert here.rejects("handshake") == 1
        assert ask(here.port, "GET", "/")[0] == 404
        assert ask(here.port, "POST", "/sync", "x")[0] == 405


@pytest.mark.parametrize("setting", ["HEARTBEAT_TIMEOUT_SECONDS", "RETENTION_SECONDS"])
@pytest.mark.parametrize("value", ["0", "-1", "soon", "inf", "nan"])
def test_a_setting_that_makes_no_sense_ends_the_gateway_with_a_sentence(setting: str, value: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "staging.sync_gateway"],
        env={"PATH": os.environ["PATH"], setting: value},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert setting in done.stderr
    assert "correct" in done.stderr
    assert "Traceback" not in done.stderr


# The issuer


def test_the_issuer_signs_with_the_key_that_it_was_started_with() -> None:
    issuer = Issuer(("127.0.0.1", 0), key_of(KEY.decode() + "\n"), seconds=60)
    with served(issuer) as port:
        token = issued("127.0.0.1", port)("client-07")
        assert verify(token, Keys((KEY,)), time.time()) == "client-07"
        assert rejected(token, Keys((OTHER,)), time.time()) == "bad_signature"
        lines = ask(port, "GET", "/metrics")[1].splitlines()
        assert "nova_sync_tokens_issued_total 1" in lines
        assert "nova_sync_signing_key_present 1" in lines
        assert 'nova_sync_rejects_total{class="auth",reason="no_key"} 0' in lines
        for body in ("{", "[]", '{"client": 7}', '{"client": "A b"}', '{"client": ""}'):
            assert ask(port, "POST", "/token", body)[0] == 400
        assert ask(port, "POST", "/else", "{}")[0] == 400


@pytest.mark.parametrize("text", ["", "short", "spoilt!" + "a" * 40, "a" * 129])
def test_without_a_key_that_is_one_nobody_gets_a_token_and_it_counts(text: str) -> None:
    with served(Issuer(("127.0.0.1", 0), key_of(text), seconds=60)) as port:
        with pytest.raises(NoToken):
            issued("127.0.0.1", port)("client-07")
        lines = ask(port, "GET", "/metrics")[1].splitlines()
        assert 'nova_sync_rejects_total{class="auth",reason="no_key"} 1' in lines
        assert "nova_sync_tokens_issued_total 0" in lines
        assert "nova_sync_signing_key_present 0" in lines


def test_no_key_and_no_token_is_shown_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    issuer = Issuer(("127.0.0.1", 0), KEY, seconds=60)
    with room() as here, served(issuer) as port:
        token = issued("127.0.0.1", port)("client-07")
        seen = [ask(at_port, "GET", path)[1] for at_port in (port, here.port) for path in ("/metrics", "/readyz")]
        here.secret.keys = Keys((OTHER,), revoked=(KEY,))
        here.door.refresh()
        with pytest.raises(Refused) as caught:
            here.connect(token=token)
        seen += [caught.value.body.decode(), *capsys.readouterr(), repr(here.door.keys)]
    for part in (KEY.decode(), OTHER.decode(), KEY.decode()[:8], token, token.split(".")[1]):
        assert not any(part in text for text in seen)


# The clients

QUICK = Pace(stay=0.9, away=0.1, ping=0.05, publish=0.1, cut_off=0.05)


def client(here: Room, *, pace: Pace = QUICK, key: bytes = KEY) -> Client:
    def token(name: str) -> str:
        return sign(key, name, time.time() + 60)

    return Client("client-07", ("127.0.0.1", here.port), token, pace, 915, Tally())


def outcomes(visitor: Client) -> dict[str, int]:
    return visitor._tally.outcomes


def test_a_client_resumes_with_what_it_saw_last() -> None:
    with room() as here:
        visitor = client(here)
        away = visitor.visit(threading.Event())
        assert 0.06 < away < 0.14
        assert visitor.cursor == f"{EPOCH}.9000-0"
        here.log.extend([event(9500, "b", "2")])
        visitor.visit(threading.Event())
        assert visitor.cursor == f"{EPOCH}.9500-0"
        assert visitor.state == {"a": "1", "b": "2"}
        assert outcomes(visitor) == {"snapshot": 1, "welcome": 1, "ended: left": 2}
        soon(lambda: here.closes("client") == 2, "both ends are counted")
        assert not here.feed._waiting.empty(), "it published something"


def test_a_client_with_a_stale_cursor_takes_a_snapshot_at_once() -> None:
    with room() as here:
        visitor = client(here)
        visitor.visit(threading.Event())
        here.log.reset("f" * 16, [event(9600, "z", "9")], [], floor=START)
        assert visitor.visit(threading.Event()) <= 0.2
        assert (visitor.cursor, visitor.state) == ("", {})
        visitor.visit(threading.Event())
        assert visitor.state == {"z": "9"}
        assert outcomes(visitor)["refused: stale_cursor"] == 1
        assert here.rejects("stale_cursor") == 1


def test_pauses_double_up_to_an_end_and_start_again_after_a_success() -> None:
    with room() as here:
        visitor = client(here, key=OTHER)
        pauses = [visitor.visit(threading.Event()) for _ in range(7)]
        for number, pause in enumerate(pauses):
            middle = min(LONGEST_PAUSE, 2.0**number)
            assert middle / 2 <= pause <= middle * 1.5
        assert outcomes(visitor) == {"refused: bad_signature": 7}
        visitor._token = lambda name: sign(KEY, name, time.time() + 60)
        visitor.visit(threading.Event())
        visitor._token = lambda name: sign(OTHER, name, time.time() + 60)
        assert visitor.visit(threading.Event()) <= 1.5


def test_a_heartbeat_timeout_below_the_ping_interval_cuts_clients_off_again_and_again() -> None:
    with room(timeout=0.15) as here:
        visitor = client(here, pace=Pace(stay=5, away=1, ping=0.6, publish=60, cut_off=0.05))
        for _ in range(3):
            assert visitor.visit(threading.Event()) <= 0.075
        assert outcomes(visitor)["ended: closed with 4408"] == 3
        soon(lambda: here.closes("timeout") == 3, "all ends are counted")


def test_a_client_whose_pings_are_not_answered_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("staging.sync_clients.PATIENCE", 1.0)
    monkeypatch.setattr(sync_gateway.Session, "_ends", lambda self, message: message.opcode is Opcode.CLOSE)
    with room() as here:
        visitor = client(here, pace=Pace(stay=5, away=1, ping=0.1, publish=60, cut_off=0.05))
        visitor.visit(threading.Event())
        assert outcomes(visitor)["ended: no pong"] == 1


def test_clients_that_are_stopped_say_so_and_leave_quickly() -> None:
    with room() as here:
        visitor = client(here, pace=Pace(stay=60, away=1, ping=0.1, publish=60))
        stop = threading.Event()
        thread = threading.Thread(target=visitor.visit, args=(stop,))
        thread.start()
        soon(lambda: here.figure("nova_sync_sockets") == 1, "it is connected")
        stop.set()
        thread.join(5)
        assert not thread.is_alive()
        soon(lambda: here.closes("client") == 1, "it said so")


def test_nobody_there_is_told_from_being_refused() -> None:
    with room() as here:
        pass  # the port is free again
    visitor = client(here)
    assert visitor.visit(threading.Event()) <= 1.5
    assert outcomes(visitor) == {"refused: ConnectionRefusedError": 1}


def test_the_processes_end_on_sigterm() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    environment = {"PATH": os.environ["PATH"], "PORT": port, "SYNC_SIGNING_KEY": KEY.decode(), "CLIENTS": "2"}
    for module, said in (("sync_issuer", '"key_present": true'), ("sync_clients", '"clients": 2')):
        with subprocess.Popen(
            [sys.executable, "-m", f"staging.{module}"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert said in process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            rest = process.communicate(timeout=10)[0]
            assert process.returncode == 0
            assert KEY.decode() not in rest
