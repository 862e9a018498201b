"""Stands for the vendor of the language model: answers whoever shows an accepted key.

    POST /v1/messages   {"messages": [{"role": "user", "content": "..."}]} with `x-api-key`   200 · 400 · 401
    GET  /metrics, GET /readyz

The accepted keys are those of one Secret, read about once a second (`staging.keys`). While the API server does not
answer, the last ones read stay accepted, as a vendor's own store would; a metric says how old they are. No key is
ever logged or answered, not even in part.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from http import HTTPStatus

from staging.keys import Door, in_cluster
from staging.metrics import Family, Point, Sample
from staging.service import log, setting, stop_on_signals
from staging.web import Handler, Server

MAX_BODY = 256 * 1024
STATUSES = (HTTPStatus.OK, HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED)


class Provider(Server):
    """The server."""

    def __init__(self, address: tuple[str, int], door: Door) -> None:
        super().__init__(address, Requests)
        self.door = door
        self._lock = threading.Lock()
        self._answers = Counter(dict.fromkeys(STATUSES, 0))

    def count(self, status: HTTPStatus) -> None:
        """One answer of that status."""
        with self._lock:
            self._answers[status] += 1

    def figures(self) -> list[Family | Sample]:
        """Everything that Prometheus is told."""
        with self._lock:
            answers = dict(self._answers)
        age = self.door.age
        found: list[Family | Sample] = [
            Family(
                "nova_llm_provider_requests_total",
                "counter",
                "Requests for messages by the status of the answer.",
                [Point(count, {"status": str(status.value)}) for status, count in answers.items()],
            ),
            Sample("nova_llm_provider_keys", "gauge", "Keys accepted.", len(self.door.keys.accepted)),
            Sample(
                "nova_llm_provider_malformed_keys",
                "gauge",
                "Values in the Secret under an accepted name that are no keys.",
                self.door.keys.malformed,
            ),
            Sample(
                "nova_llm_provider_key_read_failures_total",
                "counter",
                "Times that the Secret could not be read; the keys known before stay accepted.",
                self.door.failures,
            ),
        ]
        if age is not None:
            found.append(
                Sample("nova_llm_provider_keys_age_seconds", "gauge", "Time since the Secret was last read.", age)
            )
        return found


class Requests(Handler):
    """One client connection."""

    server: Provider

    def get(self) -> None:
        """Metrics and readiness."""
        if self.path == "/metrics":
            self.expose(self.server.figures())
        elif self.path == "/readyz":
            ready = self.server.door.age is not None
            self.answer(HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE, {"ready": ready})
        else:
            self.answer(HTTPStatus.NOT_FOUND, {"error": "there are POST /v1/messages, GET /metrics and GET /readyz"})

    def post(self) -> None:
        """A request for a message."""
        length = self.body_length(MAX_BODY)
        if self.path != "/v1/messages" or length is None:
            self.close_connection = True
            self._finish(HTTPStatus.BAD_REQUEST, f"expected POST /v1/messages with 1 to {MAX_BODY} bytes")
            return
        body = self.rfile.read(length)
        shown = self.headers.get("x-api-key", "").encode("latin-1", "replace")
        if not self.server.door.keys.accept(shown):
            self._finish(HTTPStatus.UNAUTHORIZED, "invalid x-api-key")
            return
        try:
            asked = str(json.loads(body)["messages"][-1]["content"])
        except (ValueError, KeyError, TypeError, IndexError):
            self._finish(HTTPStatus.BAD_REQUEST, 'expected {"messages": [{"role": "user", "content": text}]}')
            return
        self.server.count(HTTPStatus.OK)
        text = f"{len(asked.split())} words understood."
        self.answer(HTTPStatus.OK, {"type": "message", "content": [{"type": "text", "text": text}]})

    def _finish(self, status: HTTPStatus, reason: str) -> None:
        self.server.count(status)
        self.answer(status, {"type": "error", "error": {"message": reason}})


def main() -> None:
    """Serve until SIGTERM."""
    stop = stop_on_signals()
    door = Door(in_cluster(os.environ.get("KEYS_SECRET", "llm-key")))
    every = setting("READ_SECONDS", 1)
    server = Provider(("", int(setting("PORT", 8080))), door)
    server.start()
    log("llm provider serves", port=server.server_address[1])
    while True:
        door.refresh()
        if stop.wait(every):
            break
    server.stop()
    log("llm provider ends")


if __name__ == "__main__":
    main()
