"""A door to the API server that can be held shut: what a tool meets when the server freezes or a reply is lost."""

from __future__ import annotations

import contextlib
import socket
import time
from threading import Event as Flag
from threading import Lock, Thread
from types import TracebackType
from typing import Self


class Relay:
    """Passes bytes between a port on loopback and `host`:`port`. Bytes that were held are passed on later, in order,
    as a server does that was stopped and goes on."""

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self._open = Flag()
        self._open.set()
        self._stopped = False
        self._delay = 0.0
        self._lock = Lock()
        self._sockets: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = True
        self._server.close()
        self.cut()
        self._open.set()

    def freeze(self) -> None:
        """Nothing passes, in either direction; connections stay."""
        self._open.clear()

    def thaw(self) -> None:
        """Everything passes again, what was held first."""
        self._open.set()

    def slow(self, seconds: float) -> None:
        """From now on every piece of a reply comes that much later."""
        self._delay = seconds

    def cut(self) -> None:
        """Close all connections; a reply that is on its way is lost. New ones are taken again."""
        with self._lock:
            gone, self._sockets = self._sockets, []
        for one in gone:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while not self._stopped:
            try:
                near, _ = self._server.accept()
                far = socket.create_connection(self._to, timeout=10)
            except OSError:
                return
            far.settimeout(None)
            with self._lock:
                self._sockets += [near, far]
            Thread(target=self._pump, args=(near, far, False), daemon=True).start()
            Thread(target=self._pump, args=(far, near, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, is_reply: bool) -> None:
        try:
            while data := source.recv(65536):
                if is_reply and self._delay:
                    time.sleep(self._delay)
                self._open.wait()
                sink.sendall(data)
        except OSError:
            pass
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
