"""A Redis connection over RESP2: one socket, blocking, pipelined. Not safe for use by several threads at once."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, TypeAlias, Union

if TYPE_CHECKING:
    from collections.abc import Sequence

Reply: TypeAlias = Union[int, bytes, "ReplyError", list["Reply"], None]
"""What Redis answers. Errors inside a pipeline are values, so that one of them does not hide the others."""


class ReplyError(Exception):
    """Redis understood the command and refused it."""


class Redis:
    """A connection that opens on first use and, after any failure, anew on the next one.

    Every failure of the network is an `OSError`. The caller decides whether to try again: only it knows whether a
    command whose reply was lost may run twice.
    """

    def __init__(self, host: str, port: int = 6379, *, timeout: float = 5.0) -> None:
        self._address = (host, port)
        self._timeout = timeout
        self._socket: socket.socket | None = None
        self._buffer = bytearray()

    def command(self, *parts: str | bytes | int) -> Reply:
        """Send one command and return its reply. Raises ReplyError if Redis refused it, OSError if it is away."""
        (reply,) = self.pipeline([parts])
        if isinstance(reply, ReplyError):
            raise reply
        return reply

    def pipeline(self, commands: Sequence[Sequence[str | bytes | int]]) -> list[Reply]:
        """Send several commands in one write and return their replies in order."""
        try:
            if self._socket is None:
                self._socket = socket.create_connection(self._address, timeout=self._timeout)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.sendall(b"".join(_encode(parts) for parts in commands))
            return [self._read() for _ in commands]
        except BaseException:
            # Half a reply may be left on the wire; the next command must not read it as its own.
            self.close()
            raise

    def close(self) -> None:
        """Drop the connection and whatever was half read."""
        self._buffer.clear()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _fill(self) -> None:
        if self._socket is None:
            raise ConnectionError("the connection to Redis is closed")
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("Redis closed the connection")
        self._buffer += data

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            self._fill()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _read(self) -> Reply:
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest
        if kind == b"-":
            return ReplyError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return self._bulk(int(rest))
        if kind == b"*":
            return None if rest == b"-1" else [self._read() for _ in range(int(rest))]
        raise ConnectionError(f"not a RESP2 reply: {line[:40]!r}")

    def _bulk(self, length: int) -> bytes | None:
        if length < 0:
            return None
        while len(self._buffer) < length + 2:
            self._fill()
        data = bytes(self._buffer[:length])
        del self._buffer[: length + 2]
        return data


def _encode(parts: Sequence[str | bytes | int]) -> bytes:
    out = [b"*%d\r\n" % len(parts)]
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        out.append(b"$%d\r\n%s\r\n" % (len(data), data))
    return b"".join(out)
