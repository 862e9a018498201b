"""What happened, in order, and how far back: the log that clients of the sync service resume from.

The log is one Redis stream, so that all gateways and those that are started later know the same events. Each gateway
holds a copy of its last RETENTION_SECONDS and answers from that. A client says with its cursor which event it saw
last. While nothing later has been dropped it gets the rest; below that, below the retention floor, it would miss events
without knowing, so its cursor is stale and it has to take a snapshot.

    nova:sync         the stream; one event an entry, with topic and value
    nova:sync:state   the last value of each topic, with the entry's id: what a snapshot is made of
    nova:sync:epoch   made with the stream; a cursor of another epoch is from before Redis lost its memory
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import secrets
import threading
import time
from collections import deque
from itertools import dropwhile
from typing import TYPE_CHECKING, NamedTuple, cast

from staging.resp import Redis, Reply, ReplyError
from staging.service import log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

STREAM, STATE, EPOCH = "nova:sync", "nova:sync:state", "nova:sync:epoch"
MARGIN = 10.0
"""Seconds that the stream keeps beyond the retention, for a gateway that reads it late."""
MOST_WAITING = 256
"""Events that wait to be written; more are dropped and counted."""
BLOCK_MS = 500


class Position(NamedTuple):
    """The id of a stream entry: ms since 1970 by Redis' clock, and a number within that."""

    ms: int
    seq: int

    @classmethod
    def parse(cls, text: str) -> Position:
        """Raises ValueError."""
        match = re.fullmatch(r"(\d{1,19})-(\d{1,19})", text, re.ASCII)
        if match is None:
            raise ValueError("expected MS-SEQ")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"


START = Position(0, 0)


class Cursor(NamedTuple):
    """The last event that a client has seen, in which life of the stream."""

    epoch: str
    position: Position

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Raises ValueError."""
        epoch, _, position = text.partition(".")
        if not re.fullmatch(r"[0-9a-f]{8,32}", epoch):
            raise ValueError("expected EPOCH.MS-SEQ")
        return cls(epoch, Position.parse(position))

    def __str__(self) -> str:
        return f"{self.epoch}.{self.position}"


class Event(NamedTuple):
    """One entry."""

    position: Position
    topic: str
    value: str


class Stale(Exception):
    """Something after the cursor has been dropped."""


class Log:
    """A gateway's copy. Safe for use by several threads. `retention` in seconds, `clock` in seconds since 1970.

    `wake` of each listener is called after every change, and has to be quick.
    """

    def __init__(self, retention: float, clock: Callable[[], float] = time.time) -> None:
        self.retention = retention
        self._clock = clock
        self._lock = threading.Lock()
        self._events: deque[Event] = deque()
        self._state: dict[str, tuple[Position, str]] = {}
        self._epoch = ""
        self._floor = START
        self._last = START
        self._listeners: set[Callable[[], object]] = set()

    def reset(self, epoch: str, events: Iterable[Event], state: Iterable[Event], *, floor: Position) -> None:
        """Begin anew with what Redis holds; up to `floor` events may be missing."""
        with self._lock:
            self._epoch, self._floor, self._last = epoch, floor, floor
            self._events.clear()
            self._state.clear()
            self._take(state, keep=False)
            self._take(events, keep=True)
        self.wake()

    def extend(self, events: Sequence[Event]) -> None:
        """Append what has happened."""
        with self._lock:
            self._take(events, keep=True)
        if events:
            self.wake()

    def _take(self, events: Iterable[Event], *, keep: bool) -> None:
        for event in events:
            if self._state.get(event.topic, (START, ""))[0] <= event.position:
                self._state[event.topic] = event.position, event.value
            if keep:
                self._events.append(event)
                self._last = max(self._last, event.position)
        self._drop()

    def _drop(self) -> None:
        oldest = (self._clock() - self.retention) * 1000
        while self._events and self._events[0].position.ms < oldest:
            self._floor = self._events.popleft().position

    def since(self, cursor: Cursor) -> tuple[Cursor, list[Event]]:
        """What happened after `cursor`, and the cursor after that. Raises Stale."""
        with self._lock:
            self._drop()
            if cursor.epoch != self._epoch or cursor.position < self._floor:
                raise Stale
            if cursor.position >= self._last:
                return cursor, []
            events = list(dropwhile(lambda event: event.position <= cursor.position, self._events))
            return Cursor(self._epoch, self._last), events

    def snapshot(self) -> tuple[Cursor, dict[str, str]]:
        """The last value of each topic, and the cursor that goes with it."""
        with self._lock:
            return Cursor(self._epoch, self._last), {topic: value for topic, (_, value) in sorted(self._state.items())}

    @property
    def epoch(self) -> str:
        """Empty before the first reset."""
        return self._epoch

    @property
    def last(self) -> Position:
        """The latest event known."""
        return self._last

    @property
    def reach(self) -> float:
        """Seconds since the oldest event that can still be had."""
        with self._lock:
            self._drop()
            return max(0.0, self._clock() - self._events[0].position.ms / 1000) if self._events else 0.0

    def __len__(self) -> int:
        return len(self._events)

    def listen(self, wake: Callable[[], object]) -> None:
        """Call `wake` after every change from now on."""
        with self._lock:
            self._listeners.add(wake)

    def leave(self, wake: Callable[[], object]) -> None:
        """No longer."""
        with self._lock:
            self._listeners.discard(wake)

    def wake(self) -> None:
        """Call all who listen."""
        with self._lock:
            for each in self._listeners:
                each()


class Bell:
    """Something for poll to see when it was rung, from any thread."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """For poll."""
        return self._fd

    def ring(self) -> None:
        """Ring."""
        os.eventfd_write(self._fd, 1)

    def silence(self) -> None:
        """Until it is rung again."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._fd)

    def close(self) -> None:
        """Only once nobody rings it any more."""
        os.close(self._fd)


class Feed:
    """Keeps a Log like the stream, drops what is too old in the stream, and writes what clients publish.

    While Redis is away the log stays as it is: who resumes gets what is known, and what is published meanwhile is
    dropped and counted.
    """

    def __init__(self, host: str, log_: Log, *, port: int = 6379) -> None:
        self.log = log_
        self.up = False
        self.dropped = 0
        self._reader = Redis(host, port)
        self._writer = Redis(host, port, timeout=2)
        self._waiting: queue.Queue[tuple[str, str] | None] = queue.Queue(MOST_WAITING)
        self._counting = threading.Lock()
        self._trimmed = 0.0

    def start(self, stop: threading.Event) -> list[threading.Thread]:
        """Read and write, in two threads, until `stop` is set and `finish` was called."""
        threads = [
            threading.Thread(target=self._read, args=(stop,), name="feed", daemon=True),
            threading.Thread(target=self._write, name="publish", daemon=True),
        ]
        for thread in threads:
            thread.start()
        return threads

    def finish(self) -> None:
        """Nothing is published any more."""
        self._waiting.put(None)

    def publish(self, topic: str, value: str) -> None:
        """Have it written."""
        try:
            self._waiting.put_nowait((topic, value))
        except queue.Full:
            self._dropped()

    def _read(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                if not self.up:
                    self._load()
                self._follow()
            except (OSError, ReplyError, ValueError) as error:
                if self.up:
                    log("log not read", error=repr(error))
                self.up = False
                self._reader.close()
                stop.wait(0.5)
        self._reader.close()

    def _load(self) -> None:
        """Make sure that the copy belongs to the stream; after a loss of Redis' memory, begin anew."""
        self._reader.command("SET", EPOCH, secrets.token_hex(8), "NX")
        epoch = _text(self._reader.command("GET", EPOCH))
        if epoch != self.log.epoch:
            events, state, info = self._reader.pipeline(
                [("XRANGE", STREAM, "-", "+"), ("HGETALL", STATE), ("XINFO", "STREAM", STREAM)]
            )
            found = _events(events)
            self.log.reset(epoch, found, _state(state), floor=_floor(info, found))
            log("log read anew", epoch=epoch, events=len(found))
        self.up = True

    def _follow(self) -> None:
        """Wait for what comes next; once a second, drop what is too old."""
        last = str(self.log.last)
        answer = self._reader.command("XREAD", "COUNT", 256, "BLOCK", BLOCK_MS, "STREAMS", STREAM, last)
        if isinstance(answer, list):
            ((_, entries),) = cast("list[list[Reply]]", answer)
            self.log.extend(_events(entries))
        now = time.time()
        if now - self._trimmed >= 1:
            self._trimmed = now
            oldest = int((now - self.log.retention - MARGIN) * 1000)
            epoch, _ = self._reader.pipeline([("GET", EPOCH), ("XTRIM", STREAM, "MINID", max(0, oldest))])
            if _text(epoch) != self.log.epoch:
                raise ConnectionError("the stream is not the one that it was")

    def _write(self) -> None:
        while (item := self._waiting.get()) is not None:
            topic, value = item
            try:
                entry = _text(self._writer.command("XADD", STREAM, "*", "topic", topic, "value", value))
                self._writer.command("HSET", STATE, topic, f"{entry} {value}")
            except (OSError, ReplyError):
                self._dropped()
        self._writer.close()

    def _dropped(self) -> None:
        with self._counting:
            self.dropped += 1


def _text(reply: Reply) -> str:
    return reply.decode() if isinstance(reply, bytes) else ""


def _events(reply: Reply) -> list[Event]:
    """The entries of XRANGE or XREAD. Raises ValueError where they are none."""
    if not isinstance(reply, list):
        raise ValueError(f"expected entries of {STREAM}, found {reply!r}")
    found: list[Event] = []
    for entry in cast("list[tuple[bytes, list[bytes]]]", reply):
        fields = dict(zip(entry[1][::2], entry[1][1::2], strict=True))
        position = Position.parse(entry[0].decode())
        found.append(Event(position, fields[b"topic"].decode(), fields[b"value"].decode()))
    return found


def _state(reply: Reply) -> list[Event]:
    """The values of HGETALL. Raises ValueError where they are none."""
    if not isinstance(reply, list):
        raise ValueError(f"expected the fields of {STATE}, found {reply!r}")
    flat = cast("list[bytes]", reply)
    pairs = [(topic.decode(), *text.decode().split(" ", 1)) for topic, text in zip(flat[::2], flat[1::2], strict=True)]
    return [Event(Position.parse(entry), topic, value) for topic, entry, value in pairs]


def _floor(info: Reply, events: Sequence[Event]) -> Position:
    """Up to where events are missing: nowhere in a stream that was never cut, else up to the first that is there."""
    if not isinstance(info, list):
        # There is no stream yet.
        return START
    flat = cast("list[bytes | int]", info)
    facts = dict(zip(flat[::2], flat[1::2], strict=True))
    if facts[b"entries-added"] == facts[b"length"]:
        return START
    return events[0].position if events else Position.parse(_text(cast("bytes", facts[b"last-generated-id"])))
