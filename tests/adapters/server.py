"""A peer on 127.0.0.1 that misbehaves as told: real sockets, so that cuts, silence and time limits are real."""

from __future__ import annotations

import json
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Step = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers with the script's next step; its last step repeats."""

    protocol_version = "HTTP/1.1"
    server: Peer

    def _any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        self.server.asked.append((self.command, self.path, body))
        self.server.headers.append(dict(self.headers))
        script = self.server.script
        step = script.popleft() if len(script) > 1 else script[0]
        step(self)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815 - the base class's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's signature
        """Nothing."""


class Peer(ThreadingHTTPServer):
    """What was asked is in `asked` as (method, path, body)."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, steps: tuple[Step, ...]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: deque[Step] = deque(steps)
        self.asked: list[tuple[str, str, bytes]] = []
        self.headers: list[dict[str, str]] = []
        self.release = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error here."""


@contextmanager
def peer(*steps: Step, tls: ssl.SSLContext | None = None) -> Iterator[Peer]:
    """A running peer; with `tls` it speaks HTTPS."""
    server = Peer(steps)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        server.shutdown()
        server.server_close()
        thread.join()


def answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Step:
    """A whole answer; bytes are sent as they are, everything else as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    def step(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return step


def cut(handler: Handler) -> None:
    """Close without an answer."""
    handler.close_connection = True


def silence(handler: Handler) -> None:
    """Never answer, until the test is over."""
    handler.server.release.wait(30.0)
    handler.close_connection = True


def stream(*lines: Any, then: str = "end") -> Step:
    """A chunked watch: each line its own chunk. Then "end" it cleanly, "cut" it, or keep "silence"."""

    def step(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for line in lines:
            data = line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n"
            handler.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        if then == "end":
            handler.wfile.write(b"0\r\n\r\n")
        elif then == "silence":
            handler.wfile.flush()
            silence(handler)
        else:
            handler.close_connection = True

    return step
