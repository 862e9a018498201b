"""What the HTTP parts share: a server that takes many waiting clients, and answers in JSON."""

from __future__ import annotations

import json
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from staging.metrics import CONTENT_TYPE, Family, Sample, render

if TYPE_CHECKING:
    from collections.abc import Sequence


class Server(ThreadingHTTPServer):
    """One thread per client. Threads that still wait at the end do not hold it up."""

    daemon_threads = True
    request_queue_size = 128

    def start(self) -> None:
        """Serve in a thread, until `stop`."""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.5}, daemon=True).start()

    def stop(self) -> None:
        """Take no more clients. Only after `start`."""
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """One client connection."""

    protocol_version = "HTTP/1.1"
    timeout = 30

    def get(self) -> None:
        """Answer a GET of `self.path`."""
        raise NotImplementedError

    def post(self) -> None:
        """Answer a POST to `self.path`."""
        raise NotImplementedError

    def do_GET(self) -> None:
        """The base class's hook."""
        self.get()

    def do_POST(self) -> None:
        """The base class's hook."""
        self.post()

    def answer(self, status: HTTPStatus, body: dict[str, Any]) -> None:
        """Send `body` as JSON."""
        self._send(status, json.dumps(body).encode(), "application/json")

    def expose(self, samples: Sequence[Sample | Family]) -> None:
        """Send `samples` to Prometheus."""
        self._send(HTTPStatus.OK, render(samples).encode(), CONTENT_TYPE)

    def body_length(self, most: int) -> int | None:
        """The announced length of the body in bytes, from 1 to `most`; otherwise None, and the connection will end."""
        text = self.headers.get("Content-Length") or ""
        if text.isascii() and text.isdigit() and 0 < int(text) <= most:
            return int(text)
        self.close_connection = True
        return None

    def _send(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            # The client has gone; what it asked for is counted all the same.
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's signature
        """Nothing: a line for every request would be the load."""
