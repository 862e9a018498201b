"""The API: takes enhancement jobs over HTTP and tells Prometheus how the queue is.

    POST /jobs      {"tenant": "acme", "ticket": 512, "weight": 1.0}   202 {"id": "..."} · 400 · 503
    GET  /metrics   the figures below; without Redis only `nova_queue_up 0`
    GET  /readyz    200 when Redis answers

The queue is read on every scrape, never cached: a figure is as old as its scrape. When Redis does not answer, the
queue's figures are absent rather than zero, so that nobody mistakes blindness for health.
"""

from __future__ import annotations

import json
import os
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from staging.jobs import Queue, QueueState
from staging.metrics import CONTENT_TYPE, Sample, render
from staging.resp import Redis, ReplyError
from staging.service import log, setting, stop_on_signals

MAX_BODY = 16 * 1024


def samples(state: QueueState, *, budget: float) -> list[Sample]:
    """The queue's state as metrics. `budget` is what may be spent per UTC day, in cost units."""
    return [
        Sample("nova_queue_up", "gauge", "1 when Redis answered this scrape.", 1),
        Sample("nova_queue_depth", "gauge", "Jobs accepted and not finished: waiting plus in flight.", state.depth),
        Sample("nova_queue_in_flight", "gauge", "Jobs that a worker holds, dead or alive.", state.in_flight),
        Sample(
            "nova_queue_oldest_job_age_seconds",
            "gauge",
            "Age of the oldest job that is not finished; 0 when there is none.",
            state.oldest_age,
        ),
        Sample("nova_jobs_accepted_total", "counter", "Jobs accepted.", state.accepted),
        Sample("nova_jobs_processed_total", "counter", "Jobs finished.", state.processed),
        Sample("nova_jobs_dead_lettered_total", "counter", "Jobs given up after too many deliveries.", state.dead),
        Sample(
            "nova_job_delay_seconds_total",
            "counter",
            "Sum over finished jobs of the time from accepted to finished.",
            state.delay_sum,
        ),
        Sample(
            "nova_budget_spent_ratio",
            "gauge",
            "Share of the UTC day's budget that finished jobs have spent.",
            state.spent / budget,
        ),
    ]


class Api(ThreadingHTTPServer):
    """The server. One Redis connection per thread of a kept-alive client."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], redis_host: str, redis_port: int, *, budget: float) -> None:
        super().__init__(address, Handler)
        self.budget = budget
        self._redis = (redis_host, redis_port)
        self._local = threading.local()

    def connection(self) -> Redis:
        """This thread's connection."""
        if not hasattr(self._local, "redis"):
            self._local.redis = Redis(*self._redis, timeout=2)
        redis: Redis = self._local.redis
        return redis

    def hang_up(self) -> None:
        """Close this thread's connection, at the end of its client's."""
        if hasattr(self._local, "redis"):
            self._local.redis.close()

    def queue(self) -> Queue:
        """The queue over this thread's connection."""
        return Queue(self.connection())


class Handler(BaseHTTPRequestHandler):
    """One client connection."""

    protocol_version = "HTTP/1.1"
    timeout = 30
    server: Api

    def finish(self) -> None:
        """The client has gone; so goes what was opened for it."""
        try:
            super().finish()
        finally:
            self.server.hang_up()

    def do_GET(self) -> None:
        """Metrics and readiness."""
        if self.path == "/metrics":
            self._metrics()
        elif self.path == "/readyz":
            self._ready()
        else:
            self._answer(HTTPStatus.NOT_FOUND, {"error": "there are POST /jobs, GET /metrics and GET /readyz"})

    def do_POST(self) -> None:
        """Take a job."""
        length = int(self.headers.get("Content-Length") or 0)
        if self.path != "/jobs" or not 0 < length <= MAX_BODY:
            self.close_connection = True
            self._answer(HTTPStatus.BAD_REQUEST, {"error": f"expected POST /jobs with 1 to {MAX_BODY} bytes"})
            return
        try:
            body = json.loads(self.rfile.read(length))
            tenant, ticket, weight = str(body["tenant"]), int(body["ticket"]), float(body.get("weight", 1.0))
        except (ValueError, KeyError, TypeError, AttributeError):
            self._answer(
                HTTPStatus.BAD_REQUEST, {"error": 'expected {"tenant": text, "ticket": number, "weight": number}'}
            )
            return
        try:
            ident = self.server.queue().submit(tenant, ticket, weight)
        except (OSError, ReplyError) as error:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, {"error": f"the queue did not take the job: {error}"})
            return
        self._answer(HTTPStatus.ACCEPTED, {"id": ident})

    def _metrics(self) -> None:
        try:
            figures = samples(self.server.queue().state(), budget=self.server.budget)
        except (OSError, ReplyError):
            figures = [Sample("nova_queue_up", "gauge", "1 when Redis answered this scrape.", 0)]
        self._send(HTTPStatus.OK, render(figures).encode(), CONTENT_TYPE)

    def _ready(self) -> None:
        try:
            self.server.connection().command("PING")
        except (OSError, ReplyError) as error:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, {"error": f"Redis: {error}"})
            return
        self._answer(HTTPStatus.OK, {"ready": True})

    def _answer(self, status: HTTPStatus, body: dict[str, Any]) -> None:
        self._send(status, json.dumps(body).encode(), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's signature
        """Nothing: fifteen lines a second of access log would drown what matters."""


def main() -> None:
    """Serve until SIGTERM."""
    stop = stop_on_signals()
    host = os.environ.get("REDIS_HOST", "redis")
    server = Api(("", int(setting("PORT", 8080))), host, 6379, budget=setting("BUDGET_PER_DAY", 2_000_000))
    redis = Redis(host)
    while not stop.is_set():
        try:
            # The group is made here as well, so that `/metrics` is whole before the first worker is up.
            Queue(redis).ensure()
            break
        except (OSError, ReplyError) as error:
            log("queue unreachable", error=repr(error))
            stop.wait(0.5)
    redis.close()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.5}, daemon=True).start()
    log("api serves", port=server.server_address[1])
    stop.wait()
    server.shutdown()
    server.server_close()
    log("api ends")


if __name__ == "__main__":
    main()
