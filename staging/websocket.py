"""The part of WebSocket (RFC 6455, version 13) that the sync service speaks: text messages, pings, orderly ends.

No extensions and no subprotocols. A message may come in fragments; none is sent in any. What the other side sends is
checked as the standard demands, and what breaks it ends the connection with the standard's code.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import os
import socket
import struct
import time
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from email.message import Message as Headers

VERSION = "13"
LONGEST_REQUEST, LONGEST_ANSWER = 64 * 1024, 1024 * 1024
"""Bytes of a message that a server takes, and a client."""
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""Part of the standard."""
_LONGEST_CONTROL = 125
_LONGEST_HEAD = 64 * 1024


class Opcode(IntEnum):
    """What a frame is."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class Code(IntEnum):
    """Why a connection ends: those of the standard that are used here, and two of our own."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED = 1003
    NO_CODE = 1005
    NOT_TEXT = 1007
    TOO_BIG = 1009
    TIMEOUT = 4408
    STALE = 4410


class Violation(Exception):
    """The other side broke the protocol; `code` is what to close with."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Refused(Exception):
    """The server answered the handshake with `status` and `body` instead of switching protocols."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"the handshake was answered with {status}")
        self.status = status
        self.body = body


@dataclass(frozen=True, slots=True)
class Message:
    """One whole message, or one control frame."""

    opcode: Opcode
    data: bytes

    @property
    def close_code(self) -> int:
        """The code of a CLOSE; 1005 where it has none."""
        return int(struct.unpack("!H", self.data[:2])[0]) if self.data else Code.NO_CODE


def encode(opcode: Opcode, data: bytes, *, mask: bytes | None) -> bytes:
    """One unfragmented frame. `mask` has four bytes and is what clients must use and servers must not."""
    masked = 0x80 if mask is not None else 0
    if len(data) <= _LONGEST_CONTROL:
        head = struct.pack("!BB", 0x80 | opcode, masked | len(data))
    elif len(data) < 1 << 16:
        head = struct.pack("!BBH", 0x80 | opcode, masked | 126, len(data))
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, masked | 127, len(data))
    return head + data if mask is None else head + mask + _masked(data, mask)


def closing(code: Code, reason: str = "") -> bytes:
    """The data of a CLOSE."""
    return struct.pack("!H", code) + reason.encode()


def _masked(data: bytes, mask: bytes) -> bytes:
    # As one large number: byte by byte would be what a gateway spends its time on.
    whole = (mask * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(whole, "big")).to_bytes(len(data), "big")


class Decoder:
    """Turns bytes, cut anywhere, into messages. `masked` says whether the other side is a client.

    `most` is how many bytes a message may have; one that announces more is refused before it has come.
    """

    def __init__(self, *, masked: bool, most: int) -> None:
        self._masked = masked
        self._most = most
        self._buffer = bytearray()
        self._parts: list[bytes] | None = None

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that `data` completes. Raises Violation, after those that came before it."""
        self._buffer += data
        while (frame := self._frame()) is not None:
            message = self._message(*frame)
            if message is not None:
                yield message

    def _frame(self) -> tuple[bool, Opcode, bytes] | None:
        """The next whole frame: final, opcode, payload."""
        if len(self._buffer) < 2:
            return None
        first, second = self._buffer[0], self._buffer[1]
        if first & 0x70:
            raise Violation(Code.PROTOCOL_ERROR, "reserved bits are set")
        try:
            opcode = Opcode(first & 0x0F)
        except ValueError:
            raise Violation(Code.PROTOCOL_ERROR, "no such opcode") from None
        if bool(second & 0x80) is not self._masked:
            raise Violation(Code.PROTOCOL_ERROR, "clients mask and servers do not")
        length, at = second & 0x7F, 2
        if opcode >= Opcode.CLOSE and (length > _LONGEST_CONTROL or not first & 0x80):
            raise Violation(Code.PROTOCOL_ERROR, "a control frame is short and whole")
        if length > _LONGEST_CONTROL:
            size = 2 if length == 126 else 8
            if len(self._buffer) < 2 + size:
                return None
            length, at = int.from_bytes(self._buffer[2 : 2 + size], "big"), 2 + size
        if length + sum(map(len, self._parts or ())) > self._most:
            raise Violation(Code.TOO_BIG, f"up to {self._most} bytes")
        start = at + (4 if self._masked else 0)
        if len(self._buffer) < start + length:
            return None
        payload = bytes(self._buffer[start : start + length])
        if self._masked:
            payload = _masked(payload, bytes(self._buffer[at:start]))
        del self._buffer[: start + length]
        return bool(first & 0x80), opcode, payload

    def _message(self, final: bool, opcode: Opcode, payload: bytes) -> Message | None:  # noqa: FBT001 - from _frame
        """What the frame completes."""
        if opcode >= Opcode.CLOSE:
            if opcode is Opcode.CLOSE:
                _check_close(payload)
            return Message(opcode, payload)
        if opcode is Opcode.BINARY:
            raise Violation(Code.UNSUPPORTED, "text only")
        if (opcode is Opcode.CONTINUATION) is (self._parts is None):
            raise Violation(Code.PROTOCOL_ERROR, "a continuation belongs to a message that is under way")
        self._parts = [*(self._parts or []), payload]
        if not final:
            return None
        text, self._parts = b"".join(self._parts), None
        _check_text(text)
        return Message(Opcode.TEXT, text)


def _check_text(data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError:
        raise Violation(Code.NOT_TEXT, "not UTF-8") from None


def _check_close(payload: bytes) -> None:
    if not payload:
        return
    code = int.from_bytes(payload[:2], "big")
    if len(payload) < 2 or not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise Violation(Code.PROTOCOL_ERROR, "not a code to close with")
    _check_text(payload[2:])


class WebSocket:
    """A connection after its handshake. Used by one thread at a time.

    Sends raise OSError, TimeoutError among it, as the socket's own timeout says.
    """

    def __init__(self, connection: socket.socket, *, client: bool, received: bytes = b"") -> None:
        self._socket = connection
        self._client = client
        self._received = received
        self._decoder = Decoder(masked=not client, most=LONGEST_ANSWER if client else LONGEST_REQUEST)

    def fileno(self) -> int:
        """For poll."""
        return self._socket.fileno()

    @property
    def pending(self) -> bool:
        """Whether bytes came with the handshake that `receive` has not looked at yet: poll knows nothing of them."""
        return bool(self._received)

    def send(self, opcode: Opcode, data: bytes = b"") -> None:
        """Send one message or control frame."""
        self._socket.sendall(encode(opcode, data, mask=os.urandom(4) if self._client else None))

    def receive(self) -> Iterator[Message]:
        """What came; waits for bytes if none did. Raises Violation, and OSError when the other side has gone."""
        data, self._received = self._received or self._socket.recv(65536), b""
        if not data:
            raise ConnectionResetError("the other side has gone without a word")
        return self._decoder.feed(data)

    def close(self, code: Code, reason: str = "", *, linger: float = 0.5) -> None:
        """Say why, and let the other side read it: for `linger` seconds at most, whatever it sends is thrown away.

        Without that, bytes that nobody read would turn the end into a reset, which may overtake the reason.
        """
        until = time.monotonic() + linger
        # An OSError here: it has gone by itself.
        with self._socket, contextlib.suppress(OSError):
            self._socket.settimeout(linger)
            self.send(Opcode.CLOSE, closing(code, reason))
            self._socket.shutdown(socket.SHUT_WR)
            while self._socket.recv(65536) and time.monotonic() < until:
                pass

    def drop(self) -> None:
        """Leave without a word."""
        self._socket.close()


def accept_key(key: str) -> str:
    """What a server answers to a client's Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID.encode(), usedforsecurity=False).digest()).decode()


def upgrade(headers: Headers) -> bytes | None:
    """The answer to a GET with these headers that switches the protocol; None where they do not ask for it rightly."""
    wanted = {token.strip().lower() for token in headers.get("Connection", "").split(",")}
    key = headers.get("Sec-WebSocket-Key", "")
    try:
        nonce = base64.b64decode(key, validate=True)
    except ValueError:
        return None
    asked = headers.get("Upgrade", "").lower() == "websocket" and "upgrade" in wanted
    if not asked or headers.get("Sec-WebSocket-Version") != VERSION or len(nonce) != 16:
        return None
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_key(key)}\r\n\r\n"
    ).encode()


def connect(host: str, port: int, path: str, headers: Mapping[str, str], *, timeout: float) -> WebSocket:
    """Open a connection as a client; `timeout`, in seconds, stays the socket's. Raises Refused, OSError, Violation."""
    connection = socket.create_connection((host, port), timeout=timeout)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = {
            "Host": f"{host}:{port}",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": key,
            "Sec-WebSocket-Version": VERSION,
            **headers,
        }
        request = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        connection.sendall(f"GET {path} HTTP/1.1\r\n{request}\r\n".encode("latin-1"))
        return WebSocket(connection, client=True, received=_switched(connection, key))
    except BaseException:
        connection.close()
        raise


def _switched(connection: socket.socket, key: str) -> bytes:
    """Read the server's answer up to the end of its head. Returns what came after it."""
    answer = bytearray()
    while (end := answer.find(b"\r\n\r\n")) < 0:
        data = connection.recv(4096)
        if not data or len(answer) > _LONGEST_HEAD:
            raise ConnectionResetError("the handshake was not answered")
        answer += data
    head, rest = bytes(answer[:end]), bytes(answer[end + 4 :])
    first, _, lines = head.decode("latin-1").partition("\r\n")
    told = {name.strip().lower(): value.strip() for name, _, value in (x.partition(":") for x in lines.split("\r\n"))}
    match first.split(maxsplit=2):
        case ["HTTP/1.1", status, *_] if status.isdecimal():
            number = int(status)
        case _:
            raise Violation(Code.PROTOCOL_ERROR, "not an answer of HTTP/1.1")
    if number != http.client.SWITCHING_PROTOCOLS:
        length = told.get("content-length", "")
        left = min(int(length), _LONGEST_HEAD) - len(rest) if length.isdecimal() else 0
        while left > 0 and (data := connection.recv(min(left, 4096))):
            rest, left = rest + data, left - len(data)
        raise Refused(number, rest)
    if told.get("sec-websocket-accept") != accept_key(key):
        raise Violation(Code.PROTOCOL_ERROR, "the answer does not belong to this handshake")
    return rest
