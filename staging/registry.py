"""The skills registry: SQLite behind a pool of connections.

    GET  /skills          how many there are, and the first of them          200 · 503
    GET  /skills/NAME     one                                                200 · 404 · 503
    POST /skills/bulk     one JSON object per line, all in one transaction   200 · 400 · 503
    GET  /metrics, GET /readyz                                               never wait for the database

How it stands up to a bulk insert is a matter of two settings, read at the start:

    JOURNAL_MODE  `delete`: once the insert's changed pages overflow the page cache, SQLite locks the whole file until
                  the transaction ends, and readers wait. `wal`: readers read on beside the one writer.
    POOL_SIZE     a bulk insert holds one connection for as long as its rows take to come. With one there is none left.

Neither alone is enough. The file is a pod's own and holds, at its start, the skills of the snapshot below.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections import deque
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote

from staging.latency import Latency
from staging.metrics import Family, Point, Sample
from staging.service import log, setting, stop_on_signals
from staging.web import Handler, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

SNAPSHOT = {
    "classify-ticket": "Sorts a ticket by product and urgency.",
    "draft-reply": "Writes the first answer to a client.",
    "find-similar": "Finds earlier tickets of the same kind.",
    "summarise-thread": "Makes three sentences of a long exchange.",
    "translate": "Puts a ticket into the reader's language.",
}
JOURNAL_MODES = ("delete", "wal")
MAX_LINE = 64 * 1024
MAX_BULK = 64 * 1024 * 1024
MAX_REQUESTS = 256
"""Requests under way at once; more are turned away at the door."""
LISTED = 50


class Exhausted(Exception):
    """No connection became free in time, or too many wait already."""


class Draining(Exception):
    """The pod is told to go: a bulk insert would hold up those who wait."""


class Malformed(ValueError):
    """Not a line of a bulk insert."""


class Pool:
    """Connections, handed out in the order of asking. `seconds` is how long one may wait for one."""

    def __init__(self, connections: list[sqlite3.Connection], seconds: float) -> None:
        self.size = len(connections)
        self._seconds = seconds
        self._lock = threading.Lock()
        self._free = deque(connections)
        self._asking: deque[_Turn] = deque()

    @property
    def in_use(self) -> int:
        """Connections handed out."""
        return self.size - len(self._free)

    @property
    def waiting(self) -> int:
        """Who waits for a connection."""
        return len(self._asking)

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """One of them, for the length of the block. Raises Exhausted."""
        mine = self._take()
        try:
            yield mine
        finally:
            self._give(mine)

    def _take(self) -> sqlite3.Connection:
        with self._lock:
            # Nobody overtakes: a free connection is there only when nobody waits.
            if self._free:
                return self._free.popleft()
            if len(self._asking) >= MAX_REQUESTS:
                raise Exhausted(f"{MAX_REQUESTS} requests wait for one of {self.size} connections")
            turn = _Turn()
            self._asking.append(turn)
        if not turn.come.wait(self._seconds):
            with self._lock:
                if turn.connection is None:
                    self._asking.remove(turn)
                    raise Exhausted(f"none of {self.size} connections became free within {self._seconds:g} s")
        assert turn.connection is not None  # noqa: S101 - set before the event
        return turn.connection

    def _give(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            if self._asking:
                turn = self._asking.popleft()
                turn.connection = connection
                turn.come.set()
            else:
                self._free.append(connection)


class _Turn:
    """A place in the line."""

    def __init__(self) -> None:
        self.come = threading.Event()
        self.connection: sqlite3.Connection | None = None


class Skills:
    """The registry's file. Opens `pool_size` connections at once; the first makes the file with its snapshot.

    `cache_kib` is each connection's page cache: in journal mode `delete` a transaction that changes more than that
    locks the file for readers. `wait_seconds` is how long a request waits, for a connection and then for a lock.
    """

    def __init__(self, path: Path, *, journal_mode: str, pool_size: int, cache_kib: int, wait_seconds: float) -> None:
        self.journal_mode = journal_mode

        def connect() -> sqlite3.Connection:
            made = sqlite3.connect(path, timeout=wait_seconds, isolation_level=None, check_same_thread=False)
            made.execute(f"PRAGMA cache_size = -{cache_kib}")
            return made

        first = connect()
        (mode,) = first.execute(f"PRAGMA journal_mode = {journal_mode}").fetchone()
        if mode != journal_mode:
            raise SystemExit(f"SQLite keeps journal mode {mode} for {path}; expected {journal_mode}")
        first.execute("CREATE TABLE IF NOT EXISTS skills (name TEXT PRIMARY KEY, description TEXT NOT NULL)")
        first.executemany("INSERT OR IGNORE INTO skills VALUES (?, ?)", SNAPSHOT.items())
        self._all = [first, *(connect() for _ in range(pool_size - 1))]
        self.pool = Pool(self._all, wait_seconds)
        self.draining = False
        self.bulk_under_way = 0
        self.bulk_rows = 0
        self._counting = threading.Lock()

    def close(self) -> None:
        """Close every connection; nobody may use one any more."""
        for connection in self._all:
            connection.close()

    def listing(self) -> tuple[int, list[str]]:
        """How many skills there are, and the first names."""
        with self.pool.connection() as connection, _reading(connection):
            (count,) = connection.execute("SELECT count(*) FROM skills").fetchone()
            names = connection.execute("SELECT name FROM skills ORDER BY name LIMIT ?", (LISTED,)).fetchall()
        return count, [name for (name,) in names]

    def skill(self, name: str) -> str | None:
        """The description of one, or None."""
        with self.pool.connection() as connection:
            row = connection.execute("SELECT description FROM skills WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def insert(self, lines: Iterator[bytes]) -> int:
        """Insert or replace a skill per line, all or none, as the lines come. Returns their number.

        Raises Malformed, Exhausted, Draining, sqlite3.OperationalError, and what `lines` raises; then none is inserted.
        """
        with self.pool.connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            with self._counting:
                self.bulk_under_way += 1
            try:
                rows = 0
                for line in lines:
                    self._stay()
                    connection.execute("INSERT OR REPLACE INTO skills VALUES (?, ?)", row_of(line))
                    rows += 1
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            finally:
                with self._counting:
                    self.bulk_under_way -= 1
        with self._counting:
            self.bulk_rows += rows
        return rows

    def _stay(self) -> None:
        if self.draining:
            raise Draining("this pod is about to end")


@contextmanager
def _reading(connection: sqlite3.Connection) -> Iterator[None]:
    """Several questions to one state of the file."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def row_of(line: bytes) -> tuple[str, str]:
    """Name and description of one line of a bulk insert. Raises Malformed."""
    try:
        body = json.loads(line)
        name, description = body["name"], body["description"]
    except (ValueError, KeyError, TypeError):
        raise Malformed('expected {"name": text, "description": text} on each line') from None
    if not (isinstance(name, str) and name and isinstance(description, str)):
        raise Malformed("expected a name and a description that are texts")
    return name, description


class Body(Protocol):
    """What can be read by lines."""

    def readline(self, size: int, /) -> bytes:
        """Up to and with the next end of a line; at most `size` bytes."""


def lines_of(body: Body, length: int) -> Iterator[bytes]:
    """The lines of a body of `length` bytes, each as soon as it has come.

    Raises Malformed for one without an end or too long, ConnectionError when the client breaks off.
    """
    left = length
    while left:
        line = body.readline(min(left, MAX_LINE))
        if not line:
            raise ConnectionError(f"the client broke off with {left} bytes to go")
        if not line.endswith(b"\n"):
            raise Malformed(f"expected lines of up to {MAX_LINE} bytes, each with its end")
        left -= len(line)
        yield line


class Registry(Server):
    """The server."""

    def __init__(self, address: tuple[str, int], skills: Skills) -> None:
        super().__init__(address, Requests)
        self.skills = skills
        self.latency = Latency()


class Requests(Handler):
    """One client connection."""

    server: Registry

    def get(self) -> None:
        """Read."""
        if self.path == "/readyz":
            self.answer(HTTPStatus.OK, {"ready": True})
        elif self.path == "/metrics":
            self.expose(figures(self.server.skills, self.server.latency))
        elif self.path == "/skills" or self.path.startswith("/skills/"):
            self._read(unquote(self.path.removeprefix("/skills").removeprefix("/")))
        else:
            self.answer(HTTPStatus.NOT_FOUND, {"error": "there are /skills, /skills/NAME, /metrics and /readyz"})

    def _read(self, name: str) -> None:
        skills = self.server.skills
        status = HTTPStatus.OK
        body: dict[str, Any] = {}
        with self.server.latency.measured():
            try:
                if name:
                    description = skills.skill(name)
                    if description is None:
                        status, body = HTTPStatus.NOT_FOUND, {"error": "no skill of that name"}
                    else:
                        body = {"name": name, "description": description}
                else:
                    count, names = skills.listing()
                    body = {"count": count, "names": names}
            except (Exhausted, sqlite3.OperationalError) as error:
                status, body = HTTPStatus.SERVICE_UNAVAILABLE, {"error": str(error)}
        self.answer(status, body)

    def post(self) -> None:
        """A bulk insert."""
        length = self.body_length(MAX_BULK)
        if self.path != "/skills/bulk" or length is None:
            self.close_connection = True
            self.answer(
                HTTPStatus.BAD_REQUEST, {"error": f"expected POST /skills/bulk with a length of up to {MAX_BULK} bytes"}
            )
            return
        try:
            rows = self.server.skills.insert(lines_of(self.rfile, length))
        except Malformed as error:
            status, body = HTTPStatus.BAD_REQUEST, {"error": str(error)}
        except (Exhausted, Draining, sqlite3.OperationalError) as error:
            status, body = HTTPStatus.SERVICE_UNAVAILABLE, {"error": str(error)}
        except OSError as error:
            log("bulk insert broken off", error=repr(error))
            self.close_connection = True
            return
        else:
            log("bulk insert", rows=rows)
            self.answer(HTTPStatus.OK, {"rows": rows})
            return
        # The rest of the body is not read, so the connection is of no further use.
        self.close_connection = True
        log("bulk insert refused", status=status.value, error=body["error"])
        self.answer(status, body)


def figures(skills: Skills, latency: Latency) -> list[Family | Sample]:
    """Everything that Prometheus is told; asks neither the pool nor the file."""
    return [
        *latency.families(
            "nova_registry_request_duration_seconds",
            "nova_registry_recent_requests",
            "nova_registry_oldest_request_seconds",
        ),
        Sample("nova_registry_pool_size", "gauge", "Connections in the pool.", skills.pool.size),
        Sample("nova_registry_pool_in_use", "gauge", "Connections handed out.", skills.pool.in_use),
        Sample("nova_registry_pool_waiting", "gauge", "Requests that wait for a connection.", skills.pool.waiting),
        Sample("nova_registry_bulk_inserts", "gauge", "Bulk inserts that hold a transaction.", skills.bulk_under_way),
        Sample("nova_registry_bulk_rows_total", "counter", "Rows committed by bulk inserts.", skills.bulk_rows),
        Family(
            "nova_registry_journal_mode",
            "gauge",
            "1 for SQLite's journal mode.",
            [Point(int(mode == skills.journal_mode), {"mode": mode}) for mode in JOURNAL_MODES],
        ),
    ]


def main() -> None:
    """Serve until SIGTERM; then let those who wait through, and answer Prometheus until it has found the successor."""
    stop = stop_on_signals()
    mode = os.environ.get("JOURNAL_MODE", "delete")
    if mode not in JOURNAL_MODES:
        raise SystemExit(f"JOURNAL_MODE is {mode!r}; expected {' or '.join(JOURNAL_MODES)}; correct ConfigMap registry")
    size = int(setting("POOL_SIZE", 1))
    if size < 1:
        raise SystemExit(f"POOL_SIZE is {size}; expected at least 1; correct ConfigMap registry")
    skills = Skills(
        Path(os.environ.get("DATA_DIR", "/data")) / "skills.sqlite",
        journal_mode=mode,
        pool_size=size,
        cache_kib=int(setting("CACHE_KIB", 64)),
        wait_seconds=setting("WAIT_SECONDS", 30),
    )
    server = Registry(("", int(setting("PORT", 8080))), skills)
    server.start()
    log("registry serves", port=server.server_address[1], journal_mode=mode, pool_size=size)
    stop.wait()
    skills.draining = True
    # The server answers meanwhile; nothing but SIGKILL ends this wait early.
    threading.Event().wait(setting("DRAIN_SECONDS", 35))
    server.stop()
    log("registry ends")


if __name__ == "__main__":
    main()
