"""Stands for the pager: keeps what Alertmanager sends, with the time of receipt.

    POST /webhook                 Alertmanager's webhook, version 4; `Authorization: Bearer TOKEN` is required
    GET  /notifications?since=N   those with a sequence number above N, as JSON
    GET  /readyz

Sending needs the token, or anybody in the cluster could page people. Reading does not: it is reached through the API
server's service proxy, which has authenticated the reader and strips the Authorization header on its way.

Memory is bounded by number and by bytes; the oldest go first and `dropped` counts them. `instance` changes when the
pager restarts: sequence numbers of two instances do not compare.
"""

from __future__ import annotations

import hmac
import json
import os
import threading
import time
import uuid
from collections import deque
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from staging.service import iso, log, setting, stop_on_signals

MAX_BODY = 256 * 1024


class Book:
    """The notifications, oldest first. Safe for use by several threads."""

    def __init__(self, *, keep: int = 1000, keep_bytes: int = 8 * 1024 * 1024) -> None:
        self.instance = uuid.uuid4().hex[:12]
        self._keep = keep
        self._keep_bytes = keep_bytes
        self._lock = threading.Lock()
        self._entries: deque[tuple[int, dict[str, Any], int]] = deque()
        self._bytes = 0
        self._last = 0

    def add(self, webhook: dict[str, Any], size: int, *, received_ms: int) -> int:
        """Keep one; `size` is its length on the wire in bytes. Returns its sequence number, from 1."""
        with self._lock:
            self._last += 1
            entry = {
                "seq": self._last,
                "received_ms": received_ms,
                "received_at": iso(received_ms),
                "webhook": webhook,
            }
            self._entries.append((self._last, entry, size))
            self._bytes += size
            while len(self._entries) > self._keep or self._bytes > self._keep_bytes:
                self._bytes -= self._entries.popleft()[2]
            return self._last

    def since(self, seq: int) -> dict[str, Any]:
        """Everything kept above `seq`."""
        with self._lock:
            return {
                "instance": self.instance,
                "last": self._last,
                "dropped": self._last - len(self._entries),
                "notifications": [entry for number, entry, _ in self._entries if number > seq],
            }


class Pager(ThreadingHTTPServer):
    """The server; `token` is what senders must show."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], book: Book, token: str) -> None:
        super().__init__(address, Handler)
        self.book = book
        self.token = token


class Handler(BaseHTTPRequestHandler):
    """One client connection."""

    protocol_version = "HTTP/1.1"
    timeout = 30
    server: Pager

    def do_GET(self) -> None:
        """Read the book."""
        url = urlsplit(self.path)
        if url.path == "/readyz":
            self._answer(HTTPStatus.OK, {"ready": True})
            return
        if url.path != "/notifications":
            self._answer(HTTPStatus.NOT_FOUND, {"error": "there are POST /webhook and GET /notifications?since=N"})
            return
        text = parse_qs(url.query).get("since", ["0"])[-1]
        if not text.isascii() or not text.isdigit():
            self._answer(HTTPStatus.BAD_REQUEST, {"error": f"since is {text!r}; expected a sequence number"})
            return
        self._answer(HTTPStatus.OK, self.server.book.since(int(text)))

    def do_POST(self) -> None:
        """Take a page."""
        received_ms = time.time_ns() // 1_000_000
        length = int(self.headers.get("Content-Length") or 0)
        if self.path != "/webhook" or not 0 < length <= MAX_BODY:
            self.close_connection = True
            self._answer(HTTPStatus.BAD_REQUEST, {"error": f"expected POST /webhook with 1 to {MAX_BODY} bytes"})
            return
        body = self.rfile.read(length)
        shown = self.headers.get("Authorization", "")
        if not hmac.compare_digest(shown.encode(), f"Bearer {self.server.token}".encode()):
            reason = "another token than the Secret's" if shown else "no Authorization header"
            log("page refused", reason=reason)
            self._answer(HTTPStatus.UNAUTHORIZED, {"error": f"{reason}; expected the token of Secret pager-token"})
            return
        try:
            webhook = json.loads(body)
            understood = webhook["version"] == "4" and isinstance(webhook["alerts"], list)
        except (ValueError, KeyError, TypeError):
            understood = False
        if not understood:
            self._answer(HTTPStatus.BAD_REQUEST, {"error": "expected an Alertmanager webhook of version 4"})
            return
        seq = self.server.book.add(webhook, length, received_ms=received_ms)
        names = sorted({alert.get("labels", {}).get("alertname", "?") for alert in webhook["alerts"]})
        log("paged", seq=seq, status=webhook.get("status"), alerts=names)
        self._answer(HTTPStatus.OK, {"seq": seq})

    def _answer(self, status: HTTPStatus, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's signature
        """Nothing: pages are logged as such."""


def main() -> None:
    """Serve until SIGTERM."""
    stop = stop_on_signals()
    path = Path(os.environ.get("TOKEN_FILE", "/etc/pager/token"))
    try:
        token = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SystemExit(f"no token: {error}; expected Secret pager-token mounted at {path}") from None
    if not token:
        raise SystemExit(f"{path} is empty; expected the token that Alertmanager sends")
    server = Pager(("", int(setting("PORT", 8080))), Book(), token)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.5}, daemon=True).start()
    log("pager serves", port=server.server_address[1], instance=server.book.instance)
    stop.wait()
    server.shutdown()
    server.server_close()
    log("pager ends")


if __name__ == "__main__":
    main()
