"""Steady clients of the sync gateway: they connect, stay for some seconds, are away for some, and resume.

Each fetches a token from the issuer, opens a WebSocket with the cursor of the last event that it has seen, pings,
publishes now and then, and leaves, as a phone does that is put into a pocket. Where a cursor is stale it throws away
what it knows and takes a snapshot. Whoever is turned away comes back after a pause that doubles and is jittered;
whoever was connected and is cut off, after about a second.

Ready once every client was connected.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import select
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from staging import websocket
from staging.service import answer_probes, log, setting, stop_on_signals
from staging.websocket import Code, Message, Opcode, Refused, Violation, WebSocket

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 5.0
"""Seconds for each step of connecting, and for a pong."""
LONGEST_PAUSE = 8.0


@dataclass(frozen=True, slots=True)
class Pace:
    """What clients do, in seconds. Stays and absences are varied by a third, everything else by a half."""

    stay: float = 7.0
    away: float = 3.0
    ping: float = 2.0
    publish: float = 10.0
    cut_off: float = 1.0

    @property
    def cycle(self) -> float:
        """From one connection to the next."""
        return self.stay + self.away


class Tally:
    """What came of everything that was tried, over all clients."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._outcomes: Counter[str] = Counter()
        self._connected: set[str] = set()

    def count(self, outcome: str) -> None:
        """One more."""
        with self._lock:
            self._outcomes[outcome] += 1

    def connected(self, client: str, how: str) -> None:
        """A client got its first message."""
        with self._lock:
            self._outcomes[how] += 1
            self._connected.add(client)

    @property
    def outcomes(self) -> dict[str, int]:
        """Numbers by outcome."""
        with self._lock:
            return dict(self._outcomes)

    @property
    def clients(self) -> int:
        """How many clients were ever connected."""
        with self._lock:
            return len(self._connected)


class NoToken(Exception):
    """The issuer gave none."""


class Client:
    """One of them. `token` fetches a token and raises NoToken or OSError."""

    def __init__(
        self, name: str, gateway: tuple[str, int], token: Callable[[str], str], pace: Pace, seed: int, tally: Tally
    ) -> None:
        self.name = name
        self.cursor = ""
        self.state: dict[str, str] = {}
        self._gateway = gateway
        self._token = token
        self._pace = pace
        self._rng = random.Random(seed)  # noqa: S311 - repeatable on purpose, nothing secret
        self._tally = tally
        self._failures = 0

    def run(self, stop: threading.Event) -> None:
        """Come and go until `stop` is set."""
        # Spread over a cycle from the start, or all would come at once for ever.
        pause = self._rng.uniform(0, self._pace.cycle)
        while not stop.wait(pause):
            pause = self.visit(stop)

    def visit(self, stop: threading.Event) -> float:
        """Connect, and stay until something ends it. Returns how long to be away, in seconds."""
        try:
            socket = self._connect()
        except Refused as error:
            return self._turned_away(_reason(error))
        except NoToken:
            return self._turned_away("no_token")
        except (OSError, http.client.HTTPException, Violation) as error:
            return self._turned_away(type(error).__name__)
        try:
            outcome = self._stay(socket, stop)
        except (OSError, Violation) as error:
            outcome = type(error).__name__
        finally:
            socket.drop()
        self._tally.count(f"ended: {outcome}")
        return self._varied(self._pace.away, 1 / 3) if outcome == "left" else self._varied(self._pace.cut_off, 1 / 2)

    def _turned_away(self, reason: str) -> float:
        self._tally.count(f"refused: {reason}")
        if reason == "stale_cursor":
            # Nothing is wrong but what we know: the snapshot is fetched at once.
            self._forget()
            return self._rng.uniform(0, 0.2)
        self._failures += 1
        return self._varied(min(LONGEST_PAUSE, 2.0 ** (self._failures - 1)), 1 / 2)

    def _forget(self) -> None:
        """The next connection begins with a snapshot."""
        self.cursor, self.state = "", {}

    def _connect(self) -> WebSocket:
        token = self._token(self.name)
        path = f"/sync?cursor={self.cursor}" if self.cursor else "/sync"
        return websocket.connect(*self._gateway, path, {"Authorization": f"Bearer {token}"}, timeout=PATIENCE)

    def _stay(self, socket: WebSocket, stop: threading.Event) -> str:
        """Until the time has come or it is cut off. Returns why it ended. Raises OSError, Violation."""
        poll = select.poll()
        poll.register(socket, select.POLLIN)
        now = time.monotonic()
        leave_at = now + self._varied(self._pace.stay, 1 / 3)
        ping_at, publish_at = now, now + self._rng.uniform(0, self._pace.publish)
        asked: float | None = None
        while True:
            now = time.monotonic()
            if stop.is_set() or now >= leave_at:
                socket.close(Code.GOING_AWAY if stop.is_set() else Code.NORMAL)
                return "left"
            if asked is not None and now - asked > PATIENCE:
                socket.close(Code.TIMEOUT)
                return "no pong"
            if now >= ping_at:
                socket.send(Opcode.PING)
                asked, ping_at = asked or now, now + self._pace.ping
            if now >= publish_at:
                self._publish(socket)
                publish_at = now + self._varied(self._pace.publish, 1 / 2)
            wait = 0.0 if socket.pending else max(0.0, min(leave_at, ping_at, publish_at) - now)
            if socket.pending or poll.poll(wait * 1000):
                for message in socket.receive():
                    if message.opcode is Opcode.CLOSE:
                        if message.close_code == Code.STALE:
                            self._forget()
                        return f"closed with {message.close_code}"
                    if message.opcode is Opcode.PONG:
                        asked = None
                    self._hear(message)

    def _publish(self, socket: WebSocket) -> None:
        body = {"type": "publish", "topic": self.name, "value": f"at {self._rng.randrange(10**6)}"}
        socket.send(Opcode.TEXT, json.dumps(body).encode())

    def _hear(self, message: Message) -> None:
        if message.opcode is not Opcode.TEXT:
            return
        body = json.loads(message.data)
        self.cursor = body["cursor"]
        if body["type"] == "events":
            self.state |= {event["topic"]: event["value"] for event in body["events"]}
            return
        if body["type"] == "snapshot":
            self.state = body["state"]
        self._failures = 0
        self._tally.connected(self.name, body["type"])

    def _varied(self, seconds: float, by: float) -> float:
        return self._rng.uniform(1 - by, 1 + by) * seconds


def _reason(error: Refused) -> str:
    """What the gateway said, else the status."""
    try:
        return str(json.loads(error.body)["reason"])
    except (ValueError, KeyError, TypeError):
        return str(error.status)


def issued(host: str, port: int) -> Callable[[str], str]:
    """Asks that issuer for tokens, over a connection of its own each time, so that a new pod is found at once."""

    def token(client: str) -> str:
        connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
        try:
            headers = {"Connection": "close", "Content-Type": "application/json"}
            connection.request("POST", "/token", json.dumps({"client": client}), headers)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise NoToken
        return str(json.loads(body)["token"])

    return token


def main() -> None:
    """Come and go until SIGTERM."""
    stop = stop_on_signals()
    gateway, issuer = os.environ.get("GATEWAY_HOST", "sync-gateway"), os.environ.get("ISSUER_HOST", "sync-issuer")
    count, seed = int(setting("CLIENTS", 30)), int(setting("SEED", 915))
    pace = Pace(
        stay=setting("STAY_SECONDS", 7),
        away=setting("AWAY_SECONDS", 3),
        ping=setting("PING_SECONDS", 2),
        publish=setting("PUBLISH_SECONDS", 10),
    )
    tally = Tally()
    token = issued(issuer, 8080)
    clients = [
        Client(f"client-{number:02}", (gateway, 8080), token, pace, seed + number, tally) for number in range(count)
    ]
    answer_probes(int(setting("PORT", 8081)), lambda: tally.clients >= count)
    log("sync clients start", clients=count, seed=seed)
    threads = [threading.Thread(target=client.run, args=(stop,), daemon=True) for client in clients]
    for thread in threads:
        thread.start()
    wait = 10.0
    while not stop.wait(wait):
        log("sync clients", connected_once=tally.clients, **tally.outcomes)
        wait = 60.0
    until = time.monotonic() + 3
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    log("sync clients", connected_once=tally.clients, **tally.outcomes)


if __name__ == "__main__":
    main()
