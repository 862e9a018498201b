"""A bulk insert into the registry by a client that takes its time: one transaction for as long as its rows take.

    python3 -m staging.bulk_insert [--host registry] [--rows 2400] [--seconds 24] [--row-bytes 1000] [--times N]

Sends `rows` rows spread evenly over `seconds`, in one request, and then again, until SIGTERM or `times` are through.
The same names every time, so the file does not grow beyond one insert. A registry that is replaced under it breaks
the insert off; it begins anew with the next one. Exit code 0 at its end, whatever the registry answered.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import time
from typing import TYPE_CHECKING

from staging.service import log, stop_on_signals

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

PAUSE = 1.0
"""Seconds before another attempt after one that failed."""


def row(number: int, size: int) -> bytes:
    """One line of `size` bytes or a little more, its end included."""
    start = json.dumps({"name": f"imported-{number:07d}", "description": ""})[:-2]
    filler = f"skill {number} of the import; " * (size // 16 + 1)
    return (start + filler[: max(0, size - len(start) - 3)] + '"}\n').encode()


def paced(rows: int, seconds: float, size: int, stop: threading.Event) -> Iterator[bytes]:
    """The rows, each at its time. Ends early, and so breaks the request off, when `stop` is set."""
    started = time.monotonic()
    for number in range(rows):
        if stop.wait(max(0.0, started + seconds * number / rows - time.monotonic())):
            return
        yield row(number, size)


def send(host: str, port: int, rows: int, seconds: float, size: int, stop: threading.Event) -> str:
    """One bulk insert. Returns what came of it, in words."""
    connection = http.client.HTTPConnection(host, port, timeout=60)
    try:
        connection.putrequest("POST", "/skills/bulk")
        connection.putheader("Content-Length", str(sum(len(row(number, size)) for number in range(rows))))
        connection.putheader("Connection", "close")
        connection.endheaders()
        for line in paced(rows, seconds, size, stop):
            connection.send(line)
        if stop.is_set():
            return "broken off"
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException) as error:
        return f"failed: {error!r}"
    else:
        return f"answered {answer.status}"
    finally:
        connection.close()


def main() -> None:
    """Insert until SIGTERM."""
    stop = stop_on_signals()
    parser = argparse.ArgumentParser(prog="staging.bulk_insert", allow_abbrev=False)
    parser.add_argument("--host", default="registry")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--rows", type=int, default=2400, help="rows of one insert")
    parser.add_argument("--seconds", type=float, default=24.0, help="how long one insert takes to send")
    parser.add_argument("--row-bytes", type=int, default=1000, help="length of a row")
    parser.add_argument("--times", type=int, default=0, help="how many inserts; 0 for no end")
    given = parser.parse_args()
    for count in itertools.count(1):
        log("bulk insert starts", number=count, rows=given.rows, seconds=given.seconds)
        outcome = send(given.host, given.port, given.rows, given.seconds, given.row_bytes, stop)
        log("bulk insert ends", number=count, outcome=outcome)
        if stop.is_set() or count == given.times:
            return
        if outcome != "answered 200" and stop.wait(PAUSE):
            return


if __name__ == "__main__":
    main()
