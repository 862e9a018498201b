"""What every part shares: a line of log, a clean end on SIGTERM, settings from the environment, a cheap probe port."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def iso(ms: int) -> str:
    """An instant, given in ms since 1970, as ISO 8601 in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def log(event: str, **facts: object) -> None:
    """One JSON line on standard output; flushed, because the next moment may be a SIGKILL."""
    sys.stdout.write(_line(event, facts))
    sys.stdout.flush()


def _line(event: str, facts: dict[str, object]) -> str:
    return json.dumps({"at": iso(time.time_ns() // 1_000_000), "event": event, **facts}, default=str) + "\n"


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set. Needed for PID 1: the kernel gives it no default handler."""
    stop = threading.Event()

    def handler(number: int, _frame: object) -> None:
        stop.set()
        # Past the buffer: the signal may have come in the middle of a line, and a buffer is not to be entered twice.
        os.write(1, _line("stopping", {"signal": signal.Signals(number).name}).encode())

    signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGINT, handler)
    return stop


def setting(name: str, default: float) -> float:
    """A number from the environment; a bad one ends the process with a sentence instead of a traceback."""
    text = os.environ.get(name, "")
    try:
        return float(text) if text else default
    except ValueError:
        raise SystemExit(f"{name} is {text!r}; expected a number; correct it in the manifest") from None


def answer_probes(port: int, ready: Callable[[], bool]) -> socket.socket:
    """Answer any HTTP request on `port` with 200 or 503, as `ready` says, in a daemon thread.

    A bare socket costs neither the import time nor the memory of an HTTP server, and the kubelet asks for no more.
    Closing the returned socket ends the thread.
    """
    server = socket.create_server(("", port), backlog=8)

    def serve() -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            with peer:
                try:
                    peer.settimeout(1)
                    peer.recv(1024)
                    status = "200 OK" if ready() else "503 Service Unavailable"
                    peer.sendall(f"HTTP/1.0 {status}\r\nContent-Length: 0\r\n\r\n".encode())
                except OSError:
                    continue

    threading.Thread(target=serve, name="probes", daemon=True).start()
    return server
