"""An open-loop load: requests go out when the plan says so, whether or not earlier ones have been answered.

That is what clients do, and it is what makes a slow service visible: a client that waited for its last answer before
it asked again would send a slow service hardly anything.
"""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from staging.service import log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def times(rate: float, seed: int) -> Iterator[float]:
    """When requests are due, in seconds since the start: `rate` per second, gaps varied by half, the same per seed."""
    rng = random.Random(seed)  # noqa: S311 - repeatable on purpose, nothing secret
    at = 0.0
    while True:
        at += rng.uniform(0.5, 1.5) / rate
        yield at


def ask(host: str, port: int, method: str, path: str, body: str | None, timeout: float) -> int:
    """Send one request over a connection of its own, so that it goes where the Service sends it now.

    Returns the status. Raises OSError and http.client.HTTPException.
    """
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        headers = {"Connection": "close"} | ({"Content-Type": "application/json"} if body is not None else {})
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


class Load:
    """Sends requests, each in a thread of its own, and counts what comes of them by status or name of the error.

    `send` gets the number of the request, from 0, and returns the status. Above `most` under way at once, a request is
    dropped and counted: no more clients than that are patient at the same time.
    """

    def __init__(self, send: Callable[[int], int], *, most: int) -> None:
        self._send = send
        self._most = most
        self._lock = threading.Lock()
        self._under_way = 0
        self.outcomes: Counter[str] = Counter()

    @property
    def answered(self) -> bool:
        """Whether any request was ever answered with 200."""
        return self.outcomes["200"] > 0

    def run(self, plan: Iterator[float], stop: threading.Event, *, report_seconds: float = 60.0) -> None:
        """Send what `plan` says until `stop` is set."""
        started = time.monotonic()
        report_at = 10.0
        for number, at in enumerate(plan):
            if stop.wait(max(0.0, at - (time.monotonic() - started))):
                return
            with self._lock:
                admitted = self._under_way < self._most
                self._under_way += admitted
                if not admitted:
                    self.outcomes["dropped"] += 1
            if admitted:
                threading.Thread(target=self._one, args=(number,), daemon=True).start()
            if at >= report_at:
                self.report()
                report_at += report_seconds

    def report(self) -> None:
        """Log the counts."""
        with self._lock:
            log("traffic", under_way=self._under_way, **self.outcomes)

    def _one(self, number: int) -> None:
        try:
            outcome = str(self._send(number))
        except (OSError, http.client.HTTPException) as error:
            outcome = type(error).__name__
        with self._lock:
            self._under_way -= 1
            self.outcomes[outcome] += 1
