"""The sync gateway: holds a WebSocket to each client, tells it what happens, and lets it resume where it was.

    GET /sync             with `Authorization: Bearer TOKEN` and the headers of a WebSocket: a snapshot, then events
    GET /sync?cursor=C    the same, but what happened since C instead of the snapshot; 410 when C is stale
    GET /metrics, GET /readyz

Messages are JSON. To the client: {"type": "snapshot", "cursor", "state"}, {"type": "welcome", "cursor"} and
{"type": "events", "cursor", "events"}. From it: {"type": "publish", "topic", "value"}, which comes back as an event.

A client has to be heard at least every HEARTBEAT_TIMEOUT_SECONDS, by a ping if it has nothing else to say; otherwise
its socket is closed. What it may miss and still resume is RETENTION_SECONDS of events (`staging.sync_log`). Both are
read once, at the start. Tokens are checked when a client connects, with the keys that the Secret holds at that moment.
"""

from __future__ import annotations

import json
import os
import select
import threading
import time
from collections import Counter
from http import HTTPStatus
from random import Random
from typing import TYPE_CHECKING, cast
from urllib.parse import parse_qs, urlsplit

from staging import websocket
from staging.keys import Door, in_cluster
from staging.metrics import Family, Point, Sample
from staging.service import log, setting, stop_on_signals
from staging.sync_log import Bell, Cursor, Feed, Log, Stale
from staging.sync_tokens import REASONS, Rejected, verify
from staging.web import Handler, Server
from staging.websocket import Code, Opcode, Violation, WebSocket

if TYPE_CHECKING:
    from collections.abc import Iterable
    from io import BufferedReader

REJECTS = {
    **dict.fromkeys(REASONS, "auth"),
    "stale_cursor": "cursor",
    "malformed_cursor": "cursor",
    "handshake": "protocol",
    "full": "capacity",
    "not_ready": "capacity",
}
"""Why a connection is refused, and the class of it."""
CLOSES = ("client", "gone", "timeout", "going_away", "stale_cursor", "protocol")
"""Why a socket ended: the client said so; it went without a word; was not heard in time, or did not take what was sent;
the gateway ends; fell below the floor while connected; broke the protocol."""
MOST_SOCKETS = 256
MOST_TOPIC, MOST_VALUE = 64, 1024
"""Characters."""
MOST_EVENTS = 128
"""In one message, which then is below what a client has to take."""
SEND_SECONDS = 5.0
CHANCE = Random()  # noqa: S311 - a spread, nothing secret
LEAVE_SECONDS = 1.0, 4.0
"""When clients are told to go, after the gateway was: not all at once, and not before the Service has forgotten it."""


class Gateway(Server):
    """The server. `timeout` is how long a client may be silent, in seconds."""

    def __init__(self, address: tuple[str, int], door: Door, feed: Feed, *, timeout: float) -> None:
        super().__init__(address, Requests)
        self.door = door
        self.feed = feed
        self.timeout_seconds = timeout
        self.draining = False
        self._lock = threading.Lock()
        self._sockets = 0
        # All series from the start: one that appears with its first count would hide that from `rate`.
        self._connects = Counter(dict.fromkeys(("resume", "snapshot"), 0))
        self._rejects = Counter(dict.fromkeys(REJECTS, 0))
        self._closes = Counter(dict.fromkeys(CLOSES, 0))

    def drain(self) -> None:
        """Send the clients away, within a few seconds, to whoever the Service names now."""
        self.draining = True
        self.feed.log.wake()

    def enter(self, how: str) -> bool:
        """Count a socket that opens; False, and nothing is counted, where there are too many."""
        with self._lock:
            if self._sockets >= MOST_SOCKETS:
                return False
            self._sockets += 1
            self._connects[how] += 1
        return True

    def closed(self, reason: str) -> None:
        """Count a socket that ended."""
        with self._lock:
            self._sockets -= 1
            self._closes[reason] += 1

    def rejected(self, reason: str) -> None:
        """Count a refusal."""
        with self._lock:
            first = self._rejects[reason] == 0
            self._rejects[reason] += 1
        if first:
            log("connection refused", reason=reason, note="further ones are counted, not logged")

    def figures(self) -> list[Family | Sample]:
        """Everything that Prometheus is told."""
        with self._lock:
            sockets, connects, rejects, closes = (
                self._sockets,
                dict(self._connects),
                dict(self._rejects),
                dict(self._closes),
            )
        events, keys = self.feed.log, self.door.keys
        found: list[Family | Sample] = [
            Sample("nova_sync_sockets", "gauge", "Clients that are connected.", sockets),
            Family(
                "nova_sync_connects_total",
                "counter",
                "Connections opened, by what the client got first: a snapshot, or what it had missed.",
                [Point(n, {"how": how}) for how, n in connects.items()],
            ),
            rejections(rejects),
            Family(
                "nova_sync_closes_total",
                "counter",
                "Connections that ended, by why.",
                [Point(n, {"reason": reason}) for reason, n in closes.items()],
            ),
            Sample("nova_sync_heartbeat_timeout_seconds", "gauge", "How long it may be silent.", self.timeout_seconds),
            Sample("nova_sync_retention_seconds", "gauge", "How long an event is kept.", events.retention),
            Sample("nova_sync_log_events", "gauge", "Events that can be had.", len(events)),
            Sample("nova_sync_log_reach_seconds", "gauge", "Age of the oldest event that can be had.", events.reach),
            Sample("nova_sync_log_up", "gauge", "1 when the log follows Redis, 0 when Redis is away.", self.feed.up),
            Sample("nova_sync_dropped_total", "counter", "Events that Redis did not take.", self.feed.dropped),
            Sample("nova_sync_signing_keys", "gauge", "Keys that tokens may be signed with.", len(keys.accepted)),
            Sample("nova_sync_malformed_keys", "gauge", "Values in the Secret that are no keys.", keys.malformed),
            Sample("nova_sync_key_read_failures_total", "counter", "Failed reads of the Secret.", self.door.failures),
            Sample("process_cpu_seconds_total", "counter", "CPU time of this process.", time.process_time()),
        ]
        if self.door.age is not None:
            found.append(Sample("nova_sync_keys_age_seconds", "gauge", "Since the Secret was read.", self.door.age))
        return found


def rejections(counts: dict[str, int]) -> Family:
    """The family that the alerts read; the issuer has a part in it."""
    return Family(
        "nova_sync_rejects_total",
        "counter",
        "Connections refused, and tokens, by class and reason.",
        [Point(n, {"class": REJECTS[reason], "reason": reason}) for reason, n in counts.items()],
    )


class Requests(Handler):
    """One connection: a request of HTTP, or a WebSocket for as long as it lives."""

    server: Gateway

    def get(self) -> None:
        """Metrics, readiness, or a client that wants to stay."""
        url = urlsplit(self.path)
        if url.path == "/metrics":
            self.expose(self.server.figures())
        elif url.path == "/readyz":
            ready = self.server.door.age is not None and bool(self.server.feed.log.epoch)
            self.answer(HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE, {"ready": ready})
        elif url.path == "/sync":
            self._sync(parse_qs(url.query).get("cursor", [""])[-1])
            self.close_connection = True
        else:
            self.answer(HTTPStatus.NOT_FOUND, {"error": "there are GET /sync, GET /metrics and GET /readyz"})

    def post(self) -> None:
        """Nothing."""
        self.close_connection = True
        self.answer(HTTPStatus.METHOD_NOT_ALLOWED, {"error": "there are GET /sync, GET /metrics and GET /readyz"})

    def _sync(self, shown: str) -> None:
        switch = websocket.upgrade(self.headers)
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if switch is None:
            self._reject(HTTPStatus.BAD_REQUEST, "handshake")
            return
        if not self.server.feed.log.epoch or self.server.door.age is None:
            self._reject(HTTPStatus.SERVICE_UNAVAILABLE, "not_ready")
            return
        try:
            verify(token.strip() if scheme.lower() == "bearer" else "", self.server.door.keys, time.time())
        except Rejected as error:
            self._reject(HTTPStatus.UNAUTHORIZED, error.reason)
            return
        try:
            first, cursor = self._first(shown)
        except Stale:
            self._reject(HTTPStatus.GONE, "stale_cursor")
            return
        except ValueError:
            self._reject(HTTPStatus.BAD_REQUEST, "malformed_cursor")
            return
        if not self.server.enter("resume" if shown else "snapshot"):
            self._reject(HTTPStatus.SERVICE_UNAVAILABLE, "full")
            return
        self.server.closed(self._serve(switch, first, cursor))

    def _first(self, shown: str) -> tuple[dict[str, object], Cursor]:
        """What the client is told first, and the cursor after that. Raises Stale, ValueError."""
        if not shown:
            cursor, state = self.server.feed.log.snapshot()
            return {"type": "snapshot", "cursor": str(cursor), "state": state}, cursor
        cursor = Cursor.parse(shown)
        # For its judgement only: what was missed is sent as everything else is.
        self.server.feed.log.since(cursor)
        return {"type": "welcome", "cursor": shown}, cursor

    def _reject(self, status: HTTPStatus, reason: str) -> None:
        self.server.rejected(reason)
        self.close_connection = True
        self.answer(status, {"type": "rejected", "reason": reason})

    def _serve(self, switch: bytes, first: dict[str, object], cursor: Cursor) -> str:
        """The life of a socket. Returns why it ended, one of CLOSES."""
        # What came behind the handshake was read with it.
        self.connection.settimeout(0)
        behind = cast("BufferedReader", self.rfile).peek()
        self.connection.settimeout(SEND_SECONDS)
        socket = WebSocket(self.connection, client=False, received=behind)
        bell = Bell()
        self.server.feed.log.listen(bell.ring)
        try:
            self.connection.sendall(switch)
            socket.send(Opcode.TEXT, json.dumps(first).encode())
            code, reason = Session(self.server, socket, bell, cursor).run()
        except TimeoutError:
            code, reason = Code.TIMEOUT, "timeout"
        except OSError:
            return "gone"
        except Violation as error:
            code, reason = error.code, "protocol"
        finally:
            self.server.feed.log.leave(bell.ring)
            bell.close()
        socket.close(code, reason)
        return reason


class Session:
    """A client that is connected. One thread does all of it: hears it, and sends it what it has not seen."""

    def __init__(self, gateway: Gateway, socket: WebSocket, bell: Bell, cursor: Cursor) -> None:
        self._gateway = gateway
        self._socket = socket
        self._bell = bell
        self._cursor = cursor
        self._leave_at: float | None = None

    def run(self) -> tuple[Code, str]:
        """Until it ends; with what to close, and why. Raises OSError, TimeoutError among it, and Violation."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._bell, select.POLLIN)
        silence = self._gateway.timeout_seconds
        heard = time.monotonic()
        while True:
            self._bell.silence()
            try:
                self._send()
            except Stale:
                return Code.STALE, "stale_cursor"
            now = time.monotonic()
            if self._gateway.draining and self._leave_at is None:
                self._leave_at = now + CHANCE.uniform(*LEAVE_SECONDS)
            leave_at = float("inf") if self._leave_at is None else self._leave_at
            wait = 0.0 if self._socket.pending else max(0.0, min(heard + silence, leave_at) - now)
            ready = {fd for fd, _ in poll.poll(wait * 1000)}
            # What has come counts before the time is looked at: a gateway that was held up must not blame its clients.
            if self._socket.pending or self._socket.fileno() in ready:
                heard = time.monotonic()
                if any(self._ends(message) for message in self._socket.receive()):
                    return Code.NORMAL, "client"
            now = time.monotonic()
            if now >= heard + silence:
                return Code.TIMEOUT, "timeout"
            if now >= leave_at:
                return Code.GOING_AWAY, "going_away"

    def _send(self) -> None:
        self._cursor, events = self._gateway.feed.log.since(self._cursor)
        for start in range(0, len(events), MOST_EVENTS):
            some = events[start : start + MOST_EVENTS]
            cursor = Cursor(self._cursor.epoch, some[-1].position)
            told = [{"topic": event.topic, "value": event.value} for event in some]
            body = {"type": "events", "cursor": str(cursor), "events": told}
            self._socket.send(Opcode.TEXT, json.dumps(body).encode())

    def _ends(self, message: websocket.Message) -> bool:
        """Do what the client says; whether it says that it goes."""
        if message.opcode is Opcode.PING:
            self._socket.send(Opcode.PONG, message.data)
        elif message.opcode is Opcode.TEXT:
            self._gateway.feed.publish(*published(message.data))
        return message.opcode is Opcode.CLOSE


def published(data: bytes) -> tuple[str, str]:
    """Topic and value of what a client publishes. Raises Violation."""
    try:
        body = json.loads(data)
        kind, topic, value = body["type"], body["topic"], body["value"]
    except (ValueError, KeyError, TypeError):
        kind = topic = value = None
    if kind != "publish" or not isinstance(topic, str) or not isinstance(value, str):
        raise Violation(Code.UNSUPPORTED, 'expected {"type": "publish", "topic": text, "value": text}')
    if not 0 < len(topic) <= MOST_TOPIC or len(value) > MOST_VALUE:
        raise Violation(Code.TOO_BIG, f"expected a topic of 1 to {MOST_TOPIC} and a value of up to {MOST_VALUE}")
    return topic, value


def positive(name: str, default: float) -> float:
    """A setting of ConfigMap sync. Ends the process with a sentence where it is not above 0."""
    found = setting(name, default)
    if not 0 < found < float("inf"):
        raise SystemExit(f"{name} is {found:g}; expected seconds above 0; correct ConfigMap sync")
    return found


def settle(waiting: Iterable[threading.Thread], seconds: float) -> None:
    """Let threads end, for `seconds` at most."""
    until = time.monotonic() + seconds
    for thread in waiting:
        thread.join(max(0.0, until - time.monotonic()))


def main() -> None:
    """Serve until SIGTERM; then send the clients away, and answer Prometheus until it has found the successor."""
    stop = stop_on_signals()
    timeout, retention = positive("HEARTBEAT_TIMEOUT_SECONDS", 6), positive("RETENTION_SECONDS", 300)
    door = Door(in_cluster(os.environ.get("KEYS_SECRET", "sync-signing-key")))
    feed = Feed(os.environ.get("REDIS_HOST", "redis"), Log(retention))
    gone = threading.Event()
    threads = feed.start(gone)
    server = Gateway(("", int(setting("PORT", 8080))), door, feed, timeout=timeout)
    server.start()
    log("sync gateway serves", port=server.server_address[1], timeout_seconds=timeout, retention_seconds=retention)
    every = setting("READ_SECONDS", 1)
    door.refresh()
    while not stop.wait(every):
        door.refresh()
    server.drain()
    # Those who still come are judged by the keys of the day as well. Nothing but SIGKILL ends this early.
    until, pause = time.monotonic() + setting("DRAIN_SECONDS", 35), threading.Event()
    while time.monotonic() < until:
        pause.wait(every)
        door.refresh()
    server.stop()
    gone.set()
    feed.finish()
    settle(threads, 2)
    log("sync gateway ends")


if __name__ == "__main__":
    main()
