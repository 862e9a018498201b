"""RFC 6455 as far as it is spoken here: the standard's examples, what breaks it, and both sides on a real socket."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from email.message import Message as Headers

import pytest

from staging.websocket import (
    Code,
    Decoder,
    Message,
    Opcode,
    Refused,
    Violation,
    WebSocket,
    accept_key,
    closing,
    connect,
    encode,
    upgrade,
)

MASK = bytes.fromhex("37fa213d")


def decoded(data: bytes, *, masked: bool = False, most: int = 64 * 1024) -> list[tuple[Opcode, bytes]]:
    decoder = Decoder(masked=masked, most=most)
    return [(message.opcode, message.data) for message in decoder.feed(data)]


# Section 5.7 of the standard.
EXAMPLES = [
    ("810548656c6c6f", False, [(Opcode.TEXT, b"Hello")]),
    ("818537fa213d7f9f4d5158", True, [(Opcode.TEXT, b"Hello")]),
    ("010348656c80026c6f", False, [(Opcode.TEXT, b"Hello")]),
    ("890548656c6c6f", False, [(Opcode.PING, b"Hello")]),
    ("8a8537fa213d7f9f4d5158", True, [(Opcode.PONG, b"Hello")]),
]


@pytest.mark.parametrize(("data", "masked", "messages"), EXAMPLES)
def test_the_examples_of_the_standard(data: str, masked: bool, messages: list[tuple[Opcode, bytes]]) -> None:
    assert decoded(bytes.fromhex(data), masked=masked) == messages


@pytest.mark.parametrize(("data", "masked", "messages"), EXAMPLES)
def test_frames_may_be_cut_anywhere(data: str, masked: bool, messages: list[tuple[Opcode, bytes]]) -> None:
    decoder = Decoder(masked=masked, most=64)
    found = [message for byte in bytes.fromhex(data) for message in decoder.feed(bytes([byte]))]
    assert [(message.opcode, message.data) for message in found] == messages


def test_the_standards_handshake() -> None:
    assert accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_what_is_encoded_is_what_the_standard_says() -> None:
    assert encode(Opcode.TEXT, b"Hello", mask=None).hex() == "810548656c6c6f"
    assert encode(Opcode.TEXT, b"Hello", mask=MASK).hex() == "818537fa213d7f9f4d5158"
    assert encode(Opcode.BINARY, bytes(256), mask=None)[:4].hex() == "827e0100"
    assert encode(Opcode.BINARY, bytes(65536), mask=None)[:10].hex() == "827f0000000000010000"


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 100_000])
@pytest.mark.parametrize("mask", [None, MASK])
def test_what_is_encoded_is_decoded(size: int, mask: bytes | None) -> None:
    text = b"a" * size
    frame = encode(Opcode.TEXT, text, mask=mask)
    assert decoded(frame, masked=mask is not None, most=100_000) == [(Opcode.TEXT, text)]


def test_a_ping_may_come_in_the_middle_of_a_message() -> None:
    frames = bytes.fromhex("010348656c") + bytes.fromhex("8900") + bytes.fromhex("80026c6f")
    assert decoded(frames) == [(Opcode.PING, b""), (Opcode.TEXT, b"Hello")]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ("c10548656c6c6f", Code.PROTOCOL_ERROR),  # a reserved bit
        ("830548656c6c6f", Code.PROTOCOL_ERROR),  # no such opcode
        ("818537fa213d7f9f4d5158", Code.PROTOCOL_ERROR),  # a server that masks
        ("090548656c6c6f", Code.PROTOCOL_ERROR),  # a ping in fragments
        ("897e0080", Code.PROTOCOL_ERROR),  # a ping too long
        ("800548656c6c6f", Code.PROTOCOL_ERROR),  # a continuation of nothing
        ("010348656c810548656c6c6f", Code.PROTOCOL_ERROR),  # a message within a message
        ("880103", Code.PROTOCOL_ERROR),  # half a code
        ("880203ed", Code.PROTOCOL_ERROR),  # 1005 is never sent
        ("88020000", Code.PROTOCOL_ERROR),
        ("880403e8c328", Code.NOT_TEXT),
        ("8102c328", Code.NOT_TEXT),
        ("820100", Code.UNSUPPORTED),
        ("817f00000000ffffffff", Code.TOO_BIG),  # refused before it has come
        ("0102414180024141", Code.TOO_BIG),  # too long in sum
    ],
)
def test_what_breaks_the_protocol_is_named(data: str, code: Code) -> None:
    with pytest.raises(Violation) as caught:
        decoded(bytes.fromhex(data), most=8 if code is not Code.TOO_BIG else 3)
    assert caught.value.code is code


def test_a_client_that_does_not_mask_breaks_the_protocol() -> None:
    with pytest.raises(Violation, match="clients mask"):
        decoded(bytes.fromhex("810548656c6c6f"), masked=True)


def test_messages_before_a_violation_are_still_heard() -> None:
    found: list[Message] = []
    with pytest.raises(Violation):
        found.extend(Decoder(masked=False, most=64).feed(bytes.fromhex("8900" + "ff00")))
    decoder = Decoder(masked=False, most=64).feed(bytes.fromhex("8900" + "ff00"))
    assert next(decoder).opcode is Opcode.PING


def asked(**changes: str) -> Headers:
    headers = Headers()
    lines = {
        "upgrade": "WebSocket",
        "connection": "keep-alive, Upgrade",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-version": "13",
    }
    for name, value in (lines | {name.replace("_", "-"): value for name, value in changes.items()}).items():
        if value:
            headers[name] = value
    return headers


def test_a_handshake_is_answered() -> None:
    answer = upgrade(asked())
    assert answer is not None
    head = answer.decode()
    assert head.startswith("HTTP/1.1 101 ")
    assert "\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head
    assert head.endswith("\r\n\r\n")


@pytest.mark.parametrize(
    "changes",
    [
        {"upgrade": ""},
        {"upgrade": "h2c"},
        {"connection": "keep-alive"},
        {"sec_websocket_key": ""},
        {"sec_websocket_key": "c2hvcnQ="},
        {"sec_websocket_key": "***"},
        {"sec_websocket_version": "8"},
        {"sec_websocket_version": ""},
    ],
)
def test_what_is_no_handshake_is_not_answered(changes: dict[str, str]) -> None:
    assert upgrade(asked(**changes)) is None


@pytest.fixture
def pair() -> Iterator[tuple[WebSocket, WebSocket]]:
    here, there = socket.socketpair()
    with here, there:
        here.settimeout(5)
        there.settimeout(5)
        yield WebSocket(here, client=True), WebSocket(there, client=False)


def test_both_sides_understand_each_other(pair: tuple[WebSocket, WebSocket]) -> None:
    client, server = pair
    client.send(Opcode.TEXT, "grüße".encode())
    assert [message.data.decode() for message in server.receive()] == ["grüße"]
    server.send(Opcode.PING, b"7")
    assert list(client.receive()) == [Message(Opcode.PING, b"7")]


def test_a_close_says_why_although_something_was_left_unread(pair: tuple[WebSocket, WebSocket]) -> None:
    client, server = pair
    client.send(Opcode.TEXT, b"never read")
    ending = threading.Thread(target=server.close, args=(Code.TIMEOUT, "too slow"))
    ending.start()
    (message,) = list(client.receive())
    assert (message.opcode, message.close_code, message.data[2:]) == (Opcode.CLOSE, 4408, b"too slow")
    client.drop()
    ending.join()
    assert Message(Opcode.CLOSE, b"").close_code == Code.NO_CODE
    assert closing(Code.NORMAL) == struct.pack("!H", 1000)


def test_gone_without_a_word_is_an_error(pair: tuple[WebSocket, WebSocket]) -> None:
    client, server = pair
    client.drop()
    with pytest.raises(ConnectionResetError, match="without a word"):
        server.receive()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 410 Gone\r\nContent-Length: 4\r\n\r\ngone", Refused),
        (b"HTTP/1.1 101 Switching\r\nSec-WebSocket-Accept: wrong\r\n\r\n", Violation),
        (b"SSH-2.0-x\r\n\r\n", Violation),
        (b"HTTP/1.1 101", ConnectionResetError),
    ],
)
def test_a_client_checks_the_answer(answer: bytes, error: type[Exception]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                assert peer.recv(4096).startswith(b"GET /sync HTTP/1.1\r\n")
                peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(error) as caught:
            connect("127.0.0.1", server.getsockname()[1], "/sync", {}, timeout=5)
        thread.join()
    if isinstance(caught.value, Refused):
        assert (caught.value.status, caught.value.body) == (410, b"gone")
